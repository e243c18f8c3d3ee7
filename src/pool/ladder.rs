//! Where memory comes from when the stream has none of its own, in order of preference.
//!
//! ```text
//!   1  a block of the class that another stream has used, and the device is past
//!   2  a block of the slabs that is committed and free
//!   3  the same, after blocks that nobody wanted for some time have been given back to the slabs
//!   4  growth
//!      --- the limit is reached ---
//!   5  what this thread keeps in its cache of the slabs
//!   6  the same as 1 to 4, after everything that is complete has been given back; waits for a thread
//!      that has lists in hand
//!   7  a block that another stream still uses: this stream waits for it, on the device
//!   8  as 6, after the host waited for the device, if the options allow
//!   9  as 6, after the caller's hook freed something
//!  10  AllocError::Exhausted
//! ```
//!
//! Blocks that a stream uses again and again stay with it, though it may be done with them when
//! another wants memory: giving them back would be a driver call each way. Trimming other classes is part
//! of 4: the slabs release what is empty before they give up.

use std::time::Instant;

use super::core::{Core, Request};
use super::drain::Which;
use super::options::Pressure;
use super::record::LARGE_LIST;
use super::stats::Rung;
use crate::error::Error;
use crate::profile::range;
use crate::slab::{AllocError, Exhaustion};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread;
use crate::timeline::WaitError;

impl Core {
    /// Allocates for a stream that has nothing of the class.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, request: Request<'_>) -> Result<u32, AllocError> {
        let _range = range!("wharf::pool::alloc");
        let turn = self.turn();
        let gathered = turn.as_ref().and_then(|turn| self.gather(turn, &request, false));
        if let Some(index) = gathered {
            // It may have come from the stream itself meanwhile, with a use that is not over.
            self.begin_behind(index, request.lane, request.asked);
            self.counters.rung(Rung::Completed);
            return Ok(index);
        }
        let mut rung = Rung::Committed;
        let mut found = self.upstream.alloc_committed(request.size);
        if let Some(turn) = &turn
            && found.is_none()
            && self.is_pass_due()
            && self.drain(turn, Which::Aged, Some(request.timeline)) > 0
        {
            rung = Rung::Drained;
            found = self.upstream.alloc_committed(request.size);
        }
        drop(turn);
        if let Some(raw) = found {
            self.counters.rung(rung);
            return self.adopt(raw, &request);
        }
        self.check_fault()?;
        match self.upstream.alloc(request.size) {
            Ok(raw) => {
                self.counters.rung(Rung::Grown);
                self.adopt(raw, &request)
            }
            Err(AllocError::Exhausted(state)) => self.reclaim(&request, state),
            Err(other) => Err(other),
        }
    }

    /// Allocates although the limit is reached.
    fn reclaim(&self, request: &Request<'_>, state: Exhaustion) -> Result<u32, AllocError> {
        let _range = range!("wharf::pool::reclaim");
        self.upstream.flush_thread_cache();
        if let Ok(raw) = self.upstream.alloc(request.size) {
            self.counters.rung(Rung::Caches);
            return self.adopt(raw, request);
        }
        if let Some(index) = self.retry(request)? {
            self.counters.rung(Rung::Retried);
            return Ok(index);
        }
        if let Some(index) = self.steal(request)? {
            self.counters.rung(Rung::CrossStream);
            return Ok(index);
        }
        if let Some(index) = self.wait_and_retry(request)? {
            self.counters.rung(Rung::Waited);
            return Ok(index);
        }
        let retired = self.retired();
        let state = Exhaustion { retired, live: state.live.saturating_sub(retired), ..state };
        if self.hook.as_ref().is_some_and(|hook| (hook.0)(&Pressure { state }))
            && let Some(index) = self.retry(request)?
        {
            self.counters.rung(Rung::Hook);
            return Ok(index);
        }
        self.counters.rung(Rung::Exhausted);
        Err(AllocError::Exhausted(state))
    }

    /// Looks everywhere, after everything that is complete has been given back.
    fn retry(&self, request: &Request<'_>) -> Result<Option<u32>, AllocError> {
        let turn = loop {
            match self.turn() {
                Some(turn) => break turn,
                None => thread::yield_now(),
            }
        };
        if let Some(index) = self.gather(&turn, request, true) {
            self.begin_behind(index, request.lane, request.asked);
            return Ok(Some(index));
        }
        self.drain(&turn, Which::All, Some(request.timeline));
        drop(turn);
        self.check_fault()?;
        match self.upstream.alloc(request.size) {
            Ok(raw) => self.adopt(raw, request).map(Some),
            Err(AllocError::Exhausted(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Whether it is time to look for blocks that nobody wants any more.
    fn is_pass_due(&self) -> bool {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.last_pass.load(Relaxed);
        now.saturating_sub(last) >= self.pass_interval
            && self.last_pass.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }

    /// Takes a block that another stream still uses, and lets the request's stream wait for that.
    fn steal(&self, request: &Request<'_>) -> Result<Option<u32>, AllocError> {
        for (number, lane) in self.lanes.all() {
            if number == request.lane {
                continue;
            }
            let taken = match request.list {
                LARGE_LIST => self.pop_large(number, request.size),
                list => lane.lists[list].pop(|index| self.records.link(index)),
            };
            let Some(index) = taken else { continue };
            let uses = self.records.get(index).uses();
            // All of them: a list holds records of one stream, but a record may name it twice.
            let ordered =
                uses.map(|of| self.order(of, request.stream)).try_fold(true, |all, one| Ok(all && one?));
            match ordered {
                Ok(true) => {
                    self.begin_behind(index, request.lane, request.asked);
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

    /// Lets the host wait for the device, as long as the options allow.
    fn wait_and_retry(&self, request: &Request<'_>) -> Result<Option<u32>, AllocError> {
        let start = Instant::now();
        loop {
            let left = self.wait.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            match self.wait_for_one(left) {
                Ok(true) => {}
                Ok(false) | Err(WaitError::Deadline(_)) => return Ok(None),
                Err(WaitError::Driver(error)) => {
                    self.note_error(error);
                    return Err(error.into());
                }
            }
            if let Some(index) = self.retry(request)? {
                return Ok(Some(index));
            }
        }
    }

    /// Takes a large block of a stream's that wastes at most an eighth, unless a thread has the turn.
    pub(super) fn pop_large(&self, lane: usize, size: usize) -> Option<u32> {
        let list = &self.lanes.get(lane).lists[LARGE_LIST];
        list.peek()?;
        self.take_first(&self.turn()?, list, |index| self.fits(index, size))
    }

    pub(super) fn check_fault(&self) -> Result<(), Error> {
        self.fault.get().map_or(Ok(()), |error| Err(*error))
    }
}
