//! Results: what arrives, what it costs, and what is not overwritten.

use std::sync::Arc;
use std::thread;

use wharf::driver::EventKind;
use wharf::graph::{Copy1d, GraphDefinition};
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::staging::{
    Counts, InputBuffers, Instantiation, Layout, Len, OutputBuffers, Pending, SlotFault, SlotId,
    StageError, StallCause,
};
use wharf::{Context, Driver, Event, Stream};

use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::deadline::{LONG, SHORT};
use crate::graph_rig::{Gate, Inventory};
use crate::outputs_rig::{OutputIds, outputs};
use crate::staging_rig::{MAX_REQUESTS, MAX_TOKENS, Noise, context};

on_each_driver!(
    results_are_read_while_the_next_step_runs,
    a_result_that_is_held_is_not_overwritten,
    a_wait_is_for_its_own_step_alone,
    a_result_that_is_given_up_in_flight_comes_to_no_other,
    a_writer_waits_for_the_copy,
    results_outlive_the_set,
    results_come_from_where_the_step_says,
    a_buffer_that_was_dropped_is_fetched_first,
    results_are_a_part_of_the_engines_graph,
    threads_share_a_set,
);

pub(crate) const LAYOUTS: [Layout; 2] = [Layout::PerSlot, Layout::Packed];

/// Steps of all sizes; some above the largest bucket, where a layout has one place for them.
fn steps(count: usize, seed: u64, layout: Layout) -> impl Iterator<Item = Counts> {
    let mut noise = Noise(seed);
    (0..count).map(move |_| {
        let tokens = match noise.below(8) {
            0 if layout == Layout::PerSlot => 1 + noise.below(MAX_TOKENS),
            1 => 1 + noise.below(512),
            _ => 1 + noise.below(64),
        };
        Counts { tokens, requests: 1 + noise.below(tokens.min(MAX_REQUESTS)) }
    })
}

/// A set of one slot of words, and its id.
pub(crate) fn small(context: &Context, depth: usize) -> (OutputBuffers, SlotId<u32>) {
    let set = OutputBuffers::builder(context).slot::<u32>("words", Len::Tokens).buckets([4, 8]);
    let outputs = set.max_tokens(16).ring_depth(depth).deadline(SHORT).build().unwrap();
    let words = outputs.slot_id("words").unwrap();
    (outputs, words)
}

/// Lets a model write `value` to the first `len` words at `address`.
#[expect(unsafe_code, reason = "fills device memory by raw address")]
pub(crate) fn model(stream: &Stream, address: u64, value: u32, len: usize) {
    // SAFETY: device memory of so many words, which streams order.
    unsafe { stream.fill_d32(address, value, len) }.unwrap();
}

/// Every byte, under every schedule, in both layouts, in rings of 1 to 4: as many steps are ahead
/// as the ring holds.
fn results_are_read_while_the_next_step_runs(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for (layout, depth) in LAYOUTS.into_iter().flat_map(|it| (1..=4).map(move |depth| (it, depth)))
    {
        let outputs = outputs(&context).layout(layout).ring_depth(depth).build().unwrap();
        let ids = OutputIds::of(&outputs);
        let mut ahead = std::collections::VecDeque::new();
        for (seed, counts) in steps(24, 5, layout).enumerate() {
            ids.compute(&stream, counts, seed as u64);
            if ahead.len() == depth {
                let (before, seed) = ahead.pop_front().unwrap();
                ids.check(&before, seed);
            }
            let pending = outputs.fetch(counts.tokens, counts.requests, &stream).unwrap();
            ahead.push_back((pending, seed as u64));
        }
        ahead.into_iter().for_each(|(pending, seed)| ids.check(&pending, seed));
    }
}

/// In steady state a fetch is one call of the driver, and reading is none.
#[test]
fn a_fetch_is_one_driver_call() {
    for layout in LAYOUTS {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let _current = context.enter().unwrap();
            let set = outputs(&context).layout(layout).instantiation(Instantiation::Eager);
            let outputs = set.max_graphs(10_000).build().unwrap();
            let (ids, stream) = (OutputIds::of(&outputs), Stream::new(&context).unwrap());
            let changes = || machine.calls("cuGraphExecMemcpyNodeSetParams");
            let total = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
            let all = steps(300, 3, layout).filter(|counts| counts.tokens <= 512);
            for (seed, counts) in all.enumerate() {
                ids.compute(&stream, counts, seed as u64);
                let (before, unchanged) = (total(), changes());
                let pending = outputs.fetch(counts.tokens, counts.requests, &stream).unwrap();
                // A packed set has one graph a ring slot, which is told another bucket.
                let changed = changes() - unchanged;
                assert!(changed <= u64::from(layout == Layout::Packed), "{layout:?}");
                assert_eq!(total() - before, 1 + changed, "{layout:?}, {counts:?}");
                stream.synchronize().unwrap();
                let before = total();
                let results = pending.try_read().unwrap().unwrap();
                assert_eq!(ids.wrong(results, seed as u64), None);
                drop(pending);
                assert_eq!(total() - before, 0, "{layout:?}, {counts:?}");
            }
            assert_eq!(outputs.graphs_made().by_steps, 0);
        });
    }
}

