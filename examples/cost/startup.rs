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
        let calls = &sum(calls);
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

/// Prints which driver calls each phase makes.
pub(crate) fn calls() {
    for layout in [Layout::PerSlot, Layout::Packed] {
        let mut found = Vec::new();
        life(layout, &mut found);
        for (phase, calls, _) in found {
            println!("{phase} ({layout:?}): {}", sum(&calls));
            calls.iter().for_each(|(call, count)| println!("{count:>8} {call}"));
        }
    }
}

/// The phases of a layout: name, driver calls, allocations.
type Found = Vec<(String, Calls, u64)>;
/// How often each entry point was called.
type Calls = Vec<(&'static str, u64)>;

fn made_since(before: &Calls, now: &Calls) -> Calls {
    let count = |call| before.iter().find(|(name, _)| *name == call).map_or(0, |(_, count)| *count);
    let made = now.iter().map(|(name, all)| (*name, all - count(*name)));
    made.filter(|(_, count)| *count != 0).collect()
}

fn sum(calls: &Calls) -> u64 {
    calls.iter().map(|(_, count)| count).sum()
}

fn life(layout: Layout, found: &mut Found) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api().unwrap()).unwrap();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let _current = context.enter().unwrap();
    let stream = Stream::new(&context).unwrap();
    let mut note = |name: String, phase: &mut dyn FnMut()| {
        let (before, allocations) = (machine.all_calls(), ALLOCATIONS.get());
        phase();
        let allocations = ALLOCATIONS.get() - allocations;
        found.push((name, made_since(&before, &machine.all_calls()), allocations));
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
