//! Any legal order gives the result that the waits fix, and no other order is taken.

use softcuda::Schedule;

#[path = "../../examples/random_schedules/program.rs"]
mod program;

#[test]
fn a_hundred_random_schedules_give_the_same_bytes() {
    let expected = program::run(Schedule::Eager, true).unwrap();
    let half = program::LEN / 2;
    assert_eq!(expected[..half], vec![0x11; half], "b, copied to c after the graph filled it");
    assert_eq!(expected[half..2 * half], vec![0x22; half]);
    assert_eq!(expected[2 * half..2 * half + half / 2], vec![0x11; half / 2]);
    for seed in 0..100 {
        assert_eq!(program::run(Schedule::Random(seed), true).unwrap(), expected, "seed {seed}");
    }
    for schedule in [Schedule::Async, Schedule::Late] {
        assert_eq!(program::run(schedule, true).unwrap(), expected, "{schedule:?}");
    }
}

#[test]
fn without_one_wait_some_schedule_differs() {
    let expected = program::run(Schedule::Eager, true).unwrap();
    let differs = |seed| program::run(Schedule::Random(seed), false).unwrap() != expected;
    assert!((0..100).any(differs));
}

#[test]
fn a_seed_fixes_the_order() {
    for seed in 0..10 {
        let (first, second) = (
            program::run(Schedule::Random(seed), false),
            program::run(Schedule::Random(seed), false),
        );
        assert_eq!(first.unwrap(), second.unwrap(), "seed {seed}");
    }
}