fn a_result_that_is_held_is_not_overwritten(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (outputs, words) = small(&context, 2);
    let address = outputs.static_buffers().device_ptr(words, 8).unwrap();
    let fetch = |value| {
        model(&stream, address, value, 8);
        outputs.fetch(3, 1, &stream)
    };
    let held = fetch(1).unwrap();
    let first = held.wait(LONG).unwrap().read(words).unwrap();
    // The ring goes round in what is left of it.
    for value in 2..8 {
        let next = fetch(value).unwrap();
        assert_eq!(next.wait(LONG).unwrap().read(words).unwrap(), [value; 3]);
        assert_ne!(next.ring_slot(), held.ring_slot());
        assert_eq!(first, [1; 3]);
    }
    let last = fetch(8).unwrap();
    assert_eq!(outputs.try_begin(3, 1).unwrap_err(), StageError::WouldBlock);
    let error = fetch(9).unwrap_err();
    assert!(matches!(error, StageError::Stalled(stall) if stall.cause == StallCause::Held));
    assert!(error.to_string().contains("drop a `Pending`"), "{error}");
    stream.synchronize().unwrap();
    assert_eq!((first, last.wait(LONG).unwrap().read(words).unwrap()), (&[1; 3][..], &[8; 3][..]));
    drop(held);
    assert_eq!(fetch(10).unwrap().wait(LONG).unwrap().read(words).unwrap(), [10; 3]);
}

/// What the stream was given behind a fetch does not run, and the results are there.
fn a_wait_is_for_its_own_step_alone(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (outputs, words) = small(&context, 2);
    let address = outputs.static_buffers().device_ptr(words, 8).unwrap();
    model(&stream, address, 1, 8);
    let first = outputs.fetch(4, 1, &stream).unwrap();
    let gate = Gate::close(&stream);
    model(&stream, address, 2, 8);
    let second = outputs.fetch(4, 1, &stream).unwrap();
    assert_eq!(first.wait(LONG).unwrap().read(words).unwrap(), [1; 4]);
    assert!(second.try_read().unwrap().is_none() && !second.is_complete().unwrap());
    let error = second.wait(SHORT).unwrap_err();
    assert!(matches!(error, StageError::Stalled(stall) if stall.cause == StallCause::Copy));
    gate.open();
    assert_eq!(second.wait(LONG).unwrap().read(words).unwrap(), [2; 4]);
}

/// Its ring slot is not handed out before the device has written it.
fn a_result_that_is_given_up_in_flight_comes_to_no_other(driver: &Driver) {
    let context = context(driver);
    let (stream, other) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let (outputs, words) = small(&context, 1);
    let address = outputs.static_buffers().device_ptr(words, 8).unwrap();
    for value in 0..3 {
        model(&stream, address, value, 8);
        stream.synchronize().unwrap();
        let gate = Gate::close(&stream);
        drop(outputs.fetch(4, 1, &stream).unwrap());
        assert_eq!(outputs.try_begin(4, 1).unwrap_err(), StageError::WouldBlock);
        let error = outputs.begin(4, 1).unwrap_err();
        assert!(matches!(error, StageError::Stalled(stall) if stall.cause == StallCause::Copy));
        gate.open();
        stream.synchronize().unwrap();
        model(&other, address, value + 10, 8);
        let pending = outputs.fetch(4, 1, &other).unwrap();
        assert_eq!(pending.wait(LONG).unwrap().read(words).unwrap(), [value + 10; 4]);
    }
    // A fetch that is dropped has not happened.
    drop(outputs.begin(4, 1).unwrap());
    assert_eq!(outputs.try_begin(4, 1).unwrap().padded(), Counts { tokens: 4, requests: 4 });
}

