//! Driver calls and heap allocations of a set's life: 12 slots, 67 buckets, a ring of 3.

use softcuda::{Config, Simulator};
use wharf::staging::{InputBuffers, Instantiation, Layout, SlotId};
use wharf::{Context, Driver, Stream};

use crate::limits::CALLS;
use crate::{ALLOCATIONS, steps};

const SLOTS: usize = 12;

/// Prints the table. Whether all rows are within their limits.
pub(crate) fn table() -> bool {
    println!("\n{:<38}{:>13}{:>13}", "", "driver calls", "allocations");
    let mut found = Vec::new();
    for layout in [Layout::PerSlot, Layout::Packed] {
        life(layout, &mut found);
    }
    let mut within = true;
    for (name, limit, goal) in CALLS {
        let (_, calls, allocations) = found.iter().find(|(found, ..)| found == name).unwrap();
        let said = match (calls > limit, goal == limit) {
            (true, _) => format!("over its limit of {limit}"),
            (false, true) => String::new(),
            (false, false) => format!("goal {goal}"),
        };
        println!("{name:<38}{calls:>13}{allocations:>13}  {said}");
        within &= calls <= limit;
    }
    within
}

/// The phases of a layout: name, driver calls, allocations.
type Found = Vec<(String, u64, u64)>;

fn life(layout: Layout, found: &mut Found) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api().unwrap()).unwrap();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let _current = context.enter().unwrap();
    let stream = Stream::new(&context).unwrap();
    let calls = || machine.all_calls().iter().map(|(_, count)| count).sum::<u64>();
    let mut note = |name: String, phase: &mut dyn FnMut()| {
        let (before, allocations) = (calls(), ALLOCATIONS.get());
        phase();
        found.push((name, calls() - before, ALLOCATIONS.get() - allocations));
    };
    let build = |eager| {
        let made = if eager { Instantiation::Eager } else { Instantiation::Lazy };
        steps::set(&context, SLOTS, layout).buckets(steps::ladder()).instantiation(made).build()
    };
    let step = |inputs: &InputBuffers, tokens| {
        let mut step = inputs.begin(tokens, tokens).unwrap();
        for slot in 0..SLOTS {
            let id: SlotId<i32> = inputs.slot_id(&steps::name(slot)).unwrap();
            step.write(id).fill(1);
        }
        step.submit(&stream).unwrap();
    };
    let mut set = None;
    note("build, lazy".into(), &mut || set = Some(build(false).unwrap()));
    let inputs = set.take().unwrap();
    // The very first step of a set looks at its stream. Each has ring slot 0, free again.
    step(&inputs, 1);
    stream.synchronize().unwrap();
    note(format!("first step, {layout:?}"), &mut || step(&inputs, 60));
    stream.synchronize().unwrap();
    note(format!("bucket change, {layout:?}"), &mut || step(&inputs, 1));
    stream.synchronize().unwrap();
    drop(inputs);
    note(format!("build, {layout:?}, eager"), &mut || set = Some(build(true).unwrap()));
    note(format!("drop, {layout:?}, eager"), &mut || drop(set.take()));
}
