//! Slots that are checked once.

use wharf::staging::{InputBuffers, Layout, Len, Pad, ShapeFault, SlotFault, SlotId, StageError};
use wharf::{Context, Driver, Stream};

use crate::backend::on_each_driver;
use crate::staging_rig::{context, words};

on_each_driver!(
    bound_slots_are_those_of_single_writes,
    what_cannot_be_bound_is_refused,
    a_slot_that_is_no_run_of_a_ring_slot_is_not_bound,
    bound_slots_are_of_one_set,
    bound_slots_wait_for_their_counts,
    an_id_is_not_of_a_later_set,
);

fn set(context: &Context, layout: Layout) -> InputBuffers {
    InputBuffers::builder(context)
        .slot_padded::<u64>("ids", Len::Tokens, Pad::Value(5))
        .slot::<u64>("lens", Len::Requests)
        .slot::<u8>("flags", Len::Requests.plus(1))
        .count("logits", Len::Tokens)
        .slot::<u64>("logits", Len::count("logits"))
        .dynamic::<u64>("hidden")
        .buckets([4, 8])
        .layout(layout)
        .build()
        .unwrap()
}

fn bound_slots_are_those_of_single_writes(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for layout in [Layout::PerSlot, Layout::Packed] {
        let inputs = InputBuffers::builder(&context)
            .slot_padded::<u32>("ids", Len::Tokens, Pad::Value(5))
            .slot::<u32>("lens", Len::Requests)
            .slot::<u8>("flags", Len::Requests.plus(1))
            .buckets([4, 8])
            .layout(layout)
            .build()
            .unwrap();
        let [ids, lens]: [SlotId<u32>; 2] =
            ["ids", "lens"].map(|name| inputs.slot_id(name).unwrap());
        let flags: SlotId<u8> = inputs.slot_id("flags").unwrap();
        let (all, pair) = (inputs.bind((ids, flags, lens)), inputs.bind([lens, ids]));
        let (all, pair) = (all.unwrap().clone(), pair.unwrap());
        for (tokens, requests) in [(3, 2), (7, 1), (8, 8), (1, 1)] {
            let mut step = inputs.begin(tokens, requests).unwrap();
            let (first, second, third) = step.write_all(&all).unwrap();
            assert_eq!((first.len(), second.len(), third.len()), (tokens, requests + 1, requests));
            first.fill(11);
            second.fill(1);
            third.fill(12);
            let [third, first] = step.write_all(&pair).unwrap();
            assert_eq!((third.len(), first.len()), (requests, tokens));
            first[0] = 10;
            let staged = step.submit(&stream).unwrap();
            let padded = staged.padded().tokens;
            let mut wanted = vec![11_u32; tokens];
            wanted[0] = 10;
            wanted.resize(padded, 5);
            let found: [u32; 8] = words(&stream, staged.device_ptr(ids));
            assert_eq!(found[..padded], wanted, "{layout:?}");
        }
    }
}

fn what_cannot_be_bound_is_refused(driver: &Driver) {
    let context = context(driver);
    let (inputs, other) = (set(&context, Layout::PerSlot), set(&context, Layout::PerSlot));
    let (ids, lens): (SlotId<u64>, SlotId<u64>) =
        (inputs.slot_id("ids").unwrap(), inputs.slot_id("lens").unwrap());
    let fault = |error| match error {
        StageError::Slot { slot, fault } => (slot.to_string(), fault),
        other => panic!("{other}"),
    };
    let twice = inputs.bind((ids, lens, ids)).unwrap_err();
    assert_eq!(fault(twice), ("ids".into(), SlotFault::Twice));
    let foreign: SlotId<u64> = other.slot_id("lens").unwrap();
    let foreign = inputs.bind([ids, foreign]).unwrap_err();
    assert_eq!(fault(foreign).1, SlotFault::Foreign);
    let hidden: SlotId<u64> = inputs.slot_id("hidden").unwrap();
    let dynamic = inputs.bind((ids, hidden)).unwrap_err();
    assert_eq!(fault(dynamic), ("hidden".into(), SlotFault::IsDynamic));
}

