//! What a profiler is told, heard by a tool in this process.
//!
//! A binary of its own: NVTX attaches one tool for the life of a process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]
#![expect(
    unsafe_code,
    reason = "implements a tool's side of NVTX; takes the software driver's functions"
)]

mod tool;

use softcuda::{Config, Simulator};
use tool::Event;
use wharf::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions, UnbackedResource};
use wharf::pool::{Buffer, Pool};
use wharf::staging::{InputBuffers, Len};
use wharf::sys::CudaError;
use wharf::{Context, Driver, Stream};

fn driver() -> Driver {
    // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
    unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }.unwrap()
}

fn push(name: &str, category: &str, payload: Option<u64>) -> Event {
    Event::Push { name: name.to_owned(), category: category.to_owned(), payload }
}

/// A machine with a context; what making them told is forgotten.
fn with_context(test: impl FnOnce(&Simulator, &Context)) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let context = Context::retain(&driver().device(0).unwrap()).unwrap();
    tool::told_here();
    test(&machine, &context);
}

#[test]
fn ranges_have_names_categories_and_bytes() {
    with_context(|_, context| {
        let resource =
            PinnedMemoryResource::new(context, 1 << 22, PinnedOptions::default()).unwrap();
        // SAFETY: nothing else uses the resource, and nothing of it is committed.
        unsafe { resource.commit(0, 1 << 21) }.unwrap();
        // SAFETY: exactly what was committed, which nothing uses.
        unsafe { resource.decommit(0, 1 << 21) }.unwrap();
        let told = tool::told_here();
        assert_eq!(
            told,
            [
                push("memory::pinned", "memory", None),
                Event::Pop,
                push("memory::pinned::commit", "memory", Some(1 << 21)),
                Event::Pop,
                push("memory::pinned::decommit", "memory", Some(1 << 21)),
                Event::Pop,
            ]
        );
    });
}

#[test]
fn an_allocation_names_its_pool_and_a_step_its_set_and_bucket() {
    with_context(|_, context| {
        let stream = Stream::new(context).unwrap();
        let resource = UnbackedResource::new(1 << 30).unwrap();
        let pool = Pool::builder().name("scratch").build(resource).unwrap();
        let _buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
        let inputs = InputBuffers::builder(context)
            .name("decode")
            .slot::<i32>("ids", Len::Tokens)
            .buckets([4, 8])
            .max_tokens(16)
            .build()
            .unwrap();
        let ids = inputs.slot_id::<i32>("ids").unwrap();
        for tokens in [8, 16] {
            let mut step = inputs.begin(tokens, 1).unwrap();
            step.write(ids).fill(7);
            step.submit(&stream).unwrap();
        }
        let told = tool::told_here();
        for range in [
            push("pool::alloc(scratch)", "memory", Some(1000)),
            push("staging::submit(decode, 8)", "staging", Some(32)),
            push("staging::submit(decode, no bucket)", "staging", Some(64)),
        ] {
            assert!(told.contains(&range), "{range:?} in {told:?}");
        }
    });
}

#[test]
fn there_is_one_domain_and_a_name_is_registered_once() {
    with_context(|_, context| {
        for _ in 0..3 {
            drop(PinnedMemoryResource::new(context, 1, PinnedOptions::default()).unwrap());
        }
    });
    assert_eq!(tool::domains(), ["wharf"]);
    let count = |name: &str| tool::strings().iter().filter(|string| *string == name).count();
    assert_eq!(count("memory::pinned"), 1);
    assert!(wharf::profile::is_attached());
}

#[test]
fn an_error_met_by_a_drop_is_marked() {
    with_context(|machine, context| {
        let stream = Stream::new(context).unwrap();
        machine.fail("cuStreamDestroy", 1, CudaError::INVALID_HANDLE);
        drop(stream);
        let mark = Event::Mark { name: "drop_error".to_owned(), category: "driver".to_owned() };
        assert_eq!(tool::told_here(), [mark]);
    });
}

#[test]
fn streams_and_threads_have_names() {
    with_context(|_, context| {
        let stream = Stream::new(context).unwrap();
        stream.set_name("copies");
        wharf::profile::name_thread("staging\0cut");
        let told = tool::told_here();
        let handle = stream.as_raw().addr();
        assert_eq!(told[0], Event::Stream { handle, name: "copies".to_owned() });
        assert!(
            matches!(&told[1], Event::Thread { id, name } if *id > 0 && name == "staging"),
            "{told:?}"
        );
    });
}

/// On every thread what is opened is closed, the last first, for whatever the library does.
#[test]
fn ranges_are_balanced() {
    with_context(|machine, context| {
        machine.fail("cuMemHostRegister", 1, CudaError::OUT_OF_MEMORY);
        let resource = PinnedMemoryResource::new(context, 1, PinnedOptions::default()).unwrap();
        // SAFETY: nothing else uses the resource, and nothing of it is committed.
        unsafe { resource.commit(0, resource.granularity()) }.unwrap_err();
        context.synchronize().unwrap();
        let mut depth = 0;
        for event in tool::told_here() {
            match event {
                Event::Push { .. } => depth += 1,
                Event::Pop => depth -= 1,
                _ => (),
            }
            assert!(depth >= 0);
        }
        assert_eq!(depth, 0);
    });
}
