//! What a step, a set or a graph cannot have: said by an error, and with nothing lost.

use wharf::graph::{CaptureMode, CaptureScope, Copy1d, GraphDefinition};
use wharf::staging::{
    BuildError, InputBuffers, Layout, Len, OutputBuffers, Pad, SlotFault, StageError, Submission,
};
use wharf::{Driver, Stream};

use crate::backend::on_each_driver;
use crate::deadline::LONG;
use crate::graph_rig::Inventory;
use crate::staging_rig::{context, words};

on_each_driver!(
    a_table_larger_than_the_machine_is_refused,
    a_set_without_buckets_says_what_to_call,
    a_rank_without_requests_has_nothing_of_a_count,
    a_step_inside_the_launch_of_patches_is_refused,
    results_are_embedded_in_a_capture,
    a_lost_fetch_of_an_embedded_ring_is_given_up,
);

/// The host keeps the contents of a table, too: that must not end the process.
fn a_table_larger_than_the_machine_is_refused(driver: &Driver) {
    let context = context(driver);
    let before = Inventory::now();
    // 1 TiB, of which a step changes 4 bytes.
    let set = InputBuffers::builder(&context)
        .slot::<u32>("ids", Len::Tokens)
        .persistent::<u32>("table", 1 << 20, 1 << 18, 1)
        .buckets([4]);
    assert!(matches!(set.build(), Err(BuildError::Driver(_))));
    // None at all is a table, too.
    let set = InputBuffers::builder(&context)
        .slot::<u32>("ids", Len::Tokens)
        .persistent::<u32>("table", 0, 0, 0)
        .buckets([4]);
    let inputs = set.build().unwrap();
    let (ids, table) = (inputs.slot_id::<u32>("ids").unwrap(), inputs.slot_id("table").unwrap());
    let stream = Stream::new(&context).unwrap();
    let mut step = inputs.begin(4, 1).unwrap();
    step.write(ids).fill(1);
    step.patch::<u32>(table, 0, 0, &[]).unwrap_err();
    step.submit(&stream).unwrap();
    drop((inputs, stream));
    before.restored(driver);
}

fn a_set_without_buckets_says_what_to_call(driver: &Driver) {
    let set = InputBuffers::builder(&context(driver)).slot::<u32>("ids", Len::Tokens);
    let refused = set.buckets([]).build().unwrap_err().to_string();
    assert!(refused.contains("`buckets`") && refused.contains("`max_tokens`"), "{refused}");
}

/// It begins a step of nothing, and need not set counts to say so.
fn a_rank_without_requests_has_nothing_of_a_count(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for layout in [Layout::PerSlot, Layout::Packed] {
        let inputs = InputBuffers::builder(&context)
            .count("logits", Len::Requests.times(2))
            .slot_padded::<u32>("ids", Len::Tokens, Pad::Value(7))
            .slot_padded::<u32>("indices", Len::count("logits"), Pad::Value(9))
            .slot_padded::<u32>("ends", Len::count("logits").plus(1), Pad::Value(5))
            .buckets([2, 4])
            .layout(layout)
            .build()
            .unwrap();
        let [ids, indices, ends] =
            ["ids", "indices", "ends"].map(|name| inputs.slot_id::<u32>(name).unwrap());
        let logits = inputs.count_id("logits").unwrap();
        for round in 0..8 {
            // Each ring slot is left with a full step's elements.
            let mut step = inputs.begin_padded(4, 4, 4).unwrap();
            step.set_count(logits, 8).unwrap();
            for slot in [ids, indices, ends] {
                step.write(slot).fill(round);
            }
            step.submit(&stream).unwrap();
            let mut step = inputs.begin_padded(0, 0, 4).unwrap();
            // This has an element besides those of the count.
            if round % 2 == 0 {
                let refused = step.submit(&stream).unwrap_err();
                let StageError::Slot { slot, fault } = refused else { panic!("{refused}") };
                assert_eq!((&*slot, fault), ("ends", SlotFault::Forgotten));
                continue;
            }
            step.set_count(logits, 0).unwrap();
            step.write(ends).copy_from_slice(&[3]);
            let staged = step.submit(&stream).unwrap();
            assert_eq!(words::<4>(&stream, staged.device_ptr(ids)), [7; 4]);
            assert_eq!(words::<8>(&stream, staged.device_ptr(indices)), [9; 8]);
            assert_eq!(words::<2>(&stream, staged.device_ptr(ends)), [3, 5]);
        }
        let plain = InputBuffers::builder(&context)
            .count("logits", Len::Requests.times(2))
            .slot_padded::<u32>("indices", Len::count("logits"), Pad::Value(9))
            .buckets([4])
            .layout(layout)
            .build()
            .unwrap();
        let indices = plain.slot_id::<u32>("indices").unwrap();
        for _ in 0..4 {
            let staged = plain.begin_padded(0, 0, 4).unwrap().submit(&stream).unwrap();
            assert_eq!(words::<8>(&stream, staged.device_ptr(indices)), [9; 8]);
            // A rank that has requests says how many there are.
            let refused = plain.begin_padded(1, 1, 4).unwrap().submit(&stream).unwrap_err();
            assert!(matches!(refused, StageError::Slot { fault: SlotFault::Forgotten, .. }));
        }
    }
}

