//! A stream that reads what was staged.

use std::fmt;
use std::sync::Arc;

use super::error::StageError;
use super::shared::Shared;
use crate::stream::Stream;

/// A read of a step's inputs: what a stream is given between
/// [`Staged::reader`](super::Staged::reader) and the drop of this, or [`end`](Self::end).
///
/// There may be several at once, on one stream or on many; none waits for another. The next step
/// waits for all, on the device, and can be submitted when they have ended. One that is leaked
/// never ends: then no step can be submitted any more.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
/// use wharf::staging::{InputBuffers, Len};
///
/// let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
/// let inputs = inputs.buckets([4, 8]).build()?;
/// let ids = inputs.slot_id::<i32>("ids")?;
/// let (copies, model) = (Stream::new(&context)?, Stream::new(&context)?);
/// for number in 0..3 {
///     let mut step = inputs.begin(4, 1)?;
///     step.write(ids).fill(number);
///     // Waits, on the device, for the model of the step before.
///     let staged = step.submit(&copies)?;
///     let read = staged.reader(&model)?;
///     // The model is launched here, on its stream.
///     let _address = staged.device_ptr(ids);
///     read.end()?;
/// }
/// # model.synchronize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the read ends when this is dropped"]
pub struct Reader<'a> {
    shared: &'a Shared,
    stream: &'a Stream,
    is_over: bool,
    /// Present where the step owned its share of the set, or the reader does. Last: fields are
    /// dropped in their order.
    keep: (Option<Arc<Stream>>, Option<Arc<Shared>>),
}

impl<'a> Reader<'a> {
    pub(super) fn new(shared: &'a Shared, stream: &'a Stream) -> Self {
        Self { shared, stream, is_over: false, keep: (None, None) }
    }

    /// Keeps the set, and its stream if it is given.
    pub(super) fn kept_by(
        mut self,
        shared: Option<Arc<Shared>>,
        stream: Option<Arc<Stream>>,
    ) -> Self {
        self.keep = (stream, shared);
        self
    }

    /// The stream that reads.
    pub fn stream(&self) -> &Stream {
        self.stream
    }

    /// Ends the read: what the stream is given from here on does not read the inputs
    /// for this reader. Two driver calls.
    ///
    /// The next step waits for no more of the stream, unless something else reads there:
    /// [`Staged`](super::Staged) says how readers, waits and the step's own stream go together.
    ///
    /// The end of a stream that is being captured would be a place in the graph and not in the
    /// stream, and is an error. Where the capture is known of, nothing is put into it. Where it is
    /// not, it is found behind the record of an event, which adds no node to the graph.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the driver refused, or the stream is being captured, or it is the
    /// default stream of another thread ([`Error::OtherThread`](crate::Error::OtherThread)). The
    /// reader has ended all the same: the next step then waits for all work of the stream until
    /// that step is submitted, as after [`wait_on`](super::Staged::wait_on).
    #[doc(alias = "cuEventRecord")]
    #[doc(alias = "cuStreamIsCapturing")]
    pub fn end(mut self) -> Result<(), StageError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), StageError> {
        if std::mem::replace(&mut self.is_over, true) {
            return Ok(());
        }
        let shared = self.shared;
        shared.check_fork()?;
        let is_allowed = shared.refuse_capture(self.stream, |api| api.event_record.name());
        shared.guard.end(self.stream, is_allowed)
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Err(StageError::Driver(error)) = self.finish() {
            self.shared.context.release().note(self.shared.context.driver(), Err(error));
        }
    }
}
