//! Staging: what arrives, at what cost, and what is refused.

use std::sync::Arc;

use wharf::staging::{
    BuildError, Count, Counts, Forgotten, InputBuffers, Instantiation, Layout, Len, ReleaseError,
    SlotError, SlotFault, StageError,
};
use wharf::{Driver, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine, on_softcuda};
use crate::deadline::SHORT;
use crate::graph_rig::Gate;
use crate::staging_rig::{Checker, Ids, MAX_REQUESTS, MAX_TOKENS, Noise, builder, context};

on_each_driver!(
    addresses_stay,
    a_step_that_is_dropped_has_not_happened,
    a_ring_that_is_full_would_block,
    what_a_set_cannot_be_is_refused,
    slots_are_checked,
    slots_that_are_not_copied_may_be_kept_in_a_packed_layout,
    steps_are_checked,
    sizes_are_checked,
);

const LAYOUTS: [Layout; 2] = [Layout::PerSlot, Layout::Packed];

/// Steps of all sizes: most in a bucket, some above the largest.
fn steps(count: usize, seed: u64) -> impl Iterator<Item = (usize, usize)> {
    let mut noise = Noise(seed);
    (0..count).map(move |_| {
        let tokens = match noise.below(8) {
            0 => 1 + noise.below(MAX_TOKENS),
            1 => 1 + noise.below(512),
            _ => 1 + noise.below(64),
        };
        (tokens, 1 + noise.below(tokens.min(MAX_REQUESTS)))
    })
}

/// Every byte of every step arrives, under every schedule, in both layouts, in rings of 1 to 4.
#[test]
fn every_byte_arrives() {
    on_softcuda(|driver| {
        for (layout, depth) in
            LAYOUTS.into_iter().flat_map(|layout| (1..=4).map(move |depth| (layout, depth)))
        {
            let context = context(driver);
            let inputs = builder(&context).layout(layout).ring_depth(depth).build().unwrap();
            let (ids, checker) = (Ids::of(&inputs), Checker::default());
            let stream = Stream::new(&context).unwrap();
            for (number, (tokens, requests)) in steps(24, 7).enumerate() {
                let mut step = inputs.begin(tokens, requests).unwrap();
                ids.fill(&mut step, number as u64);
                let staged = step.submit(&stream).unwrap();
                checker.compare(&stream, ids.expected(&staged, number as u64), number);
            }
            stream.synchronize().unwrap();
            assert_eq!(checker.wrong(), Vec::<String>::new(), "{layout:?}, {depth}");
        }
    });
}

/// In steady state a step is one call of the driver.
#[test]
fn a_step_is_one_driver_call() {
    for layout in LAYOUTS {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let _current = context.enter().unwrap();
            let set = builder(&context)
                .layout(layout)
                .instantiation(Instantiation::Eager)
                .max_graphs(10_000);
            let inputs = set.build().unwrap();
            let (ids, stream) = (Ids::of(&inputs), Stream::new(&context).unwrap());
            let total = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
            let before = total();
            let launches = machine.calls("cuGraphLaunch");
            // A packed set has one graph a ring slot, which is told another bucket.
            let changes = || machine.calls("cuGraphExecMemcpyNodeSetParams");
            let (unchanged, mut buckets) = (changes(), vec![None; 64]);
            let mut expected = 0;
            for (number, (tokens, requests)) in
                steps(500, 3).filter(|step| step.0 <= 512).enumerate()
            {
                let mut step = loop {
                    // Waiting asks now and then whether the context works: that is no part of a
                    // step.
                    match inputs.try_begin(tokens, requests) {
                        Ok(step) => break step,
                        Err(StageError::WouldBlock) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                };
                ids.fill(&mut step, number as u64);
                // Made ahead, it has the first bucket.
                let before = buckets[step.ring_slot()].replace(step.bucket()).unwrap_or(Some(0));
                expected += u64::from(layout == Layout::Packed && before != step.bucket());
                step.submit(&stream).unwrap();
            }
            let launched = machine.calls("cuGraphLaunch") - launches;
            assert!(launched > 400);
            assert_eq!(changes() - unchanged, expected, "{layout:?}");
            assert_eq!(total() - before, launched + expected, "{layout:?}");
            inputs.wait().unwrap();
        });
    }
}

fn addresses_stay(driver: &Driver) {
    let context = context(driver);
    let inputs = builder(&context).build().unwrap();
    let (ids, stream) = (Ids::of(&inputs), Stream::new(&context).unwrap());
    let mut first = None;
    for (number, (tokens, requests)) in steps(20, 9).enumerate() {
        let mut step = inputs.begin(tokens, requests).unwrap();
        ids.fill(&mut step, number as u64);
        let staged = step.submit(&stream).unwrap();
        let addresses: Vec<_> = ids.expected(&staged, 0).into_iter().map(|slot| slot.0).collect();
        assert!(addresses.iter().all(|address| address % 256 == 0 && *address != 0));
        assert_eq!(*first.get_or_insert(addresses.clone()), addresses);
    }
    inputs.wait().unwrap();
}