/// It would wait for the step whose launch it is in, for ever.
#[expect(unsafe_code, reason = "gives up what was not launched")]
fn a_step_inside_the_launch_of_patches_is_refused(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for submission in [Submission::Graph, Submission::Calls] {
        let set = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens);
        let set = set.persistent::<u32>("table", 1, 4, 4).buckets([4]).submission(submission);
        let inputs = set.build().unwrap();
        let view = inputs.view(&["ids", "table"]).unwrap().buckets([2]).build().unwrap();
        let (ids, table) =
            (inputs.slot_id::<u32>("ids").unwrap(), inputs.slot_id("table").unwrap());
        let of_view = view.slot_id::<u32>("table").unwrap();
        let embedded = inputs.embed(4).unwrap();
        let mut engine = GraphDefinition::new(&context).unwrap();
        embedded.as_child_of(&mut engine, &[]).unwrap();
        let mut engine = engine.instantiate().unwrap();
        for value in 1..4 {
            let mut step = embedded.begin(4, 1).unwrap();
            step.write(ids).fill(value);
            step.patch(table, 0, 0, &[value]).unwrap();
            let launch = || {
                let mut inner = inputs.begin(4, 1)?;
                inner.write(ids).fill(99);
                inner.patch(table, 0, 0, &[99])?;
                assert_eq!(inner.submit(&stream).unwrap_err(), StageError::InLaunch);
                let mut inner = view.begin(2, 1)?;
                inner.write(view.slot_id::<u32>("ids").unwrap()).fill(99);
                inner.patch(of_view, 0, 1, &[99])?;
                assert_eq!(inner.submit(&stream).unwrap_err(), StageError::InLaunch);
                Ok::<_, StageError>(engine.launch(&stream)?)
            };
            let staged = step.submit_with(&stream, launch).unwrap();
            assert_eq!(words::<4>(&stream, staged.device_ptr(ids)), [value; 4]);
            assert_eq!(words::<4>(&stream, staged.device_ptr(table)), [value, 0, 0, 0]);
        }
        // Nothing is held when a launch has failed.
        let mut step = embedded.begin(4, 1).unwrap();
        step.write(ids).fill(5);
        step.patch(table, 0, 0, &[5]).unwrap();
        let launch = || {
            // SAFETY: no launch is pending.
            unsafe { embedded.release_lost() }.unwrap();
            Err(StageError::WouldBlock)
        };
        step.submit_with::<StageError>(&stream, launch).unwrap_err();
        let mut step = inputs.begin(4, 1).unwrap();
        step.write(ids).fill(6);
        step.patch(table, 0, 3, &[6]).unwrap();
        let staged = step.submit(&stream).unwrap();
        assert_eq!(words::<4>(&stream, staged.device_ptr(table)), [3, 0, 0, 6]);
    }
    driver.wait_deferred(LONG).unwrap();
}

