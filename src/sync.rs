//! The one door to atomics, cells and threads: `std`, or when the models run `loom` or `shuttle`.
//!
//! Every other module names these primitives through here, so a structure that compiles
//! is a structure that `loom` can check. Nondeterminism (thread numbers, random seeds) goes
//! through the same door.

#[cfg(not(all(test, loom)))]
pub(crate) use self::real::*;

#[cfg(all(test, loom))]
pub(crate) use self::model::*;

#[cfg(not(all(test, loom)))]
mod real {
    pub(crate) use std::hint;
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread;
}

#[cfg(all(test, loom, shuttle))]
mod model {
    pub(crate) use shuttle::hint;
    pub(crate) use shuttle::sync::atomic;
    pub(crate) use shuttle::thread;
}

#[cfg(all(test, loom, not(shuttle)))]
mod model {
    pub(crate) use loom::hint;
    pub(crate) use loom::sync::atomic;
    pub(crate) use loom::thread;
}

/// Runs `next` on the word until its new value is stored, and returns the value it replaced.
///
/// The state machines of this crate are pure functions from one word to the next; this is the
/// only compare-and-swap loop they need. `next` returning an error leaves the word alone.
///
/// `store` is the ordering of a successful exchange. A failed one loads with `Relaxed`: nothing
/// but the next guess depends on it.
pub(crate) fn try_update<E>(
    word: &atomic::AtomicU64,
    store: atomic::Ordering,
    mut next: impl FnMut(u64) -> Result<u64, E>,
) -> Result<u64, E> {
    let mut seen = word.load(atomic::Ordering::Relaxed);
    loop {
        let new = next(seen)?;
        match word.compare_exchange_weak(seen, new, store, atomic::Ordering::Relaxed) {
            Ok(old) => return Ok(old),
            Err(now) => seen = now,
        }
    }
}