fn a_step_that_is_dropped_has_not_happened(driver: &Driver) {
    let context = context(driver);
    let inputs = builder(&context).ring_depth(1).build().unwrap();
    let (ids, stream) = (Ids::of(&inputs), Stream::new(&context).unwrap());
    for number in 0..3 {
        let mut step = inputs.begin(4, 2).unwrap();
        ids.fill(&mut step, number);
        assert_eq!(inputs.try_begin(1, 1).unwrap_err(), StageError::WouldBlock);
        drop(step);
    }
    let mut step = inputs.begin(4, 2).unwrap();
    assert_eq!(
        (step.counts(), step.padded()),
        (Counts { tokens: 4, requests: 2 }, Counts { tokens: 4, requests: 4 })
    );
    ids.fill(&mut step, 0);
    let staged = step.submit(&stream).unwrap();
    stream.synchronize().unwrap();
    assert!(staged.is_complete().unwrap());
}

fn a_ring_that_is_full_would_block(driver: &Driver) {
    let context = context(driver);
    let set = builder(&context).ring_depth(2).deadline(SHORT);
    let inputs = set.build().unwrap();
    let (ids, stream) = (Ids::of(&inputs), Stream::new(&context).unwrap());
    let gate = Gate::close(&stream);
    let submit = |number| {
        let mut step = inputs.begin(3, 1).unwrap();
        ids.fill(&mut step, number);
        step.submit(&stream).unwrap()
    };
    let (first, _second) = (submit(0), submit(1));
    assert!(!first.is_complete().unwrap());
    assert_eq!(inputs.try_begin(3, 1).unwrap_err(), StageError::WouldBlock);
    let StageError::Stalled(stall) = inputs.begin(3, 1).unwrap_err() else { panic!("not stalled") };
    assert_eq!((stall.ring_slot, stall.stream), (0, stream.as_raw().addr()));
    assert!(stall.age >= SHORT && stall.probes > 0, "{stall:?}");
    assert!(
        StageError::Stalled(stall).to_string().contains("ring slot 0 is in flight on stream 0x")
    );
    assert!(matches!(inputs.wait(), Err(StageError::Stalled(_))));
    let Err(ReleaseError { inputs, error }) = inputs.release() else {
        panic!("released in flight")
    };
    assert!(matches!(error, StageError::Stalled(_)));
    gate.open();
    stream.synchronize().unwrap();
    inputs.wait().unwrap();
    drop(inputs.begin(3, 1).unwrap());
    inputs.release().unwrap();
}

fn what_a_set_cannot_be_is_refused(driver: &Driver) {
    let context = context(driver);
    let set = || InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens).buckets([4, 8]);
    let refused = |set: wharf::staging::InputBuffersBuilder| set.build().unwrap_err();
    assert_eq!(refused(InputBuffers::builder(&context).buckets([1])), BuildError::NoSlots);
    assert_eq!(
        refused(InputBuffers::builder(&context).dynamic::<i32>("x").buckets([1])),
        BuildError::NoSlots
    );
    assert_eq!(
        refused(set().slot::<u8>("ids", Len::Tokens)),
        BuildError::DuplicateSlot("ids".into())
    );
    assert_eq!(refused(set().buckets([0, 1])), BuildError::Bucket(0));
    assert_eq!(refused(set().buckets([3, 1, 3])), BuildError::Bucket(3));
    assert_eq!(refused(set().ring_depth(0)), BuildError::RingDepth(0));
    assert_eq!(refused(set().ring_depth(65)), BuildError::RingDepth(65));
    let limit = BuildError::Limit { what: Count::Tokens, limit: 7, needed: 8 };
    assert_eq!(refused(set().max_tokens(7)), limit);
    let limit = BuildError::Limit { what: Count::Requests, limit: 0, needed: 1 };
    assert_eq!(refused(set().max_requests(0)), limit);
    assert_eq!(
        refused(set().slot::<i64>("long", Len::Tokens.times(usize::MAX / 8))),
        BuildError::TooLarge
    );
    assert_eq!(
        refused(set().slot::<i64>("long", Len::Fixed(usize::MAX / 8))),
        BuildError::TooLarge
    );
    let stray = InputBuffers::builder(&context).when_forgotten(Forgotten::Pad);
    let stray = stray.slot::<i32>("ids", Len::Tokens).buckets([4]);
    assert_eq!(refused(stray), BuildError::NoSlotBefore("when_forgotten"));
    let kept = set().layout(Layout::Packed).when_forgotten(Forgotten::Keep);
    assert_eq!(refused(kept), BuildError::KeepNeedsPerSlot("ids".into()));
    let many =
        (0..64).fold(set(), |set, slot| set.slot::<u8>(&format!("slot {slot}"), Len::Tokens));
    assert_eq!(refused(many), BuildError::TooManySlots { given: 65, max: 64, max_dynamic: 8 });
    let dynamic = (0..9).fold(set(), |set, slot| set.dynamic::<u8>(&format!("slot {slot}")));
    assert_eq!(refused(dynamic), BuildError::TooManySlots { given: 10, max: 64, max_dynamic: 8 });
    for error in [
        limit,
        BuildError::TooLarge,
        BuildError::NoSlots,
        BuildError::KeepNeedsPerSlot("ids".into()),
    ] {
        assert!(!error.to_string().is_empty());
    }
}

