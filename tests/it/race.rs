//! The program that shows what the check `race` says.

#[path = "../../examples/race/run.rs"]
mod run;

#[test]
fn the_check_race_names_two_lines_that_nothing_orders_and_is_silent_when_an_event_does() {
    let found = run::step(false).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].matches("cuMemsetD8Async").count(), 2, "both calls: {}", found[0]);
    assert_eq!(found[0].matches(" on stream 0x").count(), 2, "both streams: {}", found[0]);
    assert_eq!(run::step(true).unwrap(), Vec::<String>::new());
}