/// A copy stream of its own: the next step of the model waits for it on the device.
fn a_writer_waits_for_the_copy(driver: &Driver) {
    let context = context(driver);
    let (copies, writer) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let (outputs, words) = small(&context, 2);
    let address = outputs.static_buffers().device_ptr(words, 8).unwrap();
    let written = Event::new(&context, EventKind::Ordering).unwrap();
    let mut last = None;
    for value in 0..6 {
        model(&writer, address, value, 8);
        writer.record(&written).unwrap();
        copies.wait_event(&written).unwrap();
        let gate = Gate::close(&copies);
        let pending = outputs.fetch(8, 1, &copies).unwrap();
        pending.source_free_on(&writer).unwrap();
        // Nothing is left to wait for on the stream of the fetch itself.
        pending.source_free_on(&copies).unwrap();
        gate.open();
        if let Some((before, value)) = last.replace((pending, value)) {
            let before: Pending = before;
            assert_eq!(before.wait(LONG).unwrap().read(words).unwrap(), [value; 8]);
        }
    }
    writer.synchronize().unwrap();
}

fn results_outlive_the_set(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let before = Inventory::now();
    let (outputs, words) = small(&context, 2);
    let address = outputs.static_buffers().device_ptr(words, 8).unwrap();
    model(&stream, address, 5, 8);
    let (first, second) =
        (outputs.fetch(8, 1, &stream).unwrap(), outputs.fetch(12, 1, &stream).unwrap());
    let gate = Gate::close(&stream);
    drop(outputs);
    assert_eq!(first.wait(LONG).unwrap().read(words).unwrap(), [5; 8]);
    assert_eq!(second.wait(LONG).unwrap().read(words).unwrap()[..8], [5; 8]);
    // The driver takes the memory back when the device is done.
    gate.open();
    drop((first, second));
    stream.synchronize().unwrap();
    before.restored(driver);
}

pub(crate) fn device_pool(context: &Context) -> Pool {
    Pool::builder().build(DeviceMemoryResource::new(context, 64 << 20).unwrap()).unwrap()
}

/// The set's own memory, the engine's by address, by buffer, and the set's again.
#[expect(unsafe_code, reason = "names device memory by raw address")]
fn results_come_from_where_the_step_says(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let pool = device_pool(&context);
    let elsewhere: [Buffer<u32>; 2] = [16, 16].map(|len| pool.alloc(len, &stream).unwrap());
    let set = OutputBuffers::builder(&context).slot::<u32>("own", Len::Tokens);
    let set = set.slot::<u32>("engine's", Len::Tokens).buckets([4, 8]).max_tokens(16);
    // SAFETY: the buffer lives longer than the set, and holds the largest step.
    let set = unsafe { set.source(elsewhere[0].info().address) };
    let outputs = set.ring_depth(1).build().unwrap();
    let [own, engines] = ["own", "engine's"].map(|name| outputs.slot_id::<u32>(name).unwrap());
    let buffers = outputs.static_buffers();
    assert_eq!(buffers.device_ptr(engines, 8), Some(elsewhere[0].info().address));
    model(&stream, buffers.device_ptr(own, 8).unwrap(), 1, 16);
    for (buffer, value) in elsewhere.iter().zip([2, 3]) {
        model(&stream, buffer.info().address, value, 16);
    }
    let look = |pending: Pending| {
        let results = pending.wait(LONG).unwrap();
        (results.read(own).unwrap()[0], *results.read(engines).unwrap().last().unwrap())
    };
    for tokens in [3, 8, 12, 3] {
        for _ in 0..2 {
            assert_eq!(look(outputs.fetch(tokens, 1, &stream).unwrap()), (1, 2));
            let mut fetch = outputs.begin(tokens, 1).unwrap();
            fetch.source_buffer(engines, &elsewhere[1]).unwrap();
            // SAFETY: the buffer lives longer than the fetch, and holds the largest step.
            unsafe { fetch.source(own, elsewhere[0].info().address) }.unwrap();
            assert_eq!(look(fetch.submit(&stream).unwrap()), (2, 3));
        }
    }
}

/// Its memory goes to no other before it is copied.
fn a_buffer_that_was_dropped_is_fetched_first(driver: &Driver) {
    let context = context(driver);
    let (stream, other) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let (pool, (outputs, words)) = (device_pool(&context), small(&context, 1));
    let written = Event::new(&context, EventKind::Ordering).unwrap();
    for value in 0..4 {
        let buffer: Buffer<u32> = pool.alloc(8, &other).unwrap();
        buffer.acquire(&other).unwrap();
        model(&other, buffer.info().address, value, 8);
        buffer.record_use(&other).unwrap();
        other.record(&written).unwrap();
        stream.wait_event(&written).unwrap();
        let mut fetch = outputs.begin(8, 1).unwrap();
        fetch.source_buffer(words, &buffer).unwrap();
        drop(buffer);
        let gate = Gate::close(&stream);
        let pending = fetch.submit(&stream).unwrap();
        let next: Buffer<u32> = pool.alloc(8, &other).unwrap();
        next.acquire(&other).unwrap();
        model(&other, next.info().address, 99, 8);
        next.record_use(&other).unwrap();
        gate.open();
        assert_eq!(pending.wait(LONG).unwrap().read(words).unwrap(), [value; 8]);
    }
}

