//! Where memory comes from when the stream has none of its own, in order of preference.
//!
//! ```text
//!   1  a block of the class that another stream has used, and the device is past
//!   2  a block of the slabs that is committed and free
//!   3  the same, after blocks that were not reused for some time have gone back to the slabs
//!   4  growth
//!      --- the limit is reached, or the driver has no memory for more ---
//!   5  what this thread keeps in its cache of the slabs
//!   6  the same as 1 to 4, after everything that is complete has been given back; waits for a
//!      thread that has lists in hand
//!   7  a block that another stream still uses: this stream waits for it, on the device
//!   8  as 6, after the host waited for the device, if the options allow
//!   9  as 6 and 8, after the caller's hook freed something
//!  10  AllocError::Exhausted
//! ```
//!
//! Blocks that a stream uses again and again stay with it, though it may be done with them when
//! another wants memory: giving them back would be a driver call each way. Trimming other classes
//! is part of 4: the slabs release what is empty, granules and runs, before they give up, to the
//! driver too, which other pools and processes take memory from.

use std::time::{Duration, Instant};

use super::core::{Core, Request};
use super::drain::Reclaim;
use super::pressure::Pressure;
use super::record::LARGE_LIST;
use super::stats::Source;
use crate::error::Error;
use crate::profile::{Range, range};
use crate::slab::{AllocError, Exhaustion};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread;
use crate::timeline::WaitError;

