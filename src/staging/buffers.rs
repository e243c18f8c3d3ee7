//! Sets of input buffers.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::error::StageError;
use super::graphs::GraphsKept;
use super::len::Counts;
use super::read_events::ReadEvents;
use super::shared::Shared;
use super::slot_error::SlotError;
use super::slot_id::{CountId, SlotId, Untagged};
use super::step::Step;
use super::submission::Submitting;
use crate::driver::Context;
use crate::element::Element;
use crate::profile::range;

/// The inputs of an engine's steps: host slots to write, and device memory at addresses that never
/// change.
///
/// Steps may be begun and filled on several threads. Steps that are submitted to different streams
/// are ordered one behind the other if they are submitted one after the other.
///
/// Dropping it waits, without a deadline, for what the device is to do with the memory: the copies
/// of steps in flight, and the reads of zero-copy slots. A step whose launch went into a capture,
/// or was never made, has nothing for the device to do and is not waited for: its graph must not be
/// launched. Where the driver cannot say, pinned memory is leaked, and [`Context::drop_errors`]
/// counts it.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
/// use wharf::staging::{InputBuffers, Len, Pad};
///
/// let inputs = InputBuffers::builder(&context)
///     .slot::<i32>("input_ids", Len::Tokens)
///     .slot_padded::<i64>("slot_mapping", Len::Tokens, Pad::Value(-1))
///     .slot::<i32>("seq_lens", Len::Requests)
///     .buckets([1, 2, 4, 8, 16])
///     .build()?;
/// let ids = inputs.slot_id::<i32>("input_ids")?;
/// let mapping = inputs.slot_id::<i64>("slot_mapping")?;
/// let lens = inputs.slot_id::<i32>("seq_lens")?;
///
/// let stream = Stream::new(&context)?;
/// let mut step = inputs.begin(5, 2)?;
/// step.write(ids).copy_from_slice(&[1, 2, 3, 4, 5]);
/// step.write_from(mapping, &[7, 8, 9, 10, 11])?;
/// step.write(lens).fill(3);
/// let staged = step.submit(&stream)?;
/// assert_eq!((staged.padded().tokens, staged.padded().requests), (8, 8));
/// // The engine's graph reads here, behind the copy, on the same stream.
/// let _address = staged.device_ptr(ids);
/// # stream.synchronize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[doc(alias = "InputBufferManager")]
pub struct InputBuffers<Tag = Untagged> {
    pub(super) shared: Arc<Shared>,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> InputBuffers<Tag> {
    /// The slot of that name, to be used in steps.
    ///
    /// # Errors
    ///
    /// [`SlotError`]: no slot has the name, or its elements are of another type.
    #[doc(alias = "get_slot")]
    pub fn slot_id<T: Element>(&self, name: &str) -> Result<SlotId<T, Tag>, SlotError> {
        SlotId::of(&self.shared.plan, name)
    }

    /// The count of that name, to be set in steps.
    ///
    /// # Errors
    ///
    /// [`SlotError::UnknownCount`]: no count has the name.
    pub fn count_id(&self, name: &str) -> Result<CountId<Tag>, SlotError> {
        let index = self.shared.plan.find_count(name)?;
        Ok(CountId::new(index, self.shared.id()))
    }

    /// Begins a step: picks the bucket, and a ring slot that the device does not read any more.
    /// Waits for one if need be.
    ///
    /// # Errors
    ///
    /// * [`StageError::TooLarge`]: more tokens or requests than the set was made for.
    /// * [`StageError::Stalled`]: no ring slot became free until the deadline.
    /// * [`StageError::Driver`]: the device has failed.
    #[inline]
    pub fn begin(&self, tokens: usize, requests: usize) -> Result<Step<'_, Tag>, StageError> {
        let _range = range!("staging::begin");
        let (counts, bucket) = self.shared.checked(tokens, requests)?;
        Ok(Step::new(&self.shared, self.shared.claim()?, counts, bucket))
    }

