//! Sets of output buffers: results of steps on their way to the host.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::error::StageError;
use super::fetch::Fetch;
use super::graphs::{GraphsKept, GraphsMade};
use super::len::Counts;
use super::pending::Pending;
use super::slot_error::SlotError;
use super::slot_id::{CountId, SlotId, Untagged};
use super::static_buffers::StaticBuffers;
use super::submission::Submitting;
use super::transfer::Transfer;
use crate::driver::Context;
use crate::element::Element;
use crate::profile::range;
use crate::stream::Stream;

/// The results of an engine's steps: device memory at addresses that never change, for kernels to
/// write, and ring slots of pinned memory in which the host reads them.
///
/// The mirror of [`InputBuffers`](super::InputBuffers). A fetch copies the results of one step to a
/// ring slot, with one launch, in its place in the stream; [`Pending`] tells when they are there,
/// by a load of a word that the device writes behind the copies. So reading the results of a step
/// waits for nothing that the stream was given after the fetch.
///
/// A ring slot belongs to its `Pending` until that is dropped: what is being read is not
/// overwritten, and a fetch for which every ring slot is held waits, or is an error.
///
/// The device memory is the engine's to order, as any kernel's output: a fetch reads it in its
/// place in its stream, and the next step may write it behind that
/// ([`Pending::source_free_on`], for a step on another stream).
///
/// Dropping the set does not wait for fetches whose `Pending` lives. Otherwise as for
/// `InputBuffers`.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use std::time::Duration;
/// use wharf::Stream;
/// use wharf::staging::{Len, OutputBuffers};
///
/// let outputs = OutputBuffers::builder(&context)
///     .slot::<i32>("sampled", Len::Requests)
///     .slot::<f32>("logprobs", Len::Requests.times(4))
///     .buckets([1, 2, 4, 8])
///     .build()?;
/// let (sampled, logprobs) = (outputs.slot_id::<i32>("sampled")?, outputs.slot_id("logprobs")?);
/// let address = outputs.static_buffers().device_ptr(sampled, 8).unwrap();
///
/// let stream = Stream::new(&context)?;
/// let mut last = None;
/// for step in 0..3 {
///     // The model of this step is launched here, and writes 3 tokens at `address`.
///     let pending = outputs.fetch(3, 3, &stream)?; // one driver call
///     // The results of the step before, while this one runs.
///     if let Some(before) = last.replace(pending) {
///         let results = before.wait(Duration::from_secs(10))?;
///         let tokens: &[i32] = results.read(sampled)?;
///         assert_eq!((tokens.len(), results.read::<f32>(logprobs)?.len()), (3, 12));
///     }
/// }
/// # stream.synchronize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OutputBuffers<Tag = Untagged> {
    pub(super) shared: Arc<Transfer>,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> OutputBuffers<Tag> {
    /// The slot of that name.
    ///
    /// # Errors
    ///
    /// [`SlotError`]: no slot has the name, or its elements are of another type.
    pub fn slot_id<T: Element>(&self, name: &str) -> Result<SlotId<T, Tag>, SlotError> {
        SlotId::of(&self.shared.plan, name)
    }

    /// The count of that name, to be set in fetches.
    ///
    /// # Errors
    ///
    /// [`SlotError::UnknownCount`]: no count has the name.
    pub fn count_id(&self, name: &str) -> Result<CountId<Tag>, SlotError> {
        let index = self.shared.plan.find_count(name)?;
        Ok(CountId::new(index, self.shared.id()))
    }

    /// How fetches are sent, and why.
    pub fn submission(&self) -> Submitting {
        self.shared.submitting
    }

    /// The device memory of the set, for the kernels that write it.
    pub fn static_buffers(&self) -> StaticBuffers<Tag> {
        StaticBuffers::of(&self.shared)
    }

    /// Copies the results of a step to a ring slot, behind what `stream` was given so far: one
    /// driver call. Waits for a ring slot if need be. The same as [`begin`](Self::begin) and
    /// [`Fetch::submit`].
    ///
    /// # Errors
    ///
    /// As those two.
    #[inline]
    pub fn fetch(
        &self,
        tokens: usize,
        requests: usize,
        stream: &Stream,
    ) -> Result<Pending<Tag>, StageError> {
        self.begin(tokens, requests)?.submit(stream)
    }

    /// Begins a fetch: picks the bucket, and a ring slot that is not in use. Waits for one if need
    /// be.
    ///
    /// # Errors
    ///
    /// * [`StageError::TooLarge`]: more tokens or requests than the set was made for.
    /// * [`StageError::Stalled`]: no ring slot became free until the deadline, because every one is
    ///   held by a [`Pending`], or because the device did not come to its copies.
    /// * [`StageError::Driver`]: the device has failed.
    #[inline]
    pub fn begin(&self, tokens: usize, requests: usize) -> Result<Fetch<Tag>, StageError> {
        let _range = range!("staging::begin");
        let (counts, bucket) = self.shared.checked(tokens, requests)?;
        Ok(Fetch::new(&self.shared, self.shared.claim()?, counts, bucket))
    }

    /// Begins a fetch if a ring slot is free; does not wait.
    ///
    /// # Errors
    ///
    /// [`StageError::WouldBlock`]: none is free. Otherwise as [`begin`](Self::begin).
    #[inline]
    pub fn try_begin(&self, tokens: usize, requests: usize) -> Result<Fetch<Tag>, StageError> {
        let _range = range!("staging::begin");
        let (counts, bucket) = self.shared.checked(tokens, requests)?;
        let claim = self.shared.try_claim()?.ok_or(StageError::WouldBlock)?;
        Ok(Fetch::new(&self.shared, claim, counts, bucket))
    }

    /// Begins a fetch of the bucket that holds `padded`, as
    /// [`InputBuffers::begin_padded`](super::InputBuffers::begin_padded).
    ///
    /// # Errors
    ///
    /// As that, and as [`begin`](Self::begin).
    pub fn begin_padded(
        &self,
        tokens: usize,
        requests: usize,
        padded: impl Into<Counts>,
    ) -> Result<Fetch<Tag>, StageError> {
        let _range = range!("staging::begin");
        let bucket = self.shared.plan.holding(padded.into())?;
        let counts = self.shared.checked_in(bucket, tokens, requests)?;
        Ok(Fetch::new(&self.shared, self.shared.claim()?, counts, Some(bucket)))
    }

    /// The graphs that are kept at this moment.
    pub fn graphs(&self) -> GraphsKept {
        self.shared.graphs.kept()
    }

    /// How many graphs were made so far.
    pub fn graphs_made(&self) -> GraphsMade {
        self.shared.graphs.made()
    }

    /// The sizes of buckets, ascending in bytes: tokens, and requests at most.
    pub fn buckets(&self) -> impl Iterator<Item = Counts> {
        self.shared.plan.buckets.iter().map(|bucket| bucket.counts)
    }

    /// The largest step.
    pub fn max(&self) -> Counts {
        self.shared.plan.max
    }

    /// How many fetches may be in use at once.
    pub fn ring_depth(&self) -> usize {
        self.shared.ring.len()
    }

    /// How long [`begin`](Self::begin) waits for a ring slot.
    pub fn deadline(&self) -> Duration {
        self.shared.options.deadline
    }

    /// The context of its memory and its graphs.
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    pub(super) fn with(shared: Transfer) -> Self {
        Self { shared: Arc::new(shared), tag: PhantomData }
    }
}
