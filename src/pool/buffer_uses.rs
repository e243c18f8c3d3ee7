//! Uses of a buffer by work in streams.

use super::buffer::Buffer;
use super::record::Use;
use super::stream_slot::Seat;
use crate::element::Element;
use crate::error::{CudaError, Error};
use crate::stream::Stream;
use crate::sync::atomic::Ordering::Relaxed;
use crate::timeline::Timeline;

impl<T: Element> Buffer<T> {
    /// Makes work submitted to `stream` from here on wait, on the device, for what earlier owners
    /// of the memory have submitted. No driver call where nothing is left of that, and none for the
    /// stream that the buffer was allocated for.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with
    /// [`STREAM_CAPTURE_ISOLATION`](crate::CudaError::STREAM_CAPTURE_ISOLATION): one of the streams
    /// is being captured.
    pub fn acquire(&self, stream: &Stream) -> Result<(), Error> {
        let (slot, _) = self.slot_of(stream)?;
        self.order(slot, stream)
    }

    /// Whether the device is known to be past all uses. Makes no driver call; it may stay `false`
    /// until something [asks](Self::poll) or [waits](Self::wait).
    pub fn is_idle(&self) -> bool {
        self.core().is_idle(self.record())
    }

    /// The slot and timeline of a stream, before anything is submitted to it.
    #[inline]
    pub(super) fn slot_of<'a>(
        &'a self,
        stream: &'a Stream,
    ) -> Result<(Seat<'a>, &'a Timeline), Error> {
        let timeline = stream.timeline()?;
        Ok((self.core().slot_of(timeline)?, timeline))
    }

    /// Orders a stream behind the earlier owners of the memory.
    pub(super) fn order(&self, slot: Seat<'_>, stream: &Stream) -> Result<(), Error> {
        let record = self.record();
        let Some(of) = Use::unpack(record.inherited.load(Relaxed)) else { return Ok(()) };
        let is_own = [of.slot, record.home()].contains(&(slot.number as usize));
        if is_own || self.core().order(of, stream)? {
            return Ok(());
        }
        let call = stream.context().driver().api().stream_wait_event.name();
        Err(Error::Driver { call, code: CudaError::STREAM_CAPTURE_ISOLATION })
    }

    /// Notes a use by work that was submitted to a stream.
    #[inline]
    pub(super) fn note(
        &self,
        slot: Seat<'_>,
        timeline: &Timeline,
        stream: &Stream,
    ) -> Result<(), Error> {
        self.core().note_use(self.record(), slot, timeline, stream)
    }
}