    /// Begins a step if a ring slot is free; does not wait.
    ///
    /// # Errors
    ///
    /// [`StageError::WouldBlock`]: none is free. Otherwise as [`begin`](Self::begin).
    #[inline]
    pub fn try_begin(&self, tokens: usize, requests: usize) -> Result<Step<'_, Tag>, StageError> {
        let _range = range!("staging::begin");
        let (counts, bucket) = self.shared.checked(tokens, requests)?;
        let claim = self.shared.try_claim()?.ok_or(StageError::WouldBlock)?;
        Ok(Step::new(&self.shared, claim, counts, bucket))
    }

    /// Begins a step that is padded to the bucket that holds `padded`, and not only to the one that
    /// holds its own counts: for ranks that run one model together and have agreed on a size. With
    /// [`buckets_of`](super::InputBuffersBuilder::buckets_of) they agree on tokens and on requests:
    /// the smallest bucket of so many tokens may hold fewer requests than a rank has.
    ///
    /// A rank without requests begins a step of 0 tokens and 0 requests. It has nothing of a count
    /// by name, and writes only slots that have elements even so: those of a
    /// [fixed](super::Len::Fixed) length or with [more](super::Len::plus) besides.
    ///
    /// # Errors
    ///
    /// * [`StageError::TooLarge`]: no bucket holds `padded`, or its bucket does not hold the step.
    /// * As [`begin`](Self::begin).
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
    /// let inputs = inputs.buckets([1, 2, 4, 8]).build()?;
    /// let ids = inputs.slot_id::<i32>("ids")?;
    /// let agreed = 5; // the most tokens that any rank has
    /// let mut step = inputs.begin_padded(2, 1, agreed)?;
    /// step.write(ids).copy_from_slice(&[7, 8]);
    /// assert_eq!(step.padded().tokens, 8);
    /// # let stream = Stream::new(&context)?;
    /// step.submit(&stream)?;
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin_padded(
        &self,
        tokens: usize,
        requests: usize,
        padded: impl Into<Counts>,
    ) -> Result<Step<'_, Tag>, StageError> {
        let _range = range!("staging::begin");
        let bucket = self.shared.plan.holding(padded.into())?;
        let counts = self.shared.checked_in(bucket, tokens, requests)?;
        Ok(Step::new(&self.shared, self.shared.claim()?, counts, Some(bucket)))
    }

    /// The bucket that a step of these counts goes to, by its place in [`buckets`](Self::buckets):
    /// for the engine's own table of graphs. `None` above the largest.
    pub fn bucket_of(&self, counts: impl Into<Counts>) -> Option<usize> {
        self.shared.plan.bucket_of(counts.into()).map(|bucket| bucket.index)
    }

    /// Waits until the device has read every step that was submitted.
    ///
    /// # Errors
    ///
    /// [`StageError::Stalled`], [`StageError::Driver`]: as [`begin`](Self::begin).
    pub fn wait(&self) -> Result<(), StageError> {
        self.shared.wait_for_all()
    }

    /// Gives all memory back when the device has read every step that was submitted; where a step
    /// or a reader [owns](Step::into_owned) a share of the set, the memory goes with the last of
    /// these.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`], which has the set, so that it can be tried again or dropped. The drop
    /// waits without a deadline, except for a launch that was lost, see [`InputBuffers`].
    ///
    /// * [`StageError::Stalled`]: the device did not read a step until the deadline.
    /// * [`StageError::Driver`]: the device has failed.
    #[doc(alias = "release_all")]
    pub fn release(self) -> Result<(), ReleaseError<Tag>> {
        match self.wait() {
            Ok(()) => Ok(()),
            Err(error) => Err(ReleaseError { inputs: self, error }),
        }
    }

    /// How steps are sent, and why.
    pub fn submission(&self) -> Submitting {
        self.shared.submitting
    }

    /// The events that order reads on another stream, if the set was
    /// [built](super::InputBuffersBuilder::read_events) with them.
    pub fn read_events(&self) -> Option<&ReadEvents> {
        self.shared.read_events.as_deref()
    }

    /// The graphs that are kept at this moment.
    pub fn graphs(&self) -> GraphsKept {
        self.shared.graphs.kept()
    }

    /// The sizes of buckets, ascending in the bytes that they stage: tokens, and requests at most.
    pub fn buckets(&self) -> impl Iterator<Item = Counts> {
        self.shared.plan.buckets.iter().map(|bucket| bucket.counts)
    }

    /// The largest step.
    pub fn max(&self) -> Counts {
        self.shared.plan.max
    }

    /// The context of its memory and its graphs.
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    pub(super) fn with(shared: Arc<Shared>) -> Self {
        Self { shared, tag: PhantomData }
    }
}

/// A set that [`InputBuffers::release`] could not give back.
pub struct ReleaseError<Tag = Untagged> {
    /// The set, as it was.
    pub inputs: InputBuffers<Tag>,
    /// Why.
    pub error: StageError,
}

impl<Tag> fmt::Debug for ReleaseError<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReleaseError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<Tag> fmt::Display for ReleaseError<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the input buffers are still in use: {}", self.error)
    }
}

impl<Tag> std::error::Error for ReleaseError<Tag> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
