//! The examples that stress and age a pool, in a form short enough for every run.

#[path = "../../examples/slab_ageing/run.rs"]
mod ageing;
#[path = "../../examples/slab_stress/run.rs"]
mod stress;

#[test]
fn stress_loses_nothing() {
    // All hold blocks until one is refused, as they ask for six times the limit together.
    let outcome =
        stress::stress(64, 256 << 20, |turns, refused| turns >= 600 && refused > 0).unwrap();
    // All that can happen did.
    let stress::Outcome { blocks, passed_on, exhausted, failed, commits } = outcome;
    assert!(blocks.min(passed_on).min(exhausted).min(failed).min(commits) > 0, "{outcome:?}");
}

#[test]
fn an_aged_pool_holds_little_more_than_its_blocks() {
    let outcome = ageing::age(512 << 20, 400_000, 2).unwrap();
    assert!(outcome.peak_asked <= outcome.peak_live, "{outcome:?}");
    assert!(outcome.peak_reserved <= outcome.peak_live / 10 * 13, "{outcome:?}");
    assert!(outcome.peak_reserved <= outcome.peak_reserved_early / 10 * 12, "{outcome:?}");
}
