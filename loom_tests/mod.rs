//! Models of every lock-free structure and of every hand-over between threads.
//!
//! Two kinds for each: a *directed* model plays the one scenario that a known mistake needs (a
//! lost hint, a ticket that changes under a reader), a *generic* one lets threads do what they
//! like and checks that what the structure guards is used by one at a time. The guarded data are
//! `loom` cells, so an ordering that is too weak is seen as two concurrent uses.
//!
//! Run them with
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test --profile model --lib
//! ```
//!
//! `mutants/` holds single-place mistakes, each named after the model that finds it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests: a failure panics")]

mod bitmap;
mod buffer_state;
mod by_address;
mod cache;
mod deferred;
mod graph_cache;
mod guard;
mod index_stack;
mod lease;
mod machine;
mod owned_step;
mod patches;
mod piece_map;
mod poller;
mod pool;
mod registry;
mod result_ring;
mod slab_state;
mod sleep;
mod slot_state;
mod staging_ring;
mod step_word;
mod store;
mod stream_slot;
mod tickets;
mod tier_slots;
mod tier_state;
mod transfer_cache;
mod turn;
mod upstream;

use crate::sync::atomic::take_operations;
use loom::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Explores `body` and prints how many executions that took. If one fails, prints where to look:
/// the model, and the lines of the last operations on atomics, beside `loom`'s own message.
#[track_caller]
fn model(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let place = Location::caller();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = runs.clone();
    let mut builder = loom::model::Builder::new();
    // A store looks at more words than the 1000 that loom expects of a model.
    builder.max_branches = 20_000;
    // Lines of accesses to cells, in messages of concurrent ones.
    builder.location = true;
    let check = move || {
        builder.check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            drop(take_operations());
            body();
        });
    };
    let outcome = catch_unwind(AssertUnwindSafe(check));
    let runs = runs.load(Ordering::Relaxed);
    let Err(failure) = outcome else {
        println!("model {name}: {runs} executions");
        return;
    };
    println!("model {name} ({place}) failed in execution {runs}, after these operations:");
    take_operations().for_each(|operation| println!("  {operation}"));
    resume_unwind(failure);
}

/// Data that the structure under test guards: each item is one owner's at a time.
#[derive(Debug)]
struct Guarded(Vec<UnsafeCell<()>>);

impl Guarded {
    fn new(len: usize) -> Self {
        Self((0..len).map(|_| UnsafeCell::new(())).collect())
    }

    /// Uses an item as its only owner; `loom` fails the model if a use by another thread does
    /// not happen before or after.
    #[track_caller]
    fn own(&self, index: usize) {
        self.0[index].with_mut(|_| ());
    }

    /// Reads an item, beside other readers.
    #[track_caller]
    fn share(&self, index: usize) {
        self.0[index].with(|_| ());
    }
}
