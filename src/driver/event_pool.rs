#![expect(unsafe_code, reason = "kept handles become events again")]
//! Events that are used again instead of destroyed.
//!
//! A fixed array of slots, each empty (null) or a handle:
//!
//! ```text
//! take: scan for a handle, swap null in         an empty pool creates an event
//! keep: scan for null, exchange the handle in   a full pool destroys the event
//! ```
//!
//! | word | written by | read by |
//! |---|---|---|
//! | `slots[i]` | `keep` (Release), `take` (Acquire) | both |
//!
//! A handle is in at most one place: the call that swaps it out owns it, so there is no ABA. Both
//! scans visit each slot once, so both are wait-free.

use core::fmt;
use core::ptr;
use std::sync::{Arc, Weak};

use wharf_sys::bindings::{CUevent, CUevent_st};

use super::{Context, Event, EventKind};
use crate::error::Error;
use crate::sync::atomic::{AtomicPtr, Ordering};

/// Events of one context and one kind, kept for reuse.
///
/// Thread-safe without locks. Events outlive the pool: those out when it is dropped are destroyed
/// instead of returned. An event may be returned while it is pending: what waits for it has taken
/// its own note (Driver API, cuStreamWaitEvent), and the next record begins anew.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::{EventPool, driver::EventKind};
///
/// let pool = EventPool::new(&context, EventKind::Ordering, 8);
/// let first = pool.event()?.as_raw();
/// assert_eq!(pool.event()?.as_raw(), first);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EventPool(Arc<Shelf>);

impl EventPool {
    /// A pool that keeps up to `capacity` events; it creates none yet.
    pub fn new(context: &Context, kind: EventKind, capacity: usize) -> Self {
        let slots = (0..capacity).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        Self(Arc::new(Shelf { context: context.clone(), kind, slots }))
    }

    /// An event: a kept one, or else a new one.
    ///
    /// Its earlier records are still in it until it is recorded again.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`]: the pool is empty and the driver cannot create an event.
    /// * [`Error::Forked`]: this process is a fork of the one that loaded the driver.
    pub fn event(&self) -> Result<Event, Error> {
        self.0.context.driver().check_fork()?;
        let event = match self.0.take() {
            Some(kept) => kept,
            None => Event::new(&self.0.context, self.0.kind)?,
        };
        Ok(event.in_pool(Home(Arc::downgrade(&self.0))))
    }

    /// How many events are kept at this moment.
    pub fn kept(&self) -> usize {
        // Relaxed: a count, nothing is read through it.
        self.0.slots.iter().filter(|slot| !slot.load(Ordering::Relaxed).is_null()).count()
    }

    /// How many events are kept at most.
    pub fn capacity(&self) -> usize {
        self.0.slots.len()
    }
}

impl fmt::Debug for EventPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("EventPool");
        out.field("kind", &self.0.kind).field("kept", &self.kept()).finish_non_exhaustive()
    }
}

/// Where an event of a pool goes when it is dropped.
pub(super) struct Home(Weak<Shelf>);

impl Home {
    /// Keeps the event, if the pool lives and has room.
    pub(super) fn keep(&self, raw: CUevent) -> bool {
        self.0.upgrade().is_some_and(|shelf| shelf.keep(raw))
    }
}

/// The slots. Dropped by the pool, or by an event that was on its way back meanwhile.
struct Shelf {
    context: Context,
    kind: EventKind,
    slots: Box<[AtomicPtr<CUevent_st>]>,
}

impl Shelf {
    /// A kept event, without a home.
    fn take(&self) -> Option<Event> {
        let raw = self.slots.iter().find_map(|slot| {
            if slot.load(Ordering::Relaxed).is_null() {
                return None;
            }
            // Acquire: pairs with the Release in `keep`, so the last user's calls on the event
            // happen before the next user's.
            let raw = slot.swap(ptr::null_mut(), Ordering::Acquire);
            (!raw.is_null()).then_some(raw)
        })?;
        // SAFETY: an event of this pool was kept, so `raw` is of this context and kind, and
        // the swap made this call its only owner.
        Some(unsafe { Event::from_raw(raw, self.kind, &self.context) })
    }

    fn keep(&self, raw: CUevent) -> bool {
        self.slots.iter().any(|slot| {
            // Release: pairs with the Acquire in `take`.
            slot.compare_exchange(ptr::null_mut(), raw, Ordering::Release, Ordering::Relaxed)
                .is_ok()
        })
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        while let Some(event) = self.take() {
            drop(event);
        }
    }
}
