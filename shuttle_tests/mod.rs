//! More threads and longer histories than `loom` can exhaust: thousands of random schedules of
//! each.
//!
//! `shuttle` runs one thread at a time and picks the next at random at every atomic operation, so
//! it finds what needs a rare order of many steps. It knows no weak orderings: those are for the
//! models in `loom_tests`. A failure prints a schedule that `shuttle::replay` plays again.
//!
//! Run them with
//! `RUSTFLAGS="--cfg loom --cfg shuttle" cargo test --profile model --lib`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests: a failure panics")]

mod store;
mod structures;
mod upstream;

use std::env;

/// Plays `body` under random schedules: 2000, or as many as `SHUTTLE_SCHEDULES` says.
fn schedules(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let given = env::var("SHUTTLE_SCHEDULES").ok().and_then(|count| count.parse().ok());
    let count = given.unwrap_or(2000);
    shuttle::check_random(body, count);
    println!("shuttle {name}: {count} schedules");
}

/// A sequence of numbers, each below its `end`; the schedule decides on it.
fn below(end: usize) -> usize {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..end)
}
