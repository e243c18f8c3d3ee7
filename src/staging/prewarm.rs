//! Graphs that are ready before a step needs them.

use super::buffers::InputBuffers;
use super::error::StageError;
use super::graphs::GraphsMade;
use super::len::Counts;
use super::plan::Bucket;
use super::shared::Shared;
use crate::forecast::{Change, WarmSet};
use crate::profile::range;

/// Keeps the graphs of the sizes that a forecast names ready in one set of input buffers.
///
/// Any step of the set uses them. They are bounded: for as many sizes as the [`WarmSet`] has room
/// for, each with a graph for each ring slot, and given back when the forecast changes. Ring slots
/// that are in flight get and give back theirs with a later step.
///
/// Belongs to one thread, which tells it of every step; steps may be begun and submitted anywhere.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
/// use wharf::forecast::{ContextModel, WarmSet};
/// use wharf::staging::{InputBuffers, Prewarm};
///
/// let inputs = InputBuffers::builder(&context).minimal_slots().buckets([8, 16, 32, 64]).build()?;
/// let ids = inputs.slot_id::<i64>("input_ids")?;
/// let positions = inputs.slot_id::<i64>("positions")?;
/// let mut prewarm = Prewarm::new(WarmSet::new(ContextModel::new(), 2));
/// let stream = Stream::new(&context)?;
/// for tokens in [8, 16, 32].repeat(20) {
///     let mut step = inputs.begin(tokens, 1)?;
///     step.write(ids).fill(1);
///     step.write(positions).fill(2);
///     let counts = step.submit(&stream)?.counts();
///     // The engine's own launches go here, before what comes next is made ready.
///     prewarm.record_usage(&inputs, counts)?;
///     stream.synchronize()?;
/// }
/// assert!(inputs.graphs().count <= 2 * 3 + 1);
/// assert!(inputs.graphs_made().ahead > inputs.graphs_made().by_steps);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[doc(alias = "PredictiveBufferManager")]
pub struct Prewarm {
    warm: WarmSet,
    /// A bit for each ring slot whose graphs may not be those of `warm`.
    stale: u64,
}

impl Prewarm {
    /// Keeps graphs of the sizes in `warm` ready; a size is a bucket's number of tokens.
    pub fn new(warm: WarmSet) -> Self {
        Self { warm, stale: u64::MAX }
    }

    /// Takes note that a step of these counts was submitted, gives back graphs of sizes that have
    /// no room any more, and makes those that are forecast. Calls the driver if something changes;
    /// does not wait.
    ///
    /// # Errors
    ///
    /// [`StageError`]: the driver refused a graph. The step is not affected, and the next call
    /// tries again.
    pub fn record_usage<Tag>(
        &mut self,
        inputs: &InputBuffers<Tag>,
        counts: Counts,
    ) -> Result<(), StageError> {
        let shared = &*inputs.shared;
        let mut changed = false;
        match shared.plan.bucket_of(counts) {
            Some(bucket) => changed |= !self.warm.record_usage(size(bucket)),
            None => self.warm.record_other(),
        }
        self.warm.rearrange(|_: Change| {
            changed = true;
            Ok::<_, StageError>(())
        })?;
        if changed {
            self.stale = u64::MAX;
        }
        self.arrange(shared)
    }

    /// Makes and gives back what could not be while its ring slot was in flight: for a moment at
    /// which the device has caught up and the next step is not known yet. No driver call if nothing
    /// is left to do.
    ///
    /// # Errors
    ///
    /// As [`record_usage`](Self::record_usage).
    pub fn settle<Tag>(&mut self, inputs: &InputBuffers<Tag>) -> Result<(), StageError> {
        self.arrange(&inputs.shared)
    }

    /// Drops all graphs of ring slots that are free, also those that steps have made.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the device has failed.
    pub fn clear<Tag>(&mut self, inputs: &InputBuffers<Tag>) -> Result<(), StageError> {
        self.warm.clear(|_: Change| Ok::<_, StageError>(()))?;
        self.stale = u64::MAX;
        self.arrange(&inputs.shared)
    }

    /// Which sizes are ready, and what became of them.
    pub fn warm(&self) -> &WarmSet {
        &self.warm
    }

    /// Gives each ring slot that is free, or that the device has read, the graphs that it is to
    /// have.
    fn arrange(&mut self, shared: &Shared) -> Result<(), StageError> {
        let mut left = self.stale & all(shared.ring.len());
        if left == 0 {
            return Ok(());
        }
        let _range = range!("staging::prewarm");
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            if let Some(mut claim) = shared.ring.claim_at(index, |index| shared.is_done(index))? {
                shared.keep(&mut claim, |bucket| self.warm.is_ready(size(bucket)))?;
                self.stale &= !(1 << index);
            }
        }
        Ok(())
    }
}

impl<Tag> InputBuffers<Tag> {
    /// Makes the graphs of the bucket that holds `counts`, or so many tokens, for every ring slot
    /// that is free at this moment, and sends them to the device. Returns how many ring slots have
    /// one then.
    ///
    /// # Errors
    ///
    /// [`StageError`]: the driver refused; what was made stays.
    pub fn prewarm(&self, counts: impl Into<Counts>) -> Result<usize, StageError> {
        let Counts { tokens, requests } = counts.into();
        let (_, bucket) = self.shared.checked(tokens, requests)?;
        let shared = &self.shared;
        let Some(bucket) = bucket else { return Ok(0) };
        let mut ready = 0;
        for index in 0..shared.ring.len() {
            if let Some(mut claim) = shared.ring.claim_at(index, |index| shared.is_done(index))? {
                ready += usize::from(shared.prepare_ahead(&mut claim, bucket)?);
            }
        }
        Ok(ready)
    }

    /// How many graphs were made so far.
    pub fn graphs_made(&self) -> GraphsMade {
        self.shared.graphs.made()
    }
}

/// The size that stands for a bucket.
fn size(bucket: &Bucket) -> u32 {
    u32::try_from(bucket.counts.tokens).unwrap_or(u32::MAX - 1)
}

/// A bit for each of so many ring slots.
fn all(depth: usize) -> u64 {
    if depth >= 64 { u64::MAX } else { (1 << depth) - 1 }
}
