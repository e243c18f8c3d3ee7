//! Every call to the driver fails in turn, and the system's too where they can be made to.

use std::sync::Arc;

use wharf::memory::{
    DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource, PinnedMemoryResource,
    PinnedOptions, ResourceReport, WriteCombinedMemoryResource,
};
use wharf::{Context, CudaError, Error};

use crate::backend::{Config, Simulator, on_machine};
use crate::memory_kinds::{
    Kind, commit, context_of, decommit, host_bytes, pattern, read, resume, suspend, write,
};

const GRANULE: usize = 2 << 20;
const SIZE: usize = 16 * GRANULE;

/// A machine with one resource, and the calls that a step makes on it.
struct Bench<R> {
    machine: Arc<Simulator>,
    context: Context,
    resource: R,
}

/// Runs `body` on a machine of its own.
fn bench<R: Kind>(body: impl FnOnce(Bench<R>)) {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let resource = R::make(&context, SIZE).unwrap();
        body(Bench { machine: Arc::clone(&machine), context, resource });
    });
}

/// The calls that `step` makes, by name and how often.
fn calls_of(machine: &Simulator, step: impl FnOnce()) -> Vec<(&'static str, u64)> {
    let before = machine.all_calls();
    step();
    let count = |name| before.iter().find(|call| call.0 == name).map_or(0, |call| call.1);
    let made = machine.all_calls().into_iter().map(|(name, calls)| (name, calls - count(name)));
    made.filter(|call| call.1 > 0).collect()
}

/// Each call of `step`, as a name and which call of that name.
fn each_call<R: Kind>(prepare: fn(&R), step: fn(&R)) -> Vec<(&'static str, u64)> {
    let mut calls = Vec::new();
    bench::<R>(|bench| {
        prepare(&bench.resource);
        calls = calls_of(&bench.machine, || step(&bench.resource));
    });
    calls.into_iter().flat_map(|(name, count)| (1..=count).map(move |nth| (name, nth))).collect()
}

/// The state that an error must not change.
fn state(report: ResourceReport) -> (usize, usize, usize, usize) {
    let pages = report.pages;
    (
        report.committed,
        report.registered,
        report.lost,
        pages.explicit + pages.transparent + pages.plain,
    )
}

fn commit_fails_cleanly<R: Kind>() {
    let prepare = |resource: &R| commit(resource, 0, GRANULE).unwrap();
    let step = |resource: &R| commit(resource, 2 * GRANULE, 3 * GRANULE).unwrap();
    for (call, nth) in each_call::<R>(prepare, step) {
        bench::<R>(|Bench { machine, context, resource }| {
            prepare(&resource);
            let (before, alive) = (state(resource.report()), machine.leaks());
            machine.fail(call, nth, CudaError::OUT_OF_MEMORY);
            match commit(&resource, 2 * GRANULE, 3 * GRANULE) {
                Err(error) => {
                    assert_eq!(error, Error::Driver { call, code: CudaError::OUT_OF_MEMORY });
                    assert_eq!(state(resource.report()), before, "{call} {nth}");
                    // A handle that the driver does not release is not given to it again.
                    let kept = usize::from(call == "cuMemRelease");
                    assert_eq!(machine.leaks().len(), alive.len() + kept, "{call} {nth}");
                    assert_eq!(resource.device_address(2 * GRANULE, 1), None);
                    commit(&resource, 2 * GRANULE, 3 * GRANULE).unwrap();
                }
                // Only what is restored after the commit may fail without a word.
                Ok(()) => {
                    assert!(matches!(
                        call,
                        "cuThreadExchangeStreamCaptureMode" | "cuCtxSetCurrent"
                    ));
                }
            }
            works(&context, &resource, 2 * GRANULE, 3 * GRANULE);
            decommit(&resource, 2 * GRANULE, 3 * GRANULE).unwrap();
            drop((resource, context));
            assert_eq!(machine.leaks().len(), usize::from(call == "cuMemRelease"), "{call} {nth}");
        });
    }
}

