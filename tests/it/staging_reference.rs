//! Slots that the device reads in the caller's own pinned buffers.

use std::sync::Arc;

use wharf::memory::{
    DeviceMemoryResource, MemoryKind, MemoryResource, PinnedMemoryResource, PinnedOptions,
    WriteCombinedMemoryResource,
};
use wharf::pool::{Buffer, HostError, Pool};
use wharf::slab::PoolOptions;
use wharf::staging::{
    InputBuffers, InputBuffersBuilder, Layout, Len, Pad, SlotFault, SlotId, StageError, Step,
};
use wharf::{Context, CudaError, Driver, Error, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::deadline::{LONG, SHORT};
use crate::graph_rig::{Cells, Gate, Inventory};
use crate::staging_rig::{context, words};

on_each_driver!(
    a_buffer_is_read_where_it_is,
    a_buffer_that_is_being_read_is_not_overwritten,
    a_buffer_that_was_dropped_is_not_reused_too_early,
    a_step_that_does_not_happen_gives_the_buffer_back,
    a_buffer_waits_for_who_wrote_it,
    what_cannot_be_read_elsewhere_is_refused,
    an_embedded_graph_reads_its_ring_slot_alone,
);

fn pool_of<R: MemoryResource + std::fmt::Debug + 'static>(resource: R) -> Pool {
    Pool::builder().slabs(PoolOptions::default().thread_cache_bytes(0)).build(resource).unwrap()
}

fn pinned(context: &Context) -> Pool {
    pool_of(PinnedMemoryResource::new(context, 64 << 20, PinnedOptions::default()).unwrap())
}

fn set(context: &Context) -> InputBuffersBuilder {
    InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4, 8]).max_tokens(16)
}

/// A buffer of so many elements of one value.
fn filled(pool: &Pool, len: usize, value: u32, stream: &Stream) -> Buffer<u32> {
    let mut buffer = pool.alloc(len, stream).unwrap();
    buffer.host_mut(LONG).unwrap().fill(value);
    buffer
}

/// In a bucket, and above the largest; between steps that write the slot.
fn a_buffer_is_read_where_it_is(driver: &Driver) {
    let context = context(driver);
    let (stream, pool) = (Stream::new(&context).unwrap(), pinned(&context));
    let inputs = set(&context).ring_depth(1).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let combined = pool_of(WriteCombinedMemoryResource::new(&context, 64 << 20).unwrap());
    combined.alloc::<u32>(4, &stream).unwrap().copy_from_slice(&[3; 4], &stream).unwrap();
    for (tokens, padded) in [(3, 4), (12, 12)] {
        let mut buffer = filled(&pool, padded, 1, &stream);
        buffer.host_mut(LONG).unwrap()[2] = 2;
        let stage = |fill: &dyn Fn(&mut Step<'_>)| {
            let mut step = inputs.begin(tokens, 1).unwrap();
            fill(&mut step);
            words::<4>(&stream, step.submit(&stream).unwrap().device_ptr(ids))
        };
        let tail = if tokens == 3 { 0 } else { 7 };
        for _ in 0..2 {
            assert_eq!(stage(&|step| step.refer_buffer(ids, &buffer).unwrap()), [1, 1, 2, 1]);
            assert_eq!(stage(&|step| step.write(ids).fill(7)), [7, 7, 7, tail]);
        }
        // What came last counts.
        let both = |step: &mut Step<'_>| {
            step.refer_buffer(ids, &buffer).unwrap();
            step.write(ids).fill(7);
        };
        assert_eq!(stage(&both), [7, 7, 7, tail]);
        // As rows, of which it has one.
        let both = |step: &mut Step<'_>| {
            step.refer_buffer(ids, &buffer).unwrap();
            let [row] = step.write_rows(ids).unwrap();
            row.fill(7);
        };
        assert_eq!(stage(&both), [7, 7, 7, tail]);
        let both = |step: &mut Step<'_>| {
            step.refer_buffer(ids, &buffer).unwrap();
            step.write_rows_from(ids, &vec![7; tokens]).unwrap();
        };
        assert_eq!(stage(&both), [7, 7, 7, tail]);
        let both = |step: &mut Step<'_>| {
            step.write(ids).fill(8);
            step.refer_buffer(ids, &filled(&pool, padded, 5, &stream)).unwrap();
            step.refer_buffer(ids, &buffer).unwrap();
        };
        assert_eq!(stage(&both), [1, 1, 2, 1]);
    }
    inputs.wait().unwrap();
}

