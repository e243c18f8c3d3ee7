//! The guard of the destination: no step overwrites what still reads the step before.
//!
//! The device memory of a set is one place that every step writes, those of its
//! [`Embedded`](super::Embedded) graphs included. A step on the stream of the step before needs
//! nothing but its place there. Anything else waits, on the device, for each **use** of the last
//! step:
//!
//! | a use | the next step waits for |
//! |---|---|
//! | the last step's stream: its copy and its readers | its work when the next step is submitted |
//! | a stream that [waits](super::Staged::wait_on) for the inputs | the same |
//! | a stream with [`reader`](super::Staged::reader)s alone | the end of the last of them |
//! | a stream named in [`consumed_by`](super::Staged::consumed_by) | the point of the call |
//!
//! Components share a stream and do not know of one another, so a stream is waited for up to the
//! latest point that any of them declared: the end of a reader never narrows the first two lines.
//! `consumed_by` is for the whole stream, and does. A use that was not declared is guarded too,
//! only more widely, at the cost of asking the stream for its end. Uses of earlier steps are behind
//! those of the last one, which waited for them.
//!
//! Words and their orderings are those of [`StepWord`]; the list of uses is under a lock, which a
//! step on the stream of the step before does not take.

use std::sync::Arc;

use super::error::StageError;
use super::in_place::InPlace;
use crate::driver::{Context, Event, EventKind, EventPool};
use crate::error::{CudaError, Error};
use crate::lockfree::step_word::{Begun, StepWord};
use crate::stream::{CaptureStatus, Stream, StreamId};
use crate::sync::{Mutex, MutexGuard};
use crate::timeline::Tail;

/// The uses of the last step, which the next one has to come after.
#[derive(Debug)]
pub(crate) struct Guard {
    steps: StepWord,
    uses: Mutex<Uses>,
    /// For where reads end.
    events: EventPool,
    context: Context,
    /// Whether ring slots are read in place: then each use has to end in an event.
    has_in_place: bool,
}

#[derive(Debug)]
struct Uses {
    /// One of each stream that uses what was staged last.
    list: Vec<Use>,
    /// The readers of the last step's ring slot, where it is read in place.
    in_place: Option<Arc<InPlace>>,
    /// Where its uses end, as the next step has found them.
    ends: Ends,
}

/// The use of the last step by one stream.
#[derive(Debug)]
struct Use {
    stream: StreamId,
    /// The stream's handle, as a number, for errors.
    name: usize,
    /// Where all its work ends, also when the stream object is gone.
    tail: Tail,
    /// Readers that have not ended.
    open: usize,
    /// Whether the last step went to it: what reads the inputs there is behind the copy, and
    /// declared by nothing.
    is_own: bool,
    /// Whether it waits for the inputs, by [`wait_on`](super::Staged::wait_on) or because a reader
    /// did not find its end.
    is_waiting: bool,
    /// Whether a reader did not find its end.
    is_end_lost: bool,
    /// Where the declared reads end; without one, all that the stream is given reads.
    end: Option<Arc<Event>>,
    /// The step that has ordered itself behind this use, but may not have come to its stream.
    behind: u64,
}

/// Where uses end.
pub(super) type Ends = Vec<Arc<Event>>;

impl Guard {
    pub(crate) fn new(context: &Context, has_in_place: bool) -> Self {
        let uses = Uses { list: Vec::with_capacity(FEW), in_place: None, ends: Vec::new() };
        Self {
            steps: StepWord::new(),
            uses: Mutex::new(uses),
            events: EventPool::new(context, EventKind::Ordering, FEW),
            context: context.clone(),
            has_in_place,
        }
    }

    /// Makes what `stream` is given from here on wait for all uses of the last step, and begins the
    /// next. A step on the last step's stream makes no driver call. One that does not come to its
    /// stream is [taken back](Self::undo).
    ///
    /// # Errors
    ///
    /// * [`StageError::ReaderOpen`]: a reader has not ended.
    /// * [`StageError::ReaderCaptured`]: a stream that uses the last step cannot say where its use
    ///   ends.
    /// * [`StageError::OtherDevice`]: `stream` is of another device.
    /// * [`StageError::Driver`]: the driver refused.
    ///
    /// The step has then not happened; `stream` may wait for some of the uses.
    #[inline]
    pub(crate) fn begin(&self, stream: &Stream) -> Result<Begun, StageError> {
        let begun = self.steps.begin(stream.id().get());
        if begun.in_order {
            return Ok(begun);
        }
        self.order_behind_uses(begun, stream).inspect_err(|_| self.undo(begun))?;
        Ok(begun)
    }