/// Inputs, a model that hands them on, and results: one launch. Two steps are in flight.
#[expect(unsafe_code, reason = "copies device memory by raw address; launches as it promises to")]
fn results_are_a_part_of_the_engines_graph(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let before = Inventory::now();
    let inputs = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens).buckets([4, 8]);
    let inputs = inputs.build().unwrap();
    let (outputs, words) = small(&context, 2);
    let (ids, staging) = (inputs.slot_id::<u32>("ids").unwrap(), inputs.embed(8).unwrap());
    let (from, to) = (
        inputs.static_buffers().device_ptr(ids, 8).unwrap(),
        outputs.static_buffers().device_ptr(words, 8).unwrap(),
    );
    let fetching = outputs.embed(8).unwrap();
    let engine = |ring_slot| {
        let mut graph = GraphDefinition::new(&context).unwrap();
        let staged = staging.as_child_of(&mut graph, &[]).unwrap();
        let copy = Copy1d::dtod(to, from, 32);
        // SAFETY: memory of sets that the graph keeps alive by their parts.
        let model = unsafe { graph.memcpy(copy, &[staged.into()]) }.unwrap();
        // SAFETY: launched for fetches of this ring slot alone.
        unsafe { fetching.as_child_of(ring_slot, &mut graph, &[model.into()]) }.unwrap();
        graph.instantiate().unwrap()
    };
    let mut engines: Vec<_> = (0..fetching.ring_depth()).map(engine).collect();
    let mut last = None;
    for value in 0..6 {
        let mut step = staging.begin(5, 1).unwrap();
        step.write(ids).fill(value);
        let mut pending = None;
        let launch = || {
            let fetch = fetching.begin(5, 1)?;
            let engine = &mut engines[fetch.ring_slot()];
            let launch = || Ok::<_, StageError>(engine.launch(&stream)?);
            pending = Some(fetch.submit_with(&stream, launch)?);
            Ok::<_, StageError>(())
        };
        step.submit_with(&stream, launch).unwrap();
        if let Some((before, value)) = last.replace((pending.unwrap(), value)) {
            let before: Pending = before;
            assert_eq!(before.wait(LONG).unwrap().read(words).unwrap(), [value; 5]);
        }
    }
    // A launch that fails leaves the ring slot free.
    drop(last);
    stream.synchronize().unwrap();
    for _ in 0..3 {
        let fetch = fetching.begin(5, 1).unwrap();
        let failed = fetch.submit_with::<StageError>(&stream, || Err(StageError::WouldBlock));
        assert_eq!(failed.unwrap_err(), StageError::WouldBlock);
    }
    let mut fetch = fetching.begin(5, 1).unwrap();
    // SAFETY: nothing is copied from there.
    unsafe { fetch.source(words, to) }.unwrap();
    let refused = fetch.submit_with::<StageError>(&stream, || panic!("launched")).unwrap_err();
    assert!(matches!(refused, StageError::Slot { fault: SlotFault::Embedded, .. }));
    assert!(matches!(fetching.begin(9, 1), Err(StageError::TooLarge { max: 8, .. })));
    drop((engines, fetching, staging, outputs, inputs));
    before.restored(driver);
}

fn threads_share_a_set(driver: &Driver) {
    let context = context(driver);
    let set = OutputBuffers::builder(&context).slot::<u32>("words", Len::Tokens).buckets([8]);
    let outputs = set.ring_depth(2).deadline(LONG).build().unwrap();
    let words = outputs.slot_id::<u32>("words").unwrap();
    let (bind, pool) = (binder(), device_pool(&context));
    thread::scope(|scope| {
        for thread in 0..3_u32 {
            let (bind, context, outputs, pool) = (bind.clone(), &context, &outputs, &pool);
            scope.spawn(move || {
                let _bound = bind();
                let stream = Stream::new(context).unwrap();
                let source: Buffer<u32> = pool.alloc(8, &stream).unwrap();
                for value in (0..40).map(|step| step * 3 + thread) {
                    model(&stream, source.info().address, value, 8);
                    let mut fetch = outputs.begin(8, 1).unwrap();
                    fetch.source_buffer(words, &source).unwrap();
                    let pending = fetch.submit(&stream).unwrap();
                    if value % 4 != 0 {
                        assert_eq!(pending.wait(LONG).unwrap().read(words).unwrap(), [value; 8]);
                    }
                }
                stream.synchronize().unwrap();
            });
        }
    });
}
