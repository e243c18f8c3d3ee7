#![expect(unsafe_code, reason = "reads device memory by raw address")]
//! Several streams, several threads, readers in place, and graphs that outlive the set.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use wharf::staging::{
    BuildError, Counts, Forgotten, InputBuffers, Layout, Len, Pad, SlotFault, StageError,
};
use wharf::{Driver, Stream};

use crate::backend::{binder, on_each_driver, on_softcuda};
use crate::graph_rig::{Cells, Gate, Owner};
use crate::staging_rig::{Checker, Ids, Noise, builder, context, words};

on_each_driver!(
    a_forgotten_slot_follows_its_policy,
    graphs_are_bounded,
    references_are_kept_until_the_slot_is_used_again,
    a_reader_in_place_holds_the_ring_slot,
    presets_have_their_slots,
    threads_share_a_set,
);

/// A copy stream and a consumer: the next copy waits for the reader of the one before, on the
/// device.
#[test]
fn a_copy_stream_waits_for_the_reader() {
    on_softcuda(|driver| {
        let context = context(driver);
        let inputs = builder(&context).ring_depth(3).build().unwrap();
        let (ids, checker) = (Ids::of(&inputs), Checker::default());
        let (copies, consumer) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
        let mut noise = Noise(5);
        for number in 0..12 {
            let mut step = inputs.begin(1 + noise.below(600), 1).unwrap();
            ids.fill(&mut step, number);
            let staged = step.submit(&copies).unwrap();
            staged.wait_on(&consumer).unwrap();
            // The reader is late.
            let gate = Gate::close(&consumer);
            checker.compare(
                &consumer,
                ids.expected(&staged, number),
                usize::try_from(number).unwrap(),
            );
            staged.consumed_by(&consumer).unwrap();
            let opener = thread::spawn(move || gate.open());
            opener.join().unwrap();
        }
        copies.synchronize().unwrap();
        consumer.synchronize().unwrap();
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}

/// While the reader is held up, no later copy arrives.
#[test]
fn a_held_reader_holds_the_next_copy() {
    on_softcuda(|driver| {
        let context = context(driver);
        let inputs = builder(&context).ring_depth(3).build().unwrap();
        let (ids, checker) = (Ids::of(&inputs), Checker::default());
        let (copies, consumer) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
        let submit = |number| {
            let mut step = inputs.begin(40, 4).unwrap();
            ids.fill(&mut step, number);
            step.submit(&copies).unwrap()
        };
        let first = submit(1);
        first.wait_on(&consumer).unwrap();
        let gate = Gate::close(&consumer);
        checker.compare(&consumer, ids.expected(&first, 1), 1);
        first.consumed_by(&consumer).unwrap();
        let second = submit(2);
        for _ in 0..50 {
            assert!(!second.is_complete().unwrap());
            thread::yield_now();
        }
        gate.open();
        copies.synchronize().unwrap();
        consumer.synchronize().unwrap();
        assert!(second.is_complete().unwrap());
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}

/// A step on another stream is behind the copy of the step before.
#[test]
fn steps_on_other_streams_are_ordered() {
    on_softcuda(|driver| {
        let context = context(driver);
        let inputs = builder(&context).build().unwrap();
        let (ids, checker) = (Ids::of(&inputs), Checker::default());
        let streams = [(); 3].map(|()| Stream::new(&context).unwrap());
        let gate = Gate::close(&streams[0]);
        for (number, stream) in streams.iter().enumerate() {
            let mut step = inputs.begin(9, 2).unwrap();
            ids.fill(&mut step, number as u64);
            let staged = step.submit(stream).unwrap();
            if number == 2 {
                checker.compare(stream, ids.expected(&staged, 2), 2);
            }
        }
        gate.open();
        context.synchronize().unwrap();
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}

pub(crate) fn small(context: &wharf::Context) -> wharf::staging::InputBuffersBuilder {
    InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4, 8]).max_tokens(16)
}

fn a_forgotten_slot_follows_its_policy(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for policy in [Forgotten::Keep, Forgotten::Pad, Forgotten::Error] {
        for tokens in [3, 12] {
            let set = small(&context).slot_padded::<u32>("other", Len::Tokens, Pad::Value(9));
            let inputs = set.when_forgotten(policy).build().unwrap();
            let (ids, other) =
                (inputs.slot_id::<u32>("ids").unwrap(), inputs.slot_id::<u32>("other").unwrap());
            let stage = |with_other: Option<u32>| {
                let mut step = inputs.begin(tokens, 1).unwrap();
                step.write(ids).fill(1);
                if let Some(value) = with_other {
                    step.write(other).fill(value);
                }
                step.submit(&stream)
            };
            let first = stage(Some(5)).unwrap();
            match (policy, stage(None)) {
                (Forgotten::Error, refused) => {
                    let fault = SlotFault::Forgotten;
                    assert_eq!(
                        refused.unwrap_err(),
                        StageError::Slot { slot: "other".into(), fault }
                    );
                }
                (_, staged) => {
                    staged.unwrap();
                    let kept = if policy == Forgotten::Keep { 5 } else { 9 };
                    assert_eq!(words(&stream, first.device_ptr(other)), [kept; 3]);
                }
            }
            // Written again, it is copied again.
            for _ in 0..4 {
                stage(Some(6)).unwrap();
            }
            assert_eq!(words(&stream, first.device_ptr(other)), [6; 3]);
        }
    }
}

fn graphs_are_bounded(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for (count, bytes, kept) in [(3, usize::MAX, 3), (usize::MAX, 15 << 10, 1), (0, usize::MAX, 0)]
    {
        let set = builder(&context).ring_depth(2);
        let inputs = set.max_graphs(count).max_graph_bytes(bytes).build().unwrap();
        let (ids, checker) = (Ids::of(&inputs), Checker::default());
        for number in 0..20 {
            let mut step = inputs.begin(1 + 24 * number, 1).unwrap();
            ids.fill(&mut step, number as u64);
            let staged = step.submit(&stream).unwrap();
            checker.compare(&stream, ids.expected(&staged, number as u64), number);
            assert!(inputs.graphs().count <= count && inputs.graphs().bytes <= bytes);
        }
        stream.synchronize().unwrap();
        assert_eq!((inputs.graphs().count, checker.wrong()), (kept, Vec::new()));
    }
    let inputs = builder(&context).ring_depth(2).build().unwrap();
    assert_eq!((inputs.prewarm(100).unwrap(), inputs.prewarm(2048).unwrap()), (2, 0));
    assert_eq!(inputs.graphs().count, 2);
    // Ring slots that steps have used are as good when the device has read them.
    let (ids, streams) = (Ids::of(&inputs), [(); 2].map(|()| Stream::new(&context).unwrap()));
    let steps = [100, 100].map(|tokens| {
        let mut step = inputs.begin(tokens, 1).unwrap();
        ids.fill(&mut step, 1);
        step
    });
    for (step, stream) in steps.into_iter().zip(&streams) {
        step.submit(stream).unwrap();
    }
    inputs.wait().unwrap();
    assert_eq!((inputs.prewarm(200).unwrap(), inputs.graphs().count), (2, 4));
}

fn references_are_kept_until_the_slot_is_used_again(driver: &Driver) {
    let cells = Cells::new(driver);
    let inputs = small(&cells.context).ring_depth(1).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let from = |len| std::ptr::slice_from_raw_parts(cells.host().cast::<u32>(), len);
    cells.set(0, 0x0000_0002_0000_0001);
    cells.set(1, 0x0000_0004_0000_0003);
    for tokens in [3, 12] {
        let (owner, dropped) = Owner::new();
        let mut step = inputs.begin(tokens, 1).unwrap();
        let padded = step.padded().tokens;
        // SAFETY: the cells are pinned, and outlive the step.
        let refused = unsafe { step.refer(ids, from(padded + 1), ()) };
        let fault = SlotFault::Length { wanted: padded, given: padded + 1 };
        assert_eq!(refused, Err(StageError::Slot { slot: "ids".into(), fault }));
        // SAFETY: as above.
        unsafe { step.refer(ids, from(padded), owner) }.unwrap();
        let staged = step.submit(&cells.stream).unwrap();
        assert_eq!(words(&cells.stream, staged.device_ptr(ids)), [1, 2, 3]);
        assert!(!dropped.is());
        for value in [7, 8] {
            let mut step = inputs.begin(tokens, 1).unwrap();
            assert!(dropped.is());
            step.write(ids).fill(value);
            let staged = step.submit(&cells.stream).unwrap();
            assert_eq!(words(&cells.stream, staged.device_ptr(ids)), [value; 3]);
        }
    }
    let packed = small(&cells.context).layout(Layout::Packed).build().unwrap();
    let ids = packed.slot_id::<u32>("ids").unwrap();
    let mut step = packed.begin(4, 1).unwrap();
    // SAFETY: as above.
    let refused = unsafe { step.refer(ids, from(4), ()) };
    assert_eq!(
        refused,
        Err(StageError::Slot { slot: "ids".into(), fault: SlotFault::NeedsPerSlot })
    );
}

fn a_reader_in_place_holds_the_ring_slot(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for layout in [Layout::PerSlot, Layout::Packed] {
        let set =
            small(&context).slot_zero_copy::<u32>("flags", Len::Requests.plus(2), Pad::Value(3));
        let inputs = set.layout(layout).ring_depth(2).build().unwrap();
        let (ids, flags) =
            (inputs.slot_id::<u32>("ids").unwrap(), inputs.slot_id::<u32>("flags").unwrap());
        let submit = |value| {
            let mut step = inputs.begin(3, 1)?;
            step.write(ids).fill(value);
            step.write(flags).fill(value);
            step.submit(&stream)
        };
        let (first, second) = (submit(1).unwrap(), submit(2).unwrap());
        assert_ne!(first.device_ptr(flags), second.device_ptr(flags));
        assert_eq!(words(&stream, first.device_ptr(flags)), [1, 1, 1, 3]);
        // What reads the flags on the step's stream comes before the next step there; of the last
        // step it was not said what reads it, and it may be yet to come.
        assert!(first.is_complete().unwrap() && !second.is_complete().unwrap());
        let third = submit(3).unwrap();
        assert_eq!(third.device_ptr(flags), first.device_ptr(flags));
        stream.synchronize().unwrap();
        assert!(second.is_complete().unwrap() && !third.is_complete().unwrap());
        third.consumed_by(&stream).unwrap();
        stream.synchronize().unwrap();
        assert!(third.is_complete().unwrap());
        // A set can be waited for, and dropped, with a last step of which nothing was said.
        submit(4).unwrap();
        stream.synchronize().unwrap();
        inputs.wait().unwrap();
    }
}

fn presets_have_their_slots(driver: &Driver) {
    let context = context(driver);
    let set = || InputBuffers::builder(&context).buckets([1, 2]);
    let inputs = set().minimal_slots().build().unwrap();
    assert!(
        inputs.slot_id::<i64>("input_ids").is_ok() && inputs.slot_id::<i64>("positions").is_ok()
    );
    let inputs = set().vllm_slots(8).build().unwrap();
    assert!(inputs.slot_id::<i32>("block_table").is_ok());
    assert_eq!(inputs.buckets().last(), Some(Counts { tokens: 2, requests: 2 }));
    assert!(set().sglang_slots().build().unwrap().slot_id::<i64>("out_cache_loc").is_ok());
    assert!(set().tensorrt_llm_slots(8).build().unwrap().slot_id::<i32>("sequence_length").is_ok());
    let twice = set().minimal_slots().minimal_slots().build();
    assert_eq!(twice.unwrap_err(), BuildError::DuplicateSlot("input_ids".into()));
}

/// Threads fill steps of one set at the same time and submit them to one stream.
fn threads_share_a_set(driver: &Driver) {
    let context = context(driver);
    let inputs = small(&context).ring_depth(2).build().unwrap();
    let (ids, stream, bind) =
        (inputs.slot_id::<u32>("ids").unwrap(), Stream::new(&context).unwrap(), binder());
    let submitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for value in 0..3 {
            let (inputs, stream, bind, submitted) = (&inputs, &stream, bind.clone(), &submitted);
            scope.spawn(move || {
                let _bound = bind();
                for _ in 0..10 {
                    let mut step = inputs.begin(3, 1).unwrap();
                    step.write(ids).fill(value);
                    step.submit(stream).unwrap();
                    submitted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(submitted.into_inner(), 30);
    let found = words::<4>(&stream, inputs.static_buffers().device_ptr(ids, 4).unwrap());
    assert!(found[0] < 3 && found == [found[0], found[0], found[0], 0]);
}