    /// Orders a step that has begun behind the uses of the one before.
    #[cold]
    fn order_behind_uses(&self, begun: Begun, stream: &Stream) -> Result<(), StageError> {
        self.context.driver().check_fork()?;
        self.check_device(stream)?;
        let mut uses = self.hold();
        let Uses { list, ends, .. } = &mut *uses;
        if let Some(open) = list.iter().find(|used| used.open != 0) {
            return Err(StageError::ReaderOpen { stream: open.name });
        }
        // Before any end is looked for, so that a step on its way to one of the streams sees it.
        self.steps.hold();
        for used in list {
            used.behind = begun.number;
            if used.stream != stream.id() {
                let end = self.end_of(used)?;
                stream.wait_event(&end)?;
                ends.extend(self.has_in_place.then_some(end));
            } else if self.has_in_place {
                ends.push(self.end_of_own(used, stream)?);
            }
        }
        Ok(())
    }

    /// Takes a step back that did not come to its stream.
    #[cold]
    pub(super) fn undo(&self, begun: Begun) {
        self.steps.undo(begun.number);
    }

    /// Whether a step that is in its stream needs no note.
    #[inline]
    pub(crate) fn is_in_order(&self, begun: Begun, stream: &Stream) -> bool {
        begun.in_order && self.steps.is_in_order(stream.id().get())
    }

    /// Takes note of a step that is in its stream; `in_place` reads its ring slot.
    #[cold]
    pub(crate) fn launched(&self, begun: Begun, stream: &Stream, in_place: Option<&Arc<InPlace>>) {
        let mut uses = self.hold();
        if !begun.in_order {
            // What others have noted since stays: this step is not behind it.
            uses.list.retain(|used| used.behind != begun.number);
        }
        let own = uses.of(stream);
        (own.end, own.behind, own.is_own) = (None, 0, true);
        (own.is_waiting, own.is_end_lost) = (false, false);
        if let Some(in_place) = in_place {
            let Uses { in_place: last, ends, .. } = &mut *uses;
            if let Some(before) = last.replace(Arc::clone(in_place)) {
                before.finish(ends.drain(..));
            }
        }
        if uses.list.len() == 1 && !self.has_in_place {
            self.steps.settle(stream.id().get());
        } else {
            self.steps.hold();
        }
    }

    /// Takes note that `stream` waits for, and uses, step `number`, which went to
    /// `own` and whose copies `copied` ends, or the end of `own` where nothing else does; as a
    /// reader if `is_reader`.
    pub(crate) fn note(
        &self,
        number: u64,
        own: StreamId,
        stream: &Stream,
        copied: Option<&Event>,
        is_reader: bool,
    ) -> Result<(), StageError> {
        self.check_device(stream)?;
        let mut uses = self.hold();
        if !self.steps.note(number) {
            return Err(StageError::Superseded);
        }
        if stream.id() != own {
            match copied {
                Some(copied) => stream.wait_event(copied)?,
                None => stream.wait_event(&*self.end_of_stream(&uses, own)?)?,
            }
        }
        let used = uses.of(stream);
        // What was declared before does not cover what comes now.
        used.end = None;
        if !is_reader {
            used.is_waiting = true;
            return Ok(());
        }
        used.open += 1;
        if let Some(in_place) = &uses.in_place {
            in_place.open();
        }
        Ok(())
    }

    /// Ends a reader here, if that `is_allowed`: what comes later in `stream` does not read. Where
    /// it fails, the stream is one that waits.
    pub(super) fn end(
        &self,
        stream: &Stream,
        is_allowed: Result<(), StageError>,
    ) -> Result<(), StageError> {
        let mut uses = self.hold();
        let Uses { list, in_place, .. } = &mut *uses;
        // A step cannot begin beside an open reader, so its use is there.
        let Some(used) = list.iter_mut().find(|used| used.stream == stream.id()) else {
            return Ok(());
        };
        used.open = used.open.saturating_sub(1);
        let end = is_allowed.and_then(|()| self.end_here(stream));
        if end.is_err() {
            used.lose_end(in_place.as_deref());
        }
        if let Some(in_place) = in_place {
            in_place.close(end.as_ref().ok());
        }
        let end = end?;
        // Another reader of the stream that is open ends later, and then stands for both. What was
        // not declared may come at any time.
        used.end = (used.open == 0 && !used.is_own && !used.is_waiting).then_some(end);
        Ok(())
    }

