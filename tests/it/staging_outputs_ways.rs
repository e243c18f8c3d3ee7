#![expect(unsafe_code, reason = "writes device memory by raw address")]
//! Fetches by calls of the stream, and counts of results by name.

use std::sync::Arc;
use std::thread;

use wharf::staging::{
    CountFault, Counts, InputBuffers, Instantiation, Layout, Len, OutputBuffers, SlotError,
    StageError, Submission,
};
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine, on_softcuda};
use crate::deadline::LONG;
use crate::graph_rig::Gate;
use crate::outputs_rig::{OutputIds, outputs};
use crate::staging_outputs::LAYOUTS;
use crate::staging_rig::{Noise, context};

on_each_driver!(
    a_writer_waits_for_the_calls_of_a_fetch,
    a_set_in_flight_is_dropped_behind_its_fetches,
    a_count_by_name_says_how_many_results_there_are,
    counts_of_results_are_checked,
);

/// Of all sizes, under every schedule, in both layouts.
#[test]
fn every_result_arrives_by_calls() {
    on_softcuda(|driver| {
        for (layout, depth) in
            LAYOUTS.into_iter().flat_map(|layout| (1..=3).map(move |depth| (layout, depth)))
        {
            let context = context(driver);
            let set = outputs(&context).layout(layout).ring_depth(depth);
            let outputs = set.submission(Submission::Calls).build().unwrap();
            assert_eq!(outputs.submission().by, Submission::Calls);
            let (ids, stream) = (OutputIds::of(&outputs), Stream::new(&context).unwrap());
            let (mut noise, mut last) = (Noise(3), None);
            for seed in 0..24 {
                let tokens = 1 + noise.below(500);
                let counts = Counts { tokens, requests: 1 + noise.below(tokens.min(200)) };
                ids.compute(&stream, counts, seed);
                if depth == 1 {
                    drop(last.take());
                }
                let pending = outputs.fetch(counts.tokens, counts.requests, &stream).unwrap();
                ids.check(&pending, seed);
                last = Some(pending);
            }
            stream.synchronize().unwrap();
            assert_eq!(outputs.graphs().count, 0);
        }
    });
}

/// The packed copy and the word.
#[test]
fn a_packed_fetch_is_two_calls() {
    for (layout, wanted) in [(Layout::Packed, 2), (Layout::PerSlot, 6)] {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let _current = context.enter().unwrap();
            let set = outputs(&context).layout(layout).instantiation(Instantiation::Eager);
            let outputs = set.submission(Submission::Calls).build().unwrap();
            let (ids, stream) = (OutputIds::of(&outputs), Stream::new(&context).unwrap());
            let total = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
            for seed in 0..20 {
                ids.compute(&stream, Counts { tokens: 5, requests: 3 }, seed);
                let before = total();
                let pending = outputs.fetch(5, 3, &stream).unwrap();
                assert_eq!(total() - before, wanted, "{layout:?}");
                ids.check(&pending, seed);
            }
            assert_eq!(machine.calls("cuGraphInstantiateWithFlags"), 0);
        });
    }
}

fn by_calls(context: &Context) -> OutputBuffers {
    let set = OutputBuffers::builder(context).slot::<u32>("sampled", Len::Tokens).buckets([4, 8]);
    set.submission(Submission::Calls).build().unwrap()
}

/// No event ends the copies: the writer waits for the end of their stream.
fn a_writer_waits_for_the_calls_of_a_fetch(driver: &Driver) {
    let context = context(driver);
    let [copies, writer] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let outputs = by_calls(&context);
    let sampled = outputs.slot_id::<u32>("sampled").unwrap();
    let address = outputs.static_buffers().device_ptr(sampled, 8).unwrap();
    for value in 1..6 {
        // SAFETY: the slot's own memory, of at least 8 elements.
        unsafe { writer.fill_d32(address, value, 8) }.unwrap();
        writer.synchronize().unwrap();
        let gate = Gate::close(&copies);
        let pending = outputs.fetch(8, 1, &copies).unwrap();
        pending.source_free_on(&writer).unwrap();
        // SAFETY: as above; the writer waits for the copy.
        unsafe { writer.fill_d32(address, 0, 8) }.unwrap();
        gate.open();
        assert_eq!(pending.wait(LONG).unwrap().read(sampled).unwrap(), [value; 8]);
    }
    writer.synchronize().unwrap();
}

fn a_set_in_flight_is_dropped_behind_its_fetches(driver: &Driver) {
    let context = context(driver);
    let [first, second] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let outputs = by_calls(&context);
    let gate = Gate::close(&first);
    for stream in [&first, &second] {
        drop(outputs.fetch(8, 1, stream).unwrap());
    }
    let opens = thread::spawn(move || gate.open());
    drop(outputs);
    opens.join().unwrap();
    // Had the drop not waited, the copies would have no destination.
    first.synchronize().unwrap();
    second.synchronize().unwrap();
    assert_eq!(context.drop_errors(), 0);
}

fn accepted(context: &Context) -> OutputBuffers {
    OutputBuffers::builder(context)
        .count("accepted", Len::Requests.times(4))
        .slot::<u32>("tokens", Len::count("accepted"))
        .slot::<u32>("lens", Len::Requests)
        .buckets([4, 8])
        .build()
        .unwrap()
}

/// So many are copied as there may be; a fetch that knows better has so many to read.
fn a_count_by_name_says_how_many_results_there_are(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let outputs = accepted(&context);
    let (tokens, lens) = (outputs.slot_id::<u32>("tokens").unwrap(), outputs.slot_id("lens"));
    let (lens, count) = (lens.unwrap(), outputs.count_id("accepted").unwrap());
    let address = outputs.static_buffers().device_ptr(tokens, 4).unwrap();
    // SAFETY: the slot's own memory, of 32 elements in the largest step.
    unsafe { stream.fill_d32(address, 9, 16) }.unwrap();
    for number in [None, Some(0), Some(3), Some(8), None] {
        let mut fetch = outputs.begin(4, 2).unwrap();
        if let Some(number) = number {
            fetch.set_count(count, number).unwrap();
        }
        let pending = fetch.submit(&stream).unwrap();
        let results = pending.wait(LONG).unwrap();
        assert_eq!(results.read(tokens).unwrap(), vec![9; number.unwrap_or(8)]);
        assert_eq!(results.read::<u32>(lens).unwrap().len(), 2);
    }
}

fn counts_of_results_are_checked(driver: &Driver) {
    let context = context(driver);
    let outputs = accepted(&context);
    assert_eq!(outputs.count_id("logits").unwrap_err(), SlotError::UnknownCount("logits".into()));
    let count = outputs.count_id("accepted").unwrap();
    let others = InputBuffers::builder(&context)
        .count("accepted", Len::Requests)
        .slot::<u32>("tokens", Len::count("accepted"))
        .buckets([4]);
    let foreign = others.build().unwrap().count_id("accepted").unwrap();
    let mut fetch = outputs.begin(4, 2).unwrap();
    let fault = |error| match error {
        StageError::Count { fault, .. } => fault,
        other => panic!("{other}"),
    };
    let most = fetch.padded().requests * 4;
    let too_many = fault(fetch.set_count(count, most + 1).unwrap_err());
    assert_eq!(too_many, CountFault::TooLarge { wanted: most + 1, max: most });
    assert_eq!(fault(fetch.set_count(foreign, 1).unwrap_err()), CountFault::Foreign);
    fetch.set_count(count, most).unwrap();
}
