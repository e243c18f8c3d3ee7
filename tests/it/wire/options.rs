//! What a device's memory is made for: what is advertised, asked for and granted.

use std::sync::Arc;

use ::softcuda::Schedule;
use wharf::driver::DeviceAttribute;
use wharf::memory::{Ask, DeviceMemoryResource, DeviceOptions, Handles, MemoryResource};
use wharf::{Context, CudaError, Error};

use crate::backend::{Config, Simulator, on_machine};
use crate::memory_kinds::{commit, context_of, decommit};

const FABRIC: DeviceAttribute = DeviceAttribute::HANDLE_TYPE_FABRIC_SUPPORTED;
const POSIX: DeviceAttribute = DeviceAttribute::HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED;
const RDMA: DeviceAttribute = DeviceAttribute::GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED;
const ALL: DeviceAttribute = DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;

/// A machine whose device says so.
pub(super) fn machine(attributes: &[(DeviceAttribute, i32)], imex_channel: bool) -> Arc<Simulator> {
    let attributes = attributes.iter().map(|(name, value)| (name.as_raw(), *value)).collect();
    let schedule = Schedule::Eager;
    Arc::new(Simulator::new(Config { attributes, imex_channel, schedule, ..Config::default() }))
}

/// Everything that can be asked for.
fn everything() -> DeviceOptions {
    DeviceOptions::default().rdma(Ask::IfPossible).shareable(Handles::FABRIC | Handles::POSIX)
}

fn make(context: &Context, options: DeviceOptions) -> Result<DeviceMemoryResource, Error> {
    DeviceMemoryResource::with_options(context, 64 << 20, options)
}

/// The handles and RDMA granted where all are asked for, and how many combinations were tried.
fn granted(attributes: &[(DeviceAttribute, i32)], imex: bool) -> (Handles, bool, u64) {
    let machine = machine(attributes, imex);
    let granted = on_machine(&machine, |driver| {
        let memory = make(&context_of(driver), everything()).unwrap();
        let report = memory.report();
        let granted = memory.granted();
        assert_eq!((report.handles, report.rdma), (granted.handles, granted.rdma));
        let calls = machine.calls("cuMemGetAllocationGranularity");
        commit(&memory, 0, memory.granularity()).unwrap();
        decommit(&memory, 0, memory.granularity()).unwrap();
        (granted.handles, granted.rdma, calls)
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
    granted
}

#[test]
fn what_is_not_advertised_is_not_asked_for() {
    assert_eq!(granted(&[], false), (Handles::POSIX, false, 1));
    assert_eq!(granted(&[(POSIX, 0)], false), (Handles::NONE, false, 1));
    assert_eq!(granted(&[(RDMA, 1)], false), (Handles::POSIX, true, 1));
}

/// MoonEP#28, mscclpp#467, pytorch#156074: the device says FABRIC, and creation is not permitted.
#[test]
fn pytorch_156074_fabric_without_a_channel_falls_back() {
    let both = Handles::FABRIC | Handles::POSIX;
    assert_eq!(granted(&[(FABRIC, 1), (RDMA, 1)], true), (both, true, 1));
    assert_eq!(granted(&[(FABRIC, 1), (RDMA, 1)], false), (Handles::POSIX, true, 3));
    assert_eq!(granted(&[(FABRIC, 1), (POSIX, 0)], true), (Handles::FABRIC, false, 1));
    assert_eq!(granted(&[(FABRIC, 1), (POSIX, 0)], false), (Handles::NONE, false, 2));
}

/// pytorch#192330: WSL2 advertises RDMA, and cuMemSetAccess then fails.
#[test]
fn pytorch_192330_rdma_whose_access_fails_falls_back() {
    for call in ["cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemGetAllocationGranularity"] {
        let machine = machine(&[(RDMA, 1)], false);
        machine.fail(call, 1, CudaError::NOT_SUPPORTED);
        on_machine(&machine, |driver| {
            let memory = make(&context_of(driver), everything()).unwrap();
            let granted = memory.granted();
            assert_eq!((granted.handles, granted.rdma), (Handles::POSIX, false), "{call}");
            commit(&memory, 0, memory.granularity()).unwrap();
        });
        assert_eq!(machine.leaks(), Vec::<String>::new(), "{call}");
    }
}

/// "A request": the driver creates the memory, and network cards do not reach it.
#[test]
fn ucx_10007_what_was_granted_is_asked_of_the_memory() {
    let machine = machine(&[(RDMA, 1)], false);
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        machine.fail("cuPointerGetAttribute", 1, CudaError::INVALID_VALUE);
        assert!(!make(&context, everything()).unwrap().granted().rdma);
        assert!(make(&context, everything()).unwrap().granted().rdma);
        machine.fail("cuPointerGetAttribute", 1, CudaError::INVALID_VALUE);
        let refused = make(&context, DeviceOptions::default().rdma(Ask::Required)).unwrap_err();
        assert_eq!(refused.code(), Some(CudaError::NOT_SUPPORTED), "{refused}");
    });
}

#[test]
fn what_is_required_and_not_there_is_an_error() {
    for attributes in [&[][..], &[(RDMA, 1), (ALL, 0)]] {
        let machine = machine(attributes, false);
        on_machine(&machine, |driver| {
            let context = context_of(driver);
            let refused = make(&context, DeviceOptions::default().rdma(Ask::Required)).unwrap_err();
            assert_eq!(refused.code(), Some(CudaError::NOT_SUPPORTED), "{refused}");
            assert_eq!(machine.calls("cuMemCreate"), 0);
            // Without it there is memory as always, on a device without virtual memory too.
            let memory = make(&context, everything()).unwrap();
            assert!(!memory.granted().rdma);
        });
        assert_eq!(machine.leaks(), Vec::<String>::new());
    }
}

#[test]
fn a_driver_without_memory_is_no_driver_without_handles() {
    let machine = machine(&[], false);
    machine.fail("cuMemCreate", 1, CudaError::OUT_OF_MEMORY);
    on_machine(&machine, |driver| {
        let error = make(&context_of(driver), everything()).unwrap_err();
        assert!(error.is_out_of_memory(), "{error}");
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

/// Every call of the probe in turn, with an error that is no answer: an `Err`, and nothing is left.
#[test]
fn a_probe_that_fails_leaves_nothing() {
    let calls = [
        "cuDeviceGetAttribute",
        "cuMemGetAllocationGranularity",
        "cuMemCreate",
        "cuMemAddressReserve",
        "cuMemMap",
        "cuMemSetAccess",
        "cuPointerGetAttribute",
    ];
    for call in calls {
        let machine = machine(&[], false);
        machine.fail(call, 1, CudaError::UNKNOWN);
        on_machine(&machine, |driver| {
            let error = make(&context_of(driver), everything()).unwrap_err();
            assert_eq!(error, Error::Driver { call, code: CudaError::UNKNOWN });
        });
        assert_eq!(machine.leaks(), Vec::<String>::new(), "{call}");
    }
}

/// Without options nothing is probed: no call more than before there were any.
#[test]
fn plain_memory_is_not_probed() {
    let machine = machine(&[(FABRIC, 1), (RDMA, 1)], true);
    on_machine(&machine, |driver| {
        let memory = DeviceMemoryResource::new(&context_of(driver), 64 << 20).unwrap();
        assert_eq!(memory.granted().handles, Handles::NONE);
        assert_eq!((machine.calls("cuMemCreate"), machine.calls("cuMemMap")), (0, 0));
    });
}
