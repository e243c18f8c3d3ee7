//! The stress program in a form short enough for every run.

#[path = "../../../examples/pool_stress/run.rs"]
mod run;

use std::time::Duration;

use run::{Plan, stress};
use softcuda::Schedule;

const PLAN: Plan = Plan {
    schedule: Schedule::Late,
    grace: Duration::from_millis(1),
    threads: 8,
    streams: 6,
    rounds: 5,
    time: None,
    record: true,
};

fn assert_clean(plan: Plan) {
    let outcome = stress(plan).unwrap();
    assert_eq!((outcome.mismatches, outcome.violations), (0, 0), "{:?}", plan.schedule);
    assert_eq!(outcome.rounds, plan.threads * plan.rounds);
}

#[test]
fn every_byte_is_right_when_copies_run_late() {
    assert_clean(Plan { rounds: 100, ..PLAN });
}

#[test]
fn every_byte_is_right_in_200_random_schedules() {
    (0..200).for_each(|seed| assert_clean(Plan { schedule: Schedule::Random(seed), ..PLAN }));
}

#[test]
fn every_byte_is_right_as_fast_as_it_goes() {
    assert_clean(Plan { schedule: Schedule::Async, rounds: 300, ..PLAN });
}

#[test]
fn a_use_that_is_not_recorded_is_caught() {
    let outcome = stress(Plan { record: false, rounds: 50, ..PLAN }).unwrap();
    assert!(outcome.mismatches > 0 && outcome.violations > 0, "{outcome:?}");
    let caught = |seed| {
        let plan = Plan { schedule: Schedule::Random(seed), record: false, rounds: 30, ..PLAN };
        stress(plan).unwrap().mismatches > 0
    };
    assert!((0..5).any(caught));
}
