//! The one door to atomics, cells, locks, threads and thread-locals: `std`, or when the models run
//! `loom` or `shuttle`.
//!
//! Every other module names these primitives through here, and `tests/it/layering` enforces it. So
//! code that compiles is code that a model can run: no module needs a variant for models. `std.rs`
//! and `model.rs` export the same names:
//!
//! | name | in models |
//! |---|---|
//! | `atomic`, `hint`, `thread` | those of `loom` or `shuttle` |
//! | [`UnsafeCell`] | `loom`'s, which reports concurrent uses; access by `with` and `with_mut` |
//! | [`Mutex`], [`RwLock`] | theirs, behind the same poison-free wrappers (`lock.rs`) |
//! | [`OnceLock`] | made of their atomics and locks, since neither crate has one |
//! | [`thread_local!`], [`global!`] | made anew in each execution |
//! | [`array!`] | filled at run time: their atomics are not `const` |
//!
//! [`zeroed`] tables of atomics take memory where they are touched.
//!
//! `Arc` and `Weak` are `std`'s everywhere: `loom`'s `Arc` has neither `Weak` nor unsizing.

mod lock;
#[cfg_attr(all(test, loom), path = "model.rs")]
#[cfg_attr(not(all(test, loom)), path = "std.rs")]
pub(crate) mod primitives;
mod zeroed;

pub(crate) use self::lock::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
pub(crate) use self::primitives::{
    OnceLock, UnsafeCell, array, atomic, global, hint, thread, thread_local,
};
pub(crate) use self::zeroed::{Zeroed, zeroed};

use std::time::Duration;

/// A word in memory that the device writes: no thread's, so models leave it as it is.
pub(crate) use std::sync::atomic::AtomicU64 as DeviceWord;

/// Lets time pass in a wait for something that wakes no thread: first without giving the processor
/// away, at last in steps that cost nothing. `rounds` counts from 0, `left` is what the wait may
/// take.
pub(crate) fn pause(rounds: u32, left: Duration) {
    match rounds {
        0..SPINS => hint::spin_loop(),
        SPINS..YIELDS => thread::yield_now(),
        // allow-sleep: the device writes a word, the driver links an owner in; neither may wake a
        // thread.
        _ => primitives::sleep(NAP.min(left)),
    }
}

/// About what a short copy takes.
const SPINS: u32 = 200;
pub(crate) const YIELDS: u32 = 400;
const NAP: Duration = Duration::from_micros(50);

/// Runs `next` on the word until its new value is stored, and returns the value it replaced.
///
/// The state machines of this crate are pure functions from one word to the next; this is the
/// only compare-and-swap loop they need. `next` returning an error leaves the word alone.
///
/// `store` is the ordering of a successful exchange. A failed one loads with `Relaxed`: nothing
/// but the next guess depends on it.
#[cfg_attr(all(test, loom), track_caller)]
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