fn decommit_fails_for_ever<R: Kind>() {
    let prepare = |resource: &R| {
        commit(resource, 0, GRANULE).unwrap();
        commit(resource, 2 * GRANULE, 3 * GRANULE).unwrap();
    };
    let step = |resource: &R| decommit(resource, 2 * GRANULE, 3 * GRANULE).unwrap();
    for (call, nth) in each_call::<R>(prepare, step) {
        bench::<R>(|Bench { machine, context, resource }| {
            prepare(&resource);
            machine.fail(call, nth, CudaError::UNKNOWN);
            match decommit(&resource, 2 * GRANULE, 3 * GRANULE) {
                Err(error) => {
                    assert_eq!(error, Error::Driver { call, code: CudaError::UNKNOWN });
                    let report = resource.report();
                    assert_eq!(
                        (report.committed, report.lost),
                        (4 * GRANULE, 3 * GRANULE),
                        "{call} {nth}"
                    );
                    assert!(commit(&resource, 3 * GRANULE, GRANULE).is_err());
                }
                Ok(()) => {
                    assert!(matches!(
                        call,
                        "cuThreadExchangeStreamCaptureMode" | "cuCtxSetCurrent"
                    ));
                }
            }
            commit(&resource, 6 * GRANULE, GRANULE).unwrap();
            works(&context, &resource, 6 * GRANULE, GRANULE);
            // The drop tries once more, and succeeds.
            drop(resource);
            drop(context);
            assert_eq!(machine.leaks(), Vec::<String>::new(), "{call} {nth}");
        });
    }
}

fn making_fails_cleanly<R: Kind>() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let make = || {
            let mut resource = R::make(&context, SIZE)?;
            resource.limit_to(SIZE / 2)?;
            Ok::<_, Error>(resource)
        };
        let calls = calls_of(&machine, || make().unwrap().close().unwrap());
        for (call, count) in calls {
            for nth in 1..=count {
                let alive = machine.leaks();
                machine.fail(call, nth, CudaError::OUT_OF_MEMORY);
                let errors = context.drop_errors();
                let outcome = make().map(drop);
                let failed = outcome.is_err() || context.drop_errors() > errors;
                let restored =
                    matches!(call, "cuThreadExchangeStreamCaptureMode" | "cuCtxSetCurrent");
                assert!(failed || restored, "{call} {nth}");
                // What a drop could not give back is counted, and leaks.
                if context.drop_errors() == errors {
                    assert_eq!(machine.leaks(), alive, "{call} {nth}");
                }
            }
        }
    });
}

fn a_lost_context_leaks_rather_than_dangles<R: Kind>() {
    bench::<R>(|Bench { machine, context, resource }| {
        commit(&resource, 0, GRANULE).unwrap();
        let is_host = !matches!(R::KIND, wharf::memory::MemoryKind::Device);
        machine.fault_devices(CudaError::ILLEGAL_ADDRESS);
        let sticky = |error: Error| error.code() == Some(CudaError::ILLEGAL_ADDRESS);
        let base = resource.base();
        if resource.report().backing == wharf::memory::Backing::Pieces {
            assert!(commit(&resource, GRANULE, GRANULE).is_err_and(sticky));
            assert!(decommit(&resource, 0, GRANULE).is_err_and(sticky));
        }
        drop(resource);
        assert!(context.drop_errors() > 0);
        if is_host {
            // Still there: the device may be using it.
            assert_eq!(host_bytes(base, 4096).len(), 4096);
        }
    });
}

/// Memory that a commit has given holds bytes.
fn works<R: Kind>(context: &Context, resource: &R, offset: usize, len: usize) {
    let address = resource.device_address(offset, len).unwrap();
    write(context, address, &pattern(4, len));
    assert!(read(context, address, len) == pattern(4, len));
}

macro_rules! for_each_kind {
    ($($test:ident => $generic:ident;)+) => {$(
        #[test]
        fn $test() {
            $generic::<PinnedMemoryResource>();
            $generic::<WriteCombinedMemoryResource>();
            $generic::<DeviceMemoryResource>();
            $generic::<ManagedMemoryResource>();
            $generic::<FileMappedMemoryResource>();
        }
    )+};
}

for_each_kind! {
    a_commit_that_fails_changes_nothing => commit_fails_cleanly;
    a_decommit_that_fails_ends_the_use_of_its_range => decommit_fails_for_ever;
    a_resource_that_cannot_be_made_leaves_nothing => making_fails_cleanly;
    what_a_lost_context_holds_is_leaked => a_lost_context_leaks_rather_than_dangles;
}