fn a_buffer_that_is_being_read_is_not_overwritten(driver: &Driver) {
    let context = context(driver);
    let (stream, pool) = (Stream::new(&context).unwrap(), pinned(&context));
    let inputs = set(&context).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    for (tokens, padded) in [(4, 4), (12, 12)] {
        let mut buffer = filled(&pool, padded, 1, &stream);
        let gate = Gate::close(&stream);
        let mut step = inputs.begin(tokens, 1).unwrap();
        step.refer_buffer(ids, &buffer).unwrap();
        // Not even before it is submitted: the device would read what is there when it comes to it.
        assert_eq!(buffer.host_mut(SHORT).unwrap_err(), HostError::Shared);
        let staged = step.submit(&stream).unwrap();
        assert!(matches!(buffer.host_mut(SHORT), Err(HostError::Busy(_))));
        gate.open();
        buffer.host_mut(LONG).unwrap().fill(2);
        assert_eq!(words(&stream, staged.device_ptr(ids)), [1; 4]);
    }
}

fn a_buffer_that_was_dropped_is_not_reused_too_early(driver: &Driver) {
    let context = context(driver);
    let (stream, other) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let pool = pinned(&context);
    let inputs = set(&context).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let gate = Gate::close(&stream);
    let buffer = filled(&pool, 4, 1, &other);
    let address = buffer.info().address;
    let mut step = inputs.begin(4, 1).unwrap();
    step.refer_buffer(ids, &buffer).unwrap();
    drop(buffer);
    let staged = step.submit(&stream).unwrap();
    // Others get other memory; the stream that reads it may have it, and the host waits for it.
    let others: Vec<Buffer<u32>> = (0..8).map(|_| filled(&pool, 4, 9, &other)).collect();
    assert!(others.iter().all(|buffer| buffer.info().address != address));
    let mut own: Buffer<u32> = pool.alloc(4, &stream).unwrap();
    assert_eq!(own.info().address, address);
    assert!(matches!(own.host_mut(SHORT), Err(HostError::Busy(_))));
    gate.open();
    own.host_mut(LONG).unwrap().fill(9);
    assert_eq!(words(&stream, staged.device_ptr(ids)), [1; 4]);
}

fn a_step_that_does_not_happen_gives_the_buffer_back(driver: &Driver) {
    let context = context(driver);
    let (stream, pool) = (Stream::new(&context).unwrap(), pinned(&context));
    let inputs = set(&context).slot::<u32>("other", Len::Tokens).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let mut buffer = filled(&pool, 4, 1, &stream);
    let mut step = inputs.begin(4, 1).unwrap();
    step.refer_buffer(ids, &buffer).unwrap();
    drop(step);
    buffer.host_mut(LONG).unwrap().fill(2);
    let mut step = inputs.begin(4, 1).unwrap();
    step.refer_buffer(ids, &buffer).unwrap();
    // The other slot was forgotten.
    assert!(step.submit(&stream).is_err());
    buffer.host_mut(LONG).unwrap().fill(3);
}

/// What an earlier owner's stream still does with the memory comes before the read.
fn a_buffer_waits_for_who_wrote_it(driver: &Driver) {
    let context = context(driver);
    let (stream, writer) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let pool = pinned(&context);
    let inputs = set(&context).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let mut first = filled(&pool, 4, 1, &writer);
    let gate = Gate::close(&writer);
    first.fill(6, &writer).unwrap();
    drop(first);
    first = pool.alloc(4, &writer).unwrap();
    let mut step = inputs.begin(4, 1).unwrap();
    step.refer_buffer(ids, &first).unwrap();
    let staged = step.submit(&stream).unwrap();
    for _ in 0..50 {
        assert!(!staged.is_complete().unwrap());
        std::thread::yield_now();
    }
    gate.open();
    assert_eq!(words(&stream, staged.device_ptr(ids)), [6; 4]);
}