/// There is no place in a ring slot for what the device alone writes, too little for a table, and
/// the rows of a slot are apart.
fn a_slot_that_is_no_run_of_a_ring_slot_is_not_bound(driver: &Driver) {
    let context = context(driver);
    for layout in [Layout::PerSlot, Layout::Packed] {
        let set = InputBuffers::builder(&context)
            .slot::<u64>("ids", Len::Tokens)
            .slot_rows::<u64>("mrope", 3, Len::Tokens)
            .device_only::<u64>("hidden", Len::Tokens.times(1024))
            .persistent::<u64>("table", 4, 6, 2)
            .buckets([4, 8])
            .layout(layout);
        let set = set.build().unwrap();
        let names = ["mrope", "hidden", "table"];
        let view = set.view(&["ids", "mrope", "hidden", "table"]).unwrap().buckets([2, 4]).build();
        for inputs in std::iter::once(&set).chain(&view) {
            let ids: SlotId<u64> = inputs.slot_id("ids").unwrap();
            let faults = [ShapeFault::HasRows, ShapeFault::IsDeviceOnly, ShapeFault::IsPersistent];
            for (name, wanted) in names.into_iter().zip(faults) {
                let slot: SlotId<u64> = inputs.slot_id(name).unwrap();
                let wanted =
                    StageError::Slot { slot: name.into(), fault: SlotFault::Shape(wanted) };
                assert_eq!(inputs.bind([slot]).unwrap_err(), wanted, "{layout:?}");
                assert_eq!(inputs.bind((ids, slot)).unwrap_err(), wanted, "{layout:?}");
            }
            inputs.bind([ids]).unwrap();
        }
    }
}

fn bound_slots_are_of_one_set(driver: &Driver) {
    let context = context(driver);
    let (inputs, other) = (set(&context, Layout::PerSlot), set(&context, Layout::PerSlot));
    let ids: SlotId<u64> = inputs.slot_id("ids").unwrap();
    let slots = inputs.bind([ids]).unwrap();
    let mut step = other.begin(1, 1).unwrap();
    let foreign = step.write_all(&slots).unwrap_err();
    assert!(matches!(foreign, StageError::Slot { fault: SlotFault::Foreign, .. }), "{foreign}");
    drop(step);
    // A set that is gone is not another that has its place in memory.
    drop(inputs);
    for _ in 0..8 {
        let next = set(&context, Layout::PerSlot);
        let mut step = next.begin(1, 1).unwrap();
        assert!(step.write_all(&slots).is_err());
    }
}

fn bound_slots_wait_for_their_counts(driver: &Driver) {
    let context = context(driver);
    let inputs = set(&context, Layout::PerSlot);
    let slots: [SlotId<u64>; 2] = ["ids", "logits"].map(|name| inputs.slot_id(name).unwrap());
    let slots = inputs.bind(slots).unwrap();
    let mut step = inputs.begin(3, 1).unwrap();
    let early = step.write_all(&slots).unwrap_err();
    assert!(matches!(early, StageError::Slot { fault: SlotFault::CountNotSet, .. }), "{early}");
    step.set_count(inputs.count_id("logits").unwrap(), 2).unwrap();
    let [ids, logits] = step.write_all(&slots).unwrap();
    assert_eq!((ids.len(), logits.len()), (3, 2));
}

/// Sets that come and go have the same memory one after the other; their ids stay apart.
fn an_id_is_not_of_a_later_set(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let mut ids: Vec<SlotId<u64>> = Vec::new();
    for _ in 0..8 {
        let inputs = InputBuffers::builder(&context).slot::<u64>("ids", Len::Tokens);
        let inputs = inputs.buckets([4]).build().unwrap();
        for old in &ids {
            assert_eq!(inputs.static_buffers().device_ptr(*old, 4), None);
            let mut step = inputs.begin(3, 1).unwrap();
            assert!(step.write(*old).is_empty(), "a slot of a set that is gone");
            let refused = step.submit(&stream).unwrap_err();
            let fault = SlotFault::Foreign;
            assert_eq!(refused, StageError::Slot { slot: "0".into(), fault });
        }
        ids.push(inputs.slot_id("ids").unwrap());
    }
}