#[test]
fn a_piece_that_cannot_be_taken_back_is_not_used_again() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let options = PinnedOptions::default().piece_limit(GRANULE);
        let resource = PinnedMemoryResource::new(&context, SIZE, options).unwrap();
        machine.fail("cuMemHostRegister", 2, CudaError::OUT_OF_MEMORY);
        machine.fail("cuMemHostUnregister", 1, CudaError::UNKNOWN);
        let error = commit(&resource, 0, 3 * GRANULE).unwrap_err();
        assert_eq!(
            error,
            Error::Driver { call: "cuMemHostRegister", code: CudaError::OUT_OF_MEMORY }
        );
        assert_eq!((context.drop_errors(), resource.report().lost), (1, 3 * GRANULE));
        assert!(commit(&resource, 2 * GRANULE, GRANULE).is_err());
        commit(&resource, 3 * GRANULE, GRANULE).unwrap();
        works(&context, &resource, 3 * GRANULE, GRANULE);
        resource.close().unwrap();
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn a_mapping_that_cannot_be_taken_back_is_not_used_again() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let resource = DeviceMemoryResource::make(&context, SIZE).unwrap();
        machine.fail("cuMemSetAccess", 1, CudaError::OUT_OF_MEMORY);
        machine.fail("cuMemUnmap", 1, CudaError::UNKNOWN);
        assert!(commit(&resource, 0, 2 * GRANULE).is_err());
        assert_eq!((context.drop_errors(), resource.report().lost), (1, 2 * GRANULE));
        assert!(commit(&resource, GRANULE, GRANULE).is_err());
        commit(&resource, 2 * GRANULE, GRANULE).unwrap();
        works(&context, &resource, 2 * GRANULE, GRANULE);
        resource.close().unwrap();
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
    assert_eq!(machine.calls("cuMemCreate"), machine.calls("cuMemRelease"));
}

#[test]
fn memory_that_runs_out_is_an_error() {
    let config = Config { device_memory: 8 << 20, host_memory: 8 << 20, ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let pinned = PinnedMemoryResource::make(&context, SIZE).unwrap();
        let device = DeviceMemoryResource::make(&context, SIZE).unwrap();
        for (commit, name) in [
            (commit(&pinned, 0, 5 * GRANULE), "cuMemHostRegister"),
            (commit(&device, 0, 5 * GRANULE), "cuMemCreate"),
        ] {
            assert_eq!(commit, Err(Error::Driver { call: name, code: CudaError::OUT_OF_MEMORY }));
        }
        commit(&pinned, 0, 4 * GRANULE).unwrap();
        commit(&device, 0, 4 * GRANULE).unwrap();
        // One allocation, made when it is known how much of it is needed.
        let whole = WriteCombinedMemoryResource::make(&context, SIZE).unwrap();
        let error = commit(&whole, 0, GRANULE).unwrap_err();
        assert_eq!(
            (error.call(), error.code()),
            ("cuMemHostAlloc", Some(CudaError::OUT_OF_MEMORY))
        );
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

/// Memory is mapped that could not be made accessible and could not be unmapped: it counts as long
/// as it is there, and once.
#[test]
fn a_resume_whose_undo_fails_is_counted_while_its_memory_is_there() {
    for again in [false, true] {
        bench::<DeviceMemoryResource>(|Bench { machine, resource, .. }| {
            let committed = || resource.report().committed;
            commit(&resource, 0, GRANULE).unwrap();
            suspend(&resource, 0, GRANULE).unwrap();
            assert_eq!(committed(), 0);
            machine.fail("cuMemSetAccess", 1, CudaError::UNKNOWN);
            machine.fail("cuMemUnmap", 1, CudaError::UNKNOWN);
            resume(&resource, 0, GRANULE).unwrap_err();
            assert_eq!(committed(), GRANULE, "it is mapped");
            if again {
                resume(&resource, 0, GRANULE).unwrap();
                assert_eq!(committed(), GRANULE);
            }
            decommit(&resource, 0, GRANULE).unwrap();
            assert_eq!((committed(), resource.report().lost), (0, 0));
        });
    }
}