impl Core {
    /// Allocates for a stream that has nothing of the class.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, request: Request<'_>) -> Result<u32, AllocError> {
        let _range = Range::enter(&self.alloc_range, Some(request.asked));
        let turn = self.turn();
        let gathered = turn.as_ref().and_then(|turn| self.gather(turn, &request, false));
        if let Some(index) = gathered {
            // It may have come from the stream itself meanwhile, with a use that is not over.
            self.begin_behind(index, request.slot, request.asked);
            self.counters.count(Source::Completed);
            return Ok(index);
        }
        let mut source = Source::Committed;
        let mut found = self.upstream.alloc_committed(request.class, request.size());
        if let Some(turn) = &turn
            && found.is_none()
            && self.claim_pass()
            && self.drain(turn, Reclaim::Aged, Some(request.timeline)) > 0
        {
            source = Source::Drained;
            found = self.upstream.alloc_committed(request.class, request.size());
        }
        drop(turn);
        if let Some(block) = found {
            self.counters.count(source);
            return self.adopt(block, &request);
        }
        self.check_fault()?;
        match self.upstream.alloc(request.class, request.size(), request.asked) {
            Ok(block) => {
                self.counters.count(Source::Grown);
                self.adopt(block, &request)
            }
            Err(AllocError::Exhausted(state)) => self.reclaim(&request, state),
            Err(other) => Err(other),
        }
    }

    /// Allocates although the limit is reached, or the driver has no memory for more.
    fn reclaim(&self, request: &Request<'_>, mut state: Exhaustion) -> Result<u32, AllocError> {
        let _range = range!("pool::reclaim", request.asked);
        let until = Instant::now().checked_add(self.wait);
        self.upstream.flush_thread_cache();
        if let Ok(block) = self.upstream.alloc(request.class, request.size(), request.asked) {
            self.counters.count(Source::Caches);
            return self.adopt(block, request);
        }
        if let Some(index) = self.retry(request, &mut state)? {
            self.counters.count(Source::Retried);
            return Ok(index);
        }
        if let Some(index) = self.take_in_use(request)? {
            self.counters.count(Source::CrossStream);
            return Ok(index);
        }
        if let Some((index, source)) = self.wait_and_retry(request, until, &mut state)? {
            self.counters.count(source);
            return Ok(index);
        }
        let explain = |state: Exhaustion| {
            // Blocks that no handle holds count as live in the slabs.
            let retired = self.retired();
            let live = state.live.saturating_sub(retired);
            Exhaustion { size: request.asked, retired, live, ..state }
        };
        if self.hook.as_ref().is_some_and(|hook| (hook.0)(&Pressure { state: explain(state) })) {
            let freed = match self.retry(request, &mut state)? {
                // What the hook has dropped may still be in use.
                None => self.wait_and_retry(request, until, &mut state)?.map(|(index, _)| index),
                found => found,
            };
            if let Some(index) = freed {
                self.counters.count(Source::Hook);
                return Ok(index);
            }
        }
        self.counters.count(Source::Exhausted);
        let physical = state.cause.and_then(|_| self.upstream.resource().physical_memory());
        Err(AllocError::Exhausted(Exhaustion { physical, ..explain(state) }))
    }

    /// Looks everywhere, after everything that is complete has been given back. In vain, `state` is
    /// why.
    fn retry(
        &self,
        request: &Request<'_>,
        state: &mut Exhaustion,
    ) -> Result<Option<u32>, AllocError> {
        let turn = loop {
            match self.turn() {
                Some(turn) => break turn,
                None => thread::yield_now(),
            }
        };
        if let Some(index) = self.gather(&turn, request, true) {
            self.begin_behind(index, request.slot, request.asked);
            return Ok(Some(index));
        }
        self.drain(&turn, Reclaim::All, Some(request.timeline));
        drop(turn);
        // Small blocks went to this thread's cache, and what they lie in is to be of use to others.
        self.upstream.flush_thread_cache();
        self.check_fault()?;
        match self.upstream.alloc(request.class, request.size(), request.asked) {
            Ok(block) => self.adopt(block, request).map(Some),
            Err(AllocError::Exhausted(why)) => {
                *state = why;
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Claims the pass for blocks that are not reused. Returns whether it is due.
    fn claim_pass(&self) -> bool {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.last_pass.load(Relaxed);
        now.saturating_sub(last) >= self.pass_interval
            && self.last_pass.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }

    /// Takes a block that another stream still uses, and lets the request's stream wait for that.
    fn take_in_use(&self, request: &Request<'_>) -> Result<Option<u32>, AllocError> {
        for (number, slot) in self.slots.all() {
            if number == request.slot {
                continue;
            }
            let taken = match request.list() {
                LARGE_LIST => self.pop_large(number, request.size()),
                list => slot.lists[list].pop(|index| self.records.link(index)),
            };
            let Some(index) = taken else { continue };
            let record = self.records.get(index);
            let uses = record.uses();
            // All of them: a list holds records of one stream, but a record may name it twice.
            let ordered = uses
                .map(|of| self.order(of, request.stream))
                .try_fold(true, |all, one| Ok(all && one?));
            match ordered {
                Ok(true) => {
                    // The wait is the stream's own use: with it the block is free for this stream
                    // when it is dropped, used or not, and for others when the device is past both.
                    self.clear_uses(record);
                    record.uses[0].store(self.use_now(request.slot, request.timeline), Relaxed);
                    self.begin_behind(index, request.slot, request.asked);
                    return Ok(Some(index));
                }
                Ok(false) => self.retire(index),
                Err(error) => {
                    self.retire(index);
                    self.note_error(error);
                    return Err(error.into());
                }
            }
        }
        Ok(None)
    }

    /// Lets the host wait for the device, as long as the options allow; what came of it, and how.
    fn wait_and_retry(
        &self,
        request: &Request<'_>,
        until: Option<Instant>,
        state: &mut Exhaustion,
    ) -> Result<Option<(u32, Source)>, AllocError> {
        loop {
            // An end beyond what can be counted is none.
            let left =
                until.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            match self.wait_for_one(left) {
                Ok(true) => {}
                // What was in use at the last look may be complete by now.
                Ok(false) if self.retired() > 0 => {
                    return Ok(self.retry(request, state)?.map(|index| (index, Source::Retried)));
                }
                Ok(false) | Err(WaitError::Deadline(_)) => return Ok(None),
                Err(WaitError::Driver(error)) => {
                    self.note_error(error);
                    return Err(error.into());
                }
            }
            if let Some(index) = self.retry(request, state)? {
                return Ok(Some((index, Source::Waited)));
            }
        }
    }

    /// Takes a large block of a stream's that wastes at most an eighth, unless a thread has the
    /// turn.
    pub(super) fn pop_large(&self, slot: usize, size: usize) -> Option<u32> {
        let list = &self.slots.get(slot).lists[LARGE_LIST];
        list.peek()?;
        self.take_first(&self.turn()?, list, |index| self.fits(index, size))
    }

    pub(super) fn check_fault(&self) -> Result<(), Error> {
        self.fault.get().map_or(Ok(()), |error| Err(*error))
    }
}
