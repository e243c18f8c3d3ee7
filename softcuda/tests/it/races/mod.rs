//! The check `race`: what orders two accesses, and what does not; one file for each kind of edge.

mod bytes;
mod graphs;
mod host;
mod streams;
mod values;

use std::ptr;

use softcuda::{Check, Checks, Config, Schedule, Violation};
use wharf_sys::bindings::CUstream;

use crate::support::Rig;

/// This check alone.
fn config(schedule: Schedule) -> Config {
    let mut checks = Checks::default();
    checks.race = true;
    Config { schedule, checks, ..Rig::config() }
}

/// A machine with this check alone.
fn rig(schedule: Schedule) -> Rig {
    Rig::with(config(schedule))
}

/// The same for a program that polls memory and asks the driver nothing.
fn polled_rig(schedule: Schedule) -> Rig {
    Rig::with(Config { grace: Config::default().grace, ..config(schedule) })
}

/// Waits for all and returns what was found.
fn races(rig: &Rig) -> Vec<Violation> {
    unsafe { rig.api.ctx_synchronize.call() }.unwrap();
    rig.simulator.violations()
}

const LEGACY: CUstream = ptr::null_mut();
const PER_THREAD: CUstream = ptr::without_provenance_mut(2);

/// Sees that `program` races exactly where it is run without its edge. Two of its accesses overlap.
fn holds_with_the_edge_alone(program: fn(&Rig, bool)) {
    for schedule in [Schedule::Late, Schedule::Random(1), Schedule::Random(2), Schedule::Random(3)]
    {
        let right = rig(schedule);
        program(&right, true);
        assert_eq!(races(&right), [], "{schedule:?}");
        let wrong = rig(schedule);
        program(&wrong, false);
        let found = races(&wrong);
        assert_eq!(found.len(), 1, "{schedule:?}: {found:?}");
        assert_eq!(found[0].check, Check::Race);
    }
    // Here the earlier one may be known to be complete, so only this is certain.
    for schedule in [Schedule::Async, Schedule::Eager] {
        let right = rig(schedule);
        program(&right, true);
        assert_eq!(races(&right), [], "{schedule:?}");
    }
}