    /// Takes note that what `stream` was given so far reads step `number`, and nothing that comes
    /// later. `in_place` reads the step's ring slot, which may have later steps in other ring
    /// slots.
    pub(super) fn consumed(
        &self,
        number: u64,
        stream: &Stream,
        in_place: Option<&InPlace>,
    ) -> Result<(), StageError> {
        self.check_device(stream)?;
        let mut uses = self.hold();
        if !self.steps.is_last(number) && in_place.is_none() {
            return Err(StageError::Superseded);
        }
        let end = self.end_here(stream)?;
        if let Some(in_place) = in_place {
            in_place.read_until(&end);
        }
        if self.steps.note(number) {
            let used = uses.of(stream);
            used.end = (used.open == 0).then_some(end);
            (used.is_own, used.is_waiting) = (false, false);
            if std::mem::take(&mut used.is_end_lost)
                && let Some(in_place) = in_place
            {
                in_place.find_end();
            }
        } else if in_place.is_none() {
            return Err(StageError::Superseded);
        }
        Ok(())
    }

    /// Where the uses of the last step end, if `in_place` is of it and nothing was declared to read
    /// it.
    pub(super) fn ends_of_last(&self, in_place: &Arc<InPlace>) -> Result<Ends, StageError> {
        let uses = self.hold();
        if !uses.in_place.as_ref().is_some_and(|last| Arc::ptr_eq(last, in_place)) {
            return Ok(Vec::new());
        }
        uses.list.iter().map(|used| self.end_of(used)).collect()
    }

    /// Where the uses of the last step end, and with them all steps.
    pub(super) fn ends(&self) -> Result<Ends, StageError> {
        self.hold().list.iter().map(|used| self.end_of(used)).collect()
    }

    /// Refuses a stream of another device, which may not reach the memory. A stream that was
    /// accepted once is not looked at again while steps go to it.
    pub(super) fn check_device(&self, stream: &Stream) -> Result<(), StageError> {
        check_device(&self.context, stream)
    }

    /// Where a use ends, for a stream of which only its tail is at hand.
    fn end_of(&self, used: &Use) -> Result<Arc<Event>, StageError> {
        if let Some(end) = &used.end {
            return Ok(Arc::clone(end));
        }
        used.tail.event()?.ok_or(StageError::ReaderCaptured { stream: used.name })
    }

    /// Where all work ends of the stream that the last step went to.
    #[cold]
    fn end_of_stream(&self, uses: &Uses, own: StreamId) -> Result<Arc<Event>, StageError> {
        let Some(used) = uses.list.iter().find(|used| used.stream == own) else {
            return Err(StageError::Superseded);
        };
        used.tail.event()?.ok_or(StageError::ReaderCaptured { stream: used.name })
    }

    /// As `end_of`, for the stream that is at hand.
    fn end_of_own(&self, used: &Use, stream: &Stream) -> Result<Arc<Event>, StageError> {
        used.end.as_ref().map_or_else(|| self.end_here(stream), |end| Ok(Arc::clone(end)))
    }

    /// Records an event at this point of `stream`.
    ///
    /// An event of a capture that was not known of cannot stand for it: it would pull every stream
    /// that waits for it into the capture, and be invalid for ever when the capture ends. So the
    /// stream's status is asked behind the record, where a capture that began in between counts,
    /// too.
    fn end_here(&self, stream: &Stream) -> Result<Arc<Event>, StageError> {
        let event = self.events.event()?;
        stream.record(&event)?;
        if stream.capture_status()? == CaptureStatus::Inactive {
            return Ok(Arc::new(event));
        }
        let call = self.context.driver().api().event_record.name();
        Err(Error::Driver { call, code: CudaError::STREAM_CAPTURE_UNSUPPORTED }.into())
    }

    fn hold(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock()
    }
}

impl Use {
    /// Takes note that a reader's end was not found; `in_place` reads the step's ring slot.
    fn lose_end(&mut self, in_place: Option<&InPlace>) {
        self.is_waiting = true;
        if !std::mem::replace(&mut self.is_end_lost, true)
            && let Some(in_place) = in_place
        {
            in_place.lose_end();
        }
    }
}

impl Uses {
    /// The use of a stream, which is added if there is none.
    fn of(&mut self, stream: &Stream) -> &mut Use {
        let id = stream.id();
        let at = self.list.iter().position(|used| used.stream == id).unwrap_or_else(|| {
            let (name, tail) = (stream.as_raw().addr(), stream.tail());
            self.list.push(Use {
                stream: id,
                name,
                tail,
                open: 0,
                is_own: false,
                is_waiting: false,
                is_end_lost: false,
                end: None,
                behind: 0,
            });
            self.list.len() - 1
        });
        &mut self.list[at]
    }
}

/// Refuses a stream of another device than the context's.
#[inline]
pub(super) fn check_device(context: &Context, stream: &Stream) -> Result<(), StageError> {
    let [wanted, given] = [context, stream.context()].map(|context| context.device().ordinal());
    if wanted == given { Ok(()) } else { Err(StageError::OtherDevice { wanted, given }) }
}

/// Streams that use one step, as engines have them.
const FEW: usize = 8;