fn what_cannot_be_read_elsewhere_is_refused(driver: &Driver) {
    let cells = Cells::new(driver);
    let (context, stream) = (&cells.context, &cells.stream);
    let device = pool_of(DeviceMemoryResource::new(context, 64 << 20).unwrap());
    let (pool, fault) =
        (pinned(context), |slot: &str, fault| StageError::Slot { slot: slot.into(), fault });
    let inputs = set(context).slot_zero_copy::<u32>("flags", Len::Tokens, Pad::Zero);
    let inputs = inputs.dynamic::<u32>("elsewhere").build().unwrap();
    let other = set(context).layout(Layout::Packed).build().unwrap();
    let id = |inputs: &InputBuffers, name| -> SlotId<u32> { inputs.slot_id(name).unwrap() };
    let [ids, flags, elsewhere] = ["ids", "flags", "elsewhere"].map(|name| id(&inputs, name));
    let buffer = filled(&pool, 4, 1, stream);
    let mut step = inputs.begin(3, 1).unwrap();
    let on_device: Buffer<u32> = device.alloc(4, stream).unwrap();
    let not_pinned = SlotFault::NotPinned { kind: MemoryKind::Device };
    assert_eq!(step.refer_buffer(ids, &on_device), Err(fault("ids", not_pinned)));
    let short = buffer.slice(..3).unwrap();
    let length = SlotFault::Length { wanted: 4, given: 3 };
    assert_eq!(step.refer_buffer(ids, &short), Err(fault("ids", length)));
    assert_eq!(step.refer_buffer(flags, &buffer), Err(fault("flags", SlotFault::NeedsPerSlot)));
    assert_eq!(
        step.refer_buffer(elsewhere, &buffer),
        Err(fault("elsewhere", SlotFault::IsDynamic))
    );
    let foreign = id(&other, "ids");
    assert_eq!(step.refer_buffer(foreign, &buffer), Err(fault("0", SlotFault::Foreign)));
    // The step goes on.
    step.refer_buffer(ids, &buffer).unwrap();
    step.write(flags).fill(1);
    step.pass(elsewhere, 1).unwrap();
    step.submit(stream).unwrap().consumed_by(stream).unwrap();

    let mut step = other.begin(3, 1).unwrap();
    assert_eq!(step.refer_buffer(foreign, &buffer), Err(fault("ids", SlotFault::NeedsPerSlot)));
    for error in [not_pinned, SlotFault::Embedded, SlotFault::TooManyHandles] {
        assert!(fault("ids", error).to_string().contains("write"), "{error:?}");
    }
}

/// Its copies are a part of the engine's graph, which says where they read.
fn an_embedded_graph_reads_its_ring_slot_alone(driver: &Driver) {
    let cells = Cells::new(driver);
    let (stream, pool) = (&cells.stream, pinned(&cells.context));
    let mut buffer = filled(&pool, 4, 1, stream);
    let before = Inventory::now();
    let inputs = set(&cells.context).build().unwrap();
    let (ids, embedded) = (inputs.slot_id::<u32>("ids").unwrap(), inputs.embed(4).unwrap());
    let mut step = embedded.begin(4, 1).unwrap();
    step.refer_buffer(ids, &buffer).unwrap();
    let refused = step.submit_with::<StageError>(stream, || panic!("launched"));
    assert_eq!(
        refused.unwrap_err(),
        StageError::Slot { slot: "ids".into(), fault: SlotFault::Embedded }
    );
    buffer.host_mut(LONG).unwrap().fill(2);
    drop((embedded, inputs));
    before.restored(driver);
}

/// Every call of the driver on the way of a step that reads elsewhere fails in turn: the step
/// fails, the buffer is the caller's again, the next step works.
#[test]
fn a_step_with_a_buffer_fails_cleanly() {
    for tokens in [4, 12] {
        let life = |machine: &Arc<Simulator>, failing: Option<(&'static str, u64)>| {
            let mut calls = Vec::new();
            on_machine(machine, |driver| {
                let context = context(driver);
                let _current = context.enter().unwrap();
                let (stream, pool) = (Stream::new(&context).unwrap(), pinned(&context));
                let inputs = set(&context).ring_depth(1).build().unwrap();
                let ids = inputs.slot_id::<u32>("ids").unwrap();
                let mut buffer = filled(&pool, tokens, 1, &stream);
                let before = Inventory::now();
                let started = machine.all_calls();
                if let Some((call, nth)) = failing {
                    machine.fail(call, nth, CudaError::OPERATING_SYSTEM);
                }
                let stage = |buffer: &Buffer<u32>| {
                    let mut step = inputs.begin(tokens, 1)?;
                    step.refer_buffer(ids, buffer)?;
                    step.submit(&stream).map(drop)
                };
                let failed = stage(&buffer);
                for (name, count) in machine.all_calls() {
                    let old = started.iter().find(|call| call.0 == name).map_or(0, |call| call.1);
                    calls.extend((1..=count - old).map(|nth| (name, nth)));
                }
                if let (Some((call, _)), Err(error)) = (failing, &failed) {
                    let code = CudaError::OPERATING_SYSTEM;
                    assert_eq!(*error, StageError::Driver(Error::Driver { call, code }));
                    buffer.host_mut(LONG).unwrap().fill(2);
                }
                assert!(failing.is_some() || failed.is_ok());
                stage(&buffer).unwrap();
                let address = inputs.static_buffers().device_ptr(ids, 4).unwrap();
                let value = if failed.is_err() { 2 } else { 1 };
                assert_eq!(words(&stream, address), [value; 4], "{failing:?}");
                inputs.release().unwrap();
                drop(buffer);
                before.restored(driver);
            });
            assert_eq!(machine.leaks(), Vec::<String>::new(), "{failing:?}");
            calls
        };
        let machine = || Arc::new(Simulator::new(Config::default()));
        let calls = life(&machine(), None);
        assert!(calls.len() >= 3, "{calls:?}");
        for call in calls {
            life(&machine(), Some(call));
        }
    }
}
