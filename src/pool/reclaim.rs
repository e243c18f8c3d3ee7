//! Where memory comes from when the stream has none of its own, in order of preference.
//!
//! ```text
//!   1  a block of the class that another stream has used, and the device is past
//!   2  what is committed and free, for a large block jointly with what the stream has retired
//!   3  the same, after everything that is complete has been given back
//!   4  growth
//!      --- the limit is reached, or the driver has no memory for more ---
//!   5  the same as 1 to 4 once more; waits for a thread that has lists in hand
//!   6  what another stream still uses, of any size: this stream waits for it, on the device
//!   7  as 5, after the host waited for the device, if the options allow
//!   8  as 5 and 7, after the caller's hook freed something
//!   9  AllocError::Exhausted
//! ```
//!
//! Trimming is part of 4: the slabs release pieces of which all is free before they give up, to the
//! driver too, which other pools and processes take memory from.

use std::panic::Location;
use std::time::{Duration, Instant};

use super::core::{Core, Request};
use super::drain::{Drained, Reclaim};
use super::pressure::Pressure;
use super::record::BufferRecord;
use super::stats::Source;
use crate::error::Error;
use crate::profile::{Range, range};
use crate::slab::{AllocError, Exhaustion};
use crate::stream::Stream;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread;
use crate::timeline::WaitError;