/// What no copy brings keeps its contents in every layout.
fn slots_that_are_not_copied_may_be_kept_in_a_packed_layout(driver: &Driver) {
    let context = context(driver);
    let set = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
    let set = set.when_forgotten(Forgotten::Error).layout(Layout::Packed).buckets([4]);
    let set = set.device_only::<u8>("hidden", Len::Tokens).persistent::<u8>("table", 2, 2, 1);
    let set = set.dynamic::<u8>("passed").when_forgotten(Forgotten::Keep);
    set.clone().forgotten(Forgotten::Keep).build().unwrap();
    let kept = set.slot::<i32>("last", Len::Tokens).forgotten(Forgotten::Keep).build();
    assert_eq!(kept.unwrap_err(), BuildError::KeepNeedsPerSlot("last".into()));
}

fn slots_are_checked(driver: &Driver) {
    let context = context(driver);
    let inputs = builder(&context).build().unwrap();
    let unknown = inputs.slot_id::<i32>("inputs_ids").unwrap_err();
    assert_eq!(unknown, SlotError::Unknown("inputs_ids".into()));
    let wrong = inputs.slot_id::<i64>("input_ids").unwrap_err();
    assert_eq!(wrong.to_string(), "slot \"input_ids\" has elements of type i32, not i64");
}

fn steps_are_checked(driver: &Driver) {
    let context = context(driver);
    let set = || InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens).buckets([4, 8]);
    let inputs =
        set().slot::<u8>("flags", Len::Requests).dynamic::<f32>("weights").build().unwrap();
    let other = set().build().unwrap();
    let stream = Stream::new(&context).unwrap();
    let (ids, flags) =
        (inputs.slot_id::<i32>("ids").unwrap(), inputs.slot_id::<u8>("flags").unwrap());
    let weights = inputs.slot_id::<f32>("weights").unwrap();
    let foreign = other.slot_id::<i32>("ids").unwrap();
    let slot = |slot: &str, fault| StageError::Slot { slot: slot.into(), fault };

    let mut step = inputs.begin(3, 2).unwrap();
    let length = SlotFault::Length { wanted: 3, given: 4 };
    assert_eq!(step.write_from(ids, &[0; 4]), Err(slot("ids", length)));
    assert_eq!(
        slot("ids", length).to_string(),
        "slot \"ids\" has 3 elements in this step, and 4 were given"
    );
    step.write(ids).fill(1);
    assert_eq!(step.submit(&stream).unwrap_err(), slot("flags", SlotFault::Forgotten));

    let mut step = inputs.begin(3, 2).unwrap();
    assert!(step.write(foreign).is_empty());
    assert_eq!(step.write_from(foreign, &[1, 2, 3]), Err(slot("0", SlotFault::Foreign)));
    assert_eq!(step.submit(&stream).unwrap_err(), slot("0", SlotFault::Foreign));

    let mut step = inputs.begin(3, 2).unwrap();
    assert!(step.write(weights).is_empty());
    assert_eq!(step.pass(ids, 1), Err(slot("ids", SlotFault::NotDynamic)));
    assert_eq!(step.pass(foreign, 1), Err(slot("0", SlotFault::Foreign)));
    assert_eq!(step.submit(&stream).unwrap_err(), slot("weights", SlotFault::IsDynamic));

    let mut step = inputs.begin(3, 2).unwrap();
    step.write(ids).fill(1);
    step.write(flags).fill(1);
    step.pass(weights, 0xabc).unwrap();
    let staged = step.submit(&stream).unwrap();
    assert_eq!((staged.device_ptr(weights), staged.device_ptr(foreign)), (0xabc, 0));
    inputs.wait().unwrap();
}

fn sizes_are_checked(driver: &Driver) {
    let context = context(driver);
    let inputs = builder(&context).build().unwrap();
    let tokens = inputs.begin(MAX_TOKENS + 1, 1).unwrap_err();
    assert_eq!(tokens, StageError::TooLarge { what: Count::Tokens, wanted: 2049, max: 2048 });
    let requests = inputs.begin(300, MAX_REQUESTS + 1).unwrap_err();
    assert_eq!(
        requests.to_string(),
        "257 requests were asked for, and the set, or the bucket that was asked for, holds 256: \
         take a larger bucket, or raise the set's limit"
    );
    // More requests than tokens: the bucket holds both.
    let step = inputs.begin(3, 7).unwrap();
    assert_eq!(step.padded(), Counts { tokens: 8, requests: 8 });
}
