//! The progress of one stream, which its timelines and tickets share.

use std::sync::Arc;

use wharf_sys::Home;
use wharf_sys::bindings::CUstream;

use super::pen::{Means, Pen};
use super::wait::Sentinel;
use crate::driver::{Context, StreamId, StreamKey, Word};
use crate::error::Error;
use crate::lockfree::tickets::Tickets;
use crate::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use crate::sync::{OnceLock, thread};

/// The progress of one stream.
///
/// * `stage`: written by `equip` (CAS), `seal`; read by `is_ready`, `is_open`, `is_closed`.
///   `Release` of `seal` pairs with the `Acquire` of `is_closed`: a thread that finds a timeline
///   closed finds its last ticket. `Release` of `equip` pairs with the `Acquire` of `is_ready`: a
///   thread that finds a timeline ready finds its word.
/// * `objects`: written by `adopt`, under the lock of the context's streams; the end of an object;
///   read by `close_if_unheld`, under that lock. Relaxed: an object's end comes after its calls,
///   and a timeline that is closed too late is only kept longer.
/// * `tails`: written by tails, at their beginning and end; read by the end of the stream or of its
///   last object. Relaxed: as `objects`.
/// * `last`: written by `close`, the end of the last object of a per-thread stream;
///   `adopt`, to 0; read by `is_over`, `close_if_unheld`. Relaxed: a number, read while there is no
///   object.
pub(super) struct Inner {
    pub(super) stage: AtomicU32,
    /// The process of the context's driver.
    pub(super) home: Home,
    pub(super) id: StreamId,
    pub(super) key: StreamKey,
    pub(super) tickets: Tickets,
    /// The word that the device writes, if it can, from the first ticket on.
    pub(super) word: OnceLock<Option<Word>>,
    pub(super) pen: Pen,
    pub(super) sentinel: Sentinel,
    pub(super) context: Context,
    /// The stream's handle, as a number.
    pub(super) name: usize,
    /// How many [`Stream`](crate::Stream) objects there are.
    pub(super) objects: AtomicU64,
    /// How many want to come after the stream's work when it is gone, see [`Tail`].
    pub(super) tails: AtomicU64,
    /// No ticket is greater once there is no object any more; 0 while that is not known.
    pub(super) last: AtomicU64,
    /// Where pools have put this timeline, see [`Timeline::seat`].
    pub(super) seats: [AtomicU64; 4],
}

impl Inner {
    pub(super) fn new(raw: CUstream, key: StreamKey, context: &Context) -> Arc<Self> {
        Arc::new(Self {
            stage: AtomicU32::new(if key.thread().is_some() { BOUND } else { OPEN }),
            home: context.driver().api().home().clone(),
            id: StreamId::next(),
            key,
            tickets: Tickets::new(),
            word: OnceLock::new(),
            pen: Pen::new(raw, context),
            sentinel: Sentinel::new(context),
            context: context.clone(),
            name: raw.addr(),
            objects: AtomicU64::new(1),
            tails: AtomicU64::new(0),
            last: AtomicU64::new(0),
            seats: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// Counts one more object, of a stream that is not closed.
    pub(super) fn adopt(&self) -> bool {
        let is_open = !self.is_closed();
        if is_open {
            self.objects.fetch_add(1, Relaxed);
            self.last.store(0, Relaxed);
        }
        is_open
    }

    #[cold]
    pub(super) fn check(&self) -> Result<(), Error> {
        self.check_process()?;
        if self.is_closed() {
            return Err(Error::StreamForgotten);
        }
        if self.is_on_its_thread() { Ok(()) } else { Err(Error::OtherThread) }
    }

    pub(super) fn equip(&self) -> Result<(), Error> {
        if self.word.get().is_none() {
            let word = self.context.words().take(&self.context)?;
            if let Err(Some(surplus)) = self.word.set(word) {
                self.context.words().give(surplus, 0);
            }
        }
        // Release: pairs with the Acquire of `is_ready`. It stays as it is for a stream that is
        // bound to a thread, or was closed meanwhile.
        let _other = self.stage.compare_exchange(OPEN, READY, Release, Relaxed);
        Ok(())
    }

    #[inline]
    pub(super) fn word(&self) -> Option<&Word> {
        self.word.get().and_then(Option::as_ref)
    }

    pub(super) fn mark(&self, means: Means) -> Result<bool, Error> {
        self.check_process()?;
        if !self.is_on_its_thread() {
            return Ok(false);
        }
        let word = self.word().filter(|_| means == Means::Word);
        Ok(self.pen.mark(&self.context, &self.tickets, word)?.is_some())
    }

    /// As `mark`, and waits for the other threads that are putting markers in; the marker's number.
    pub(super) fn mark_last(&self) -> Result<Option<u64>, Error> {
        if !self.is_on_its_thread() || self.check_process().is_err() {
            return Ok(None);
        }
        self.pen.mark_last(&self.context, &self.tickets, self.word())
    }

    /// The last ticket, when no other can be issued: puts a marker in for it, if something has one.
    /// `None` if it cannot be known to complete, as while the stream is captured.
    pub(super) fn last_marker(&self, is_of_interest: bool) -> Result<Option<u64>, Error> {
        if !is_of_interest || self.word.get().is_none() {
            let last = self.tickets.issue();
            self.tickets.observe(last);
            return Ok(Some(last));
        }
        if self.is_on_its_thread() {
            return self.mark_last();
        }
        Ok(Some(self.last.load(Relaxed)).filter(|last| *last != 0))
    }

    /// Has an event at the end of the stream if something has to come after it, see [`Tail`].
    pub(super) fn keep_end(&self) -> Result<(), Error> {
        if self.tails.load(Relaxed) == 0
            || !self.is_on_its_thread()
            || self.check_process().is_err()
        {
            return Ok(());
        }
        self.pen.keep_end(&self.context)
    }

    pub(super) fn seal(&self, last: Option<u64>) {
        self.last.store(last.unwrap_or(0), Relaxed);
        // Release: pairs with the Acquire of `is_closed`.
        self.stage.store(CLOSED, Release);
    }

    /// Lets go of a stream that was destroyed.
    pub(super) fn abandon(&self) {
        self.seal(None);
        drop(self.pen.close());
    }

    pub(super) fn is_closed(&self) -> bool {
        // Acquire: pairs with the Release of `close`.
        self.stage.load(Acquire) == CLOSED
    }

    pub(super) fn check_process(&self) -> Result<(), Error> {
        self.context.driver().check_fork()
    }

    /// The last ticket known to be complete.
    pub(super) fn completed(&self) -> u64 {
        self.tickets.completed().max(self.word().map_or(0, Word::load))
    }

    pub(super) fn is_on_its_thread(&self) -> bool {
        self.key.thread().is_none_or(|thread| thread == thread::current().id())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.context.streams().remove(self.key, self, || true);
        if let Some(word) = self.word.take().flatten() {
            // The device may be about to write to it: that was not waited for.
            self.context.words().give(word, self.pen.last_word());
        }
    }
}

/// A stream that any thread may use, and that has had no ticket.
pub(super) const OPEN: u32 = 0;
/// A stream that any thread may use and have tickets of.
pub(super) const READY: u32 = 1;
/// A stream that belongs to a thread.
pub(super) const BOUND: u32 = 2;
/// A stream that is gone.
pub(super) const CLOSED: u32 = 3;