impl Core {
    /// Allocates where it takes more than a block of a class that the stream has dropped.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(
        &self,
        size: usize,
        stream: &Stream,
        site: &'static Location<'static>,
    ) -> Result<(u32, &BufferRecord), AllocError> {
        let request = self.request(size, stream)?;
        let (index, record) = match self.pop_kept(&request) {
            Some(kept) => kept,
            None => {
                let index = self.alloc_anew(&request)?;
                (index, self.records.get(index))
            }
        };
        if let Some(track) = &self.track {
            track.note(index, site);
        }
        Ok((index, record))
    }

    /// Allocates for a stream that has nothing of the size.
    fn alloc_anew(&self, request: &Request<'_>) -> Result<u32, AllocError> {
        let _range = Range::enter(&self.alloc_range, Some(request.asked));
        if let Some(index) = self.turn().and_then(|turn| self.gather(&turn, request, false)) {
            // It may have come from the stream itself meanwhile, with a use that is not over.
            self.begin_behind(self.records.get(index), request.seat.number, request.asked);
            self.counters.count(Source::Completed);
            return Ok(index);
        }
        self.check_fault()?;
        self.fold(request.slot());
        self.mark_now_and_then(request).inspect_err(|error| self.note_error(*error))?;
        self.poll();
        if let Some(block) = self.upstream.alloc_committed(request.block())? {
            self.counters.count(Source::Committed);
            return self.adopt(block, request);
        }
        if let Some(turn) = self.turn().filter(|_| self.claim_pass()) {
            let which = if self.pass_interval == 0 { Reclaim::All } else { Reclaim::Aged };
            self.drain(&turn, which, Some(request.timeline));
            drop(turn);
            self.check_fault()?;
            if let Some(block) = self.upstream.alloc_committed(request.block())? {
                self.counters.count(Source::Drained);
                return self.adopt(block, request);
            }
        }
        match self.upstream.alloc(request.block()) {
            Ok(block) => {
                self.counters.count(Source::Grown);
                self.adopt(block, request)
            }
            Err(AllocError::Exhausted(state)) => self.reclaim(request, state),
            Err(other) => Err(other),
        }
    }

    /// Allocates although the limit is reached, or the driver has no memory for more.
    fn reclaim(&self, request: &Request<'_>, state: Exhaustion) -> Result<u32, AllocError> {
        let _range = range!("pool::reclaim", request.asked);
        let until = Instant::now().checked_add(self.wait);
        let mut state = (state, Drained::default());
        if let Some(index) = self.retry(request, &mut state)? {
            self.counters.count(Source::Retried);
            return Ok(index);
        }
        if let Some(index) = self.take_in_use(request, &mut state.1)? {
            self.counters.count(Source::CrossStream);
            return Ok(index);
        }
        if let Some((index, source)) = self.wait_and_retry(request, until, &mut state)? {
            self.counters.count(source);
            return Ok(index);
        }
        let explain = |(state, left): (Exhaustion, Drained)| {
            // Blocks that no handle holds count as live in the slabs, but for those in the map.
            let live = self.upstream.taken().saturating_sub(left.in_lists);
            let retired = left.in_lists + self.upstream.retired();
            Exhaustion { size: request.asked, retired, live, ..state }
        };
        if self.hook.as_ref().is_some_and(|hook| hook.ask(&Pressure { state: explain(state) })) {
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
        let physical = state.0.cause.and_then(|_| self.upstream.resource().physical_memory());
        Err(AllocError::Exhausted(Exhaustion { physical, ..explain(state) }))
    }

    /// Looks everywhere, after everything that is complete has been given back. In vain, `state` is
    /// why, and what is left.
    fn retry(
        &self,
        request: &Request<'_>,
        state: &mut (Exhaustion, Drained),
    ) -> Result<Option<u32>, AllocError> {
        let turn = loop {
            match self.turn() {
                Some(turn) => break turn,
                None => thread::yield_now(),
            }
        };
        if let Some(index) = self.gather(&turn, request, true) {
            self.begin_behind(self.records.get(index), request.seat.number, request.asked);
            return Ok(Some(index));
        }
        state.1 = self.drain(&turn, Reclaim::All, Some(request.timeline));
        drop(turn);
        self.check_fault()?;
        match self.upstream.alloc(request.block()) {
            Ok(block) => self.adopt(block, request).map(Some),
            Err(AllocError::Exhausted(why)) => {
                state.0 = why;
                // What the stream has retired serves a small block as a run of its own.
                let found = self.upstream.alloc_committed(request.alone())?;
                found.map(|block| self.adopt(block, request)).transpose()
            }
            Err(other) => Err(other),
        }
    }

    /// Allocates a run of its own, with what the stream has been given.
    pub(super) fn alloc_alone(&self, request: &Request<'_>) -> Result<Option<u32>, AllocError> {
        match self.upstream.alloc(request.alone()) {
            Ok(block) => self.adopt(block, request).map(Some),
            Err(AllocError::Exhausted(_)) => Ok(None),
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

    /// Takes memory that another stream still uses, and lets the request's stream wait for that.
    fn take_in_use(
        &self,
        request: &Request<'_>,
        left: &mut Drained,
    ) -> Result<Option<u32>, AllocError> {
        if request.class.is_none() {
            return self.take_over(request, left);
        }
        for (number, slot) in self.slots.all() {
            if number == request.slot() {
                continue;
            }
            let list = &slot.lists[request.list()];
            let Some(index) = list.pop(|index| self.records.link(index)) else { continue };
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
                    let wait = request.seat.use_now(request.timeline);
                    record.set_use(Some(wait));
                    self.begin_behind(record, request.seat.number, request.asked);
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
        self.take_over(request, left)
    }

    /// Lets the host wait for the device, as long as the options allow; what came of it, and how.
    fn wait_and_retry(
        &self,
        request: &Request<'_>,
        until: Option<Instant>,
        state: &mut (Exhaustion, Drained),
    ) -> Result<Option<(u32, Source)>, AllocError> {
        // What was left at the last look that found nothing to wait for.
        let mut least = usize::MAX;
        loop {
            // An end beyond what can be counted is none.
            let left =
                until.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            let source = match self.wait_for_one(&state.1, left) {
                Ok(true) => {
                    least = usize::MAX;
                    Source::Waited
                }
                // What was in use at the last look may be complete by now, and hide that what was
                // retired after it is not: once that is given back, the next look tells.
                Ok(false) => {
                    let retired = state.1.in_lists + self.upstream.retired();
                    if retired == 0 || retired >= least {
                        return Ok(None);
                    }
                    least = retired;
                    Source::Retried
                }
                Err(WaitError::Deadline(_)) => return Ok(None),
                Err(WaitError::Driver(error)) => {
                    self.note_error(error);
                    return Err(error.into());
                }
            };
            if let Some(index) = self.retry(request, state)? {
                return Ok(Some((index, source)));
            }
        }
    }

    pub(super) fn check_fault(&self) -> Result<(), Error> {
        self.gate.check()
    }
}