/// An engine that captures its model captures the results behind it.
#[expect(unsafe_code, reason = "copies device memory by raw address; launches as it promises to")]
fn results_are_embedded_in_a_capture(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let before = Inventory::now();
    let inputs = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens).buckets([4]);
    let inputs = inputs.build().unwrap();
    let outputs = OutputBuffers::builder(&context).slot::<u32>("sampled", Len::Tokens).buckets([4]);
    let outputs = outputs.ring_depth(2).build().unwrap();
    let (ids, sampled) =
        (inputs.slot_id::<u32>("ids").unwrap(), outputs.slot_id::<u32>("sampled").unwrap());
    let (staging, results) = (inputs.embed(4).unwrap(), outputs.embed(4).unwrap());
    let (from, to) = (
        inputs.static_buffers().device_ptr(ids, 4).unwrap(),
        outputs.static_buffers().device_ptr(sampled, 4).unwrap(),
    );
    let engine = |ring_slot| {
        let capture = CaptureScope::begin(&stream, CaptureMode::default()).unwrap();
        staging.append_to_capture(&stream).unwrap();
        let mut model = GraphDefinition::new(&context).unwrap();
        // SAFETY: memory of sets that the graph keeps alive by their parts.
        unsafe { model.memcpy(Copy1d::dtod(to, from, 16), &[]) }.unwrap();
        model.append_to_capture(&stream).unwrap();
        // SAFETY: launched for fetches of this ring slot alone.
        unsafe { results.append_to_capture(ring_slot, &stream) }.unwrap();
        capture.end().unwrap().instantiate().unwrap()
    };
    let mut engines: Vec<_> = (0..results.ring_depth()).map(engine).collect();
    let missing = StageError::RingSlot { given: 2, depth: 2 };
    let mut graph = GraphDefinition::new(&context).unwrap();
    // SAFETY: nothing is added.
    let added = unsafe { results.as_child_of(2, &mut graph, &[]) };
    assert_eq!(added.unwrap_err(), missing);
    // SAFETY: as above.
    let added = unsafe { results.append_to_capture(2, &stream) };
    assert_eq!(added.unwrap_err(), missing);
    // SAFETY: as above.
    unsafe { results.append_to_capture(0, &stream) }.unwrap_err(); // nothing is captured
    let mut last = None;
    for value in 0..5_u32 {
        let mut step = staging.begin(3, 1).unwrap();
        step.write(ids).fill(value);
        let fetch = results.begin(3, 1).unwrap();
        let engine = &mut engines[fetch.ring_slot()];
        let mut pending = None;
        let launch = || {
            let launch = || Ok::<_, StageError>(engine.launch(&stream)?);
            pending = Some(fetch.submit_with(&stream, launch)?);
            Ok::<_, StageError>(())
        };
        step.submit_with(&stream, launch).unwrap();
        if let Some((before, value)) = last.replace((pending.unwrap(), value)) {
            assert_eq!(before.wait(LONG).unwrap().read(sampled).unwrap(), [value; 3]);
        }
    }
    drop((last, engines, graph, staging, results, inputs, outputs));
    before.restored(driver);
}

/// A launch that was said to be made and was not.
#[expect(unsafe_code, reason = "gives up what was not launched")]
fn a_lost_fetch_of_an_embedded_ring_is_given_up(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let outputs = OutputBuffers::builder(&context).slot::<u32>("sampled", Len::Tokens).buckets([4]);
    let outputs = outputs.ring_depth(2).build().unwrap();
    let results = outputs.embed(4).unwrap();
    let nothing = || Ok::<_, StageError>(());
    let lose = || results.begin(4, 1).unwrap().submit_with(&stream, nothing).unwrap();
    let held = [lose(), lose()];
    // An event that was not recorded is complete.
    if held[0].is_complete().unwrap() {
        drop((held, results, outputs));
        return driver.wait_deferred(LONG).unwrap();
    }
    assert_eq!(results.try_begin(4, 1).unwrap_err(), StageError::WouldBlock);
    // Results that may still be looked for stay as they are.
    // SAFETY: no launch was made.
    unsafe { results.release_lost() }.unwrap();
    assert!(held.iter().all(|pending| !pending.is_complete().unwrap()));
    assert_eq!(results.try_begin(4, 1).unwrap_err(), StageError::WouldBlock);
    drop(held);
    // SAFETY: as above.
    unsafe { results.release_lost() }.unwrap();
    let both = [results.try_begin(4, 1), results.try_begin(4, 1)];
    assert!(both.iter().all(Result::is_ok));
    drop((both, results, outputs));
    driver.wait_deferred(LONG).unwrap();
}
