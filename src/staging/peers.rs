//! One write for several devices.
//!
//! ```text
//!   PeerStep: write(slot) ...        ring slot 0 of the host, written once
//!      |                                |        |
//!      v  submit(&[&a, &b])             v        v
//!   a copy to each device            device 0  device 1     a graph, a word and an event each
//! ```
//!
//! A ring slot is free when every device has read it: a step claims the same one in the rings of
//! all devices, and hands the first ring's to its device last. So the first ring says whether a
//! ring slot may be asked for, and the holder of its claim alone asks the others. Each device has a
//! guard of its own: its steps are ordered with what reads them there, and with nothing of another
//! device.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::buffers::InputBuffers;
use super::build_error::BuildError;
use super::builder::InputBuffersBuilder;
use super::error::{SlotFault, StageError};
use super::guard::{Guard, check_device};
use super::launch::Sent;
use super::len::Counts;
use super::region::{DeviceRegion, HostRegion};
use super::set_spec::Instantiation;
use super::shape_error::ShapeFault;
use super::shared::Shared;
use super::slot_error::SlotError;
use super::slot_id::{CountId, SlotId, Untagged};
use super::spec::SlotKind;
use super::staged::Staged;
use super::state::SlotClaim;
use super::static_buffers::StaticBuffers;
use super::step::Step;
use super::submit::Left;
use super::transfer::{Fitting, Transfer};
use crate::driver::Context;
use crate::element::Element;
use crate::error::Error;
use crate::profile::range;
use crate::stream::Stream;
use crate::timeline::GaveUp;

/// The inputs of a model that runs on several devices, as with tensor parallelism in one process:
/// one ring of host slots to write, and device memory on each.
///
/// [`InputBuffersBuilder::build_on`] makes it. Dropping it waits as the drop of [`InputBuffers`].
///
/// # Examples
///
/// ```
/// # let config = softcuda::Config { devices: 2, ..softcuda::Config::default() };
/// # let machine = softcuda::Simulator::new(config);
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// use wharf::staging::{InputBuffers, Len};
/// use wharf::{Context, Stream};
///
/// let first = Context::retain(&driver.device(0)?)?;
/// let second = Context::retain(&driver.device(1)?)?;
/// let inputs = InputBuffers::builder(&first).slot::<i32>("ids", Len::Tokens).buckets([4, 8]);
/// let inputs = inputs.build_on(&[second.clone()])?;
/// let ids = inputs.slot_id::<i32>("ids")?;
/// let streams = [Stream::new(&first)?, Stream::new(&second)?];
///
/// let mut step = inputs.begin(3, 1)?;
/// step.write(ids).copy_from_slice(&[1, 2, 3]); // once
/// let staged = step.submit(&[&streams[0], &streams[1]])?;
/// for staged in &staged {
///     let _address = staged.device_ptr(ids); // of this device
/// }
/// # streams.iter().try_for_each(|stream| stream.synchronize())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PeerBuffers<Tag = Untagged> {
    /// The other devices' parts; their copies read the first one's ring.
    others: Box<[Arc<Shared>]>,
    first: InputBuffers<Tag>,
}

impl<Tag> InputBuffersBuilder<Tag> {
    /// Makes the set on the builder's device and on those of `others`, with one ring for all, which
    /// a step writes once. A [budget](Self::budget) counts the memory on the builder's device, and
    /// none of the others'.
    ///
    /// # Errors
    ///
    /// * As [`build`](Self::build).
    /// * [`BuildError::PeerSlot`]: a slot is zero-copy, a persistent table, a
    ///   [view](InputBuffers::view)'s, or dynamic: an address is one device's.
    /// * [`BuildError::ReadEventsOfPeers`]: with [read events](Self::read_events).
    pub fn build_on(self, others: &[Context]) -> Result<PeerBuffers<Tag>, BuildError> {
        let is_alone =
            |kind| matches!(kind, SlotKind::ZeroCopy | SlotKind::Persistent | SlotKind::Dynamic);
        if self.set.options.read_events {
            return Err(BuildError::ReadEventsOfPeers);
        }
        let mut slots = self.set.slots.iter();
        if let Some(slot) = slots.find(|slot| is_alone(slot.kind) || slot.device.is_some()) {
            return Err(BuildError::PeerSlot(slot.name.clone()));
        }
        let instantiation = self.set.instantiation;
        let first = self.build()?;
        let own = &first.shared;
        let other = |context: &Context| {
            let _relaxed = context.driver().relax_capture()?;
            let device = DeviceRegion::new(context, own.plan.device_size, [], None)?;
            let host = HostRegion::sharing(context, &own.host, own.options.completion)?;
            let (plan, names) = (Arc::clone(&own.plan), Arc::clone(&own.names));
            let device = Arc::new(device);
            let mut other = Transfer::with_host(plan, names, device, &own.options, context, host)?;
            other.submitting = own.submitting;
            if instantiation == Instantiation::Eager {
                other.prepare_all()?;
            }
            Ok(Shared::new(other, Arc::new(Guard::new(context, false))))
        };
        let others = others.iter().map(other).collect::<Result<_, BuildError>>()?;
        Ok(PeerBuffers { others, first })
    }
}

impl<Tag> PeerBuffers<Tag> {
    /// The slot of that name, the same for all devices.
    ///
    /// # Errors
    ///
    /// As [`InputBuffers::slot_id`].
    pub fn slot_id<T: Element>(&self, name: &str) -> Result<SlotId<T, Tag>, SlotError> {
        self.first.slot_id(name)
    }

    /// The count of that name.
    ///
    /// # Errors
    ///
    /// As [`InputBuffers::count_id`].
    pub fn count_id(&self, name: &str) -> Result<CountId<Tag>, SlotError> {
        self.first.count_id(name)
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        1 + self.others.len()
    }

    /// The device memory of one of the devices, by its place: 0 is the builder's own. `None` if
    /// there are not so many.
    pub fn static_buffers(&self, device: usize) -> Option<StaticBuffers<Tag>> {
        self.parts().nth(device).map(|part| StaticBuffers::of(part))
    }

    /// The sizes of buckets, as [`InputBuffers::buckets`].
    pub fn buckets(&self) -> impl Iterator<Item = Counts> {
        self.first.buckets()
    }

    /// Begins a step, as [`InputBuffers::begin`]: the ring slot is one that every device has read.
    ///
    /// # Errors
    ///
    /// As that.
    pub fn begin(&self, tokens: usize, requests: usize) -> Result<PeerStep<'_, Tag>, StageError> {
        let _range = range!("staging::begin");
        let fitting = self.first.shared.checked(tokens, requests)?;
        let claims = match self.try_claim()? {
            Some(claims) => claims,
            None => self.wait_for_claims()?,
        };
        Ok(self.step(claims, fitting))
    }

    /// Begins a step if a ring slot is free; does not wait.
    ///
    /// # Errors
    ///
    /// [`StageError::WouldBlock`]: none is free. Otherwise as [`begin`](Self::begin).
    pub fn try_begin(
        &self,
        tokens: usize,
        requests: usize,
    ) -> Result<PeerStep<'_, Tag>, StageError> {
        let fitting = self.first.shared.checked(tokens, requests)?;
        let claims = self.try_claim()?.ok_or(StageError::WouldBlock)?;
        Ok(self.step(claims, fitting))
    }

    fn step<'a>(&'a self, claims: Claims<'a>, (counts, bucket): Fitting<'a>) -> PeerStep<'a, Tag> {
        let Claims { others, first } = claims;
        PeerStep {
            others,
            first: &self.first.shared,
            step: Step::new(&self.first.shared, first, counts, bucket),
        }
    }

    /// Takes a ring slot that every device has read.
    fn try_claim(&self) -> Result<Option<Claims<'_>>, Error> {
        for index in 0..self.first.shared.ring.len() {
            if let Some(claims) = self.claim_at(index)? {
                return Ok(Some(claims));
            }
        }
        Ok(None)
    }

    /// Takes this ring slot of every device, or of none.
    fn claim_at(&self, index: usize) -> Result<Option<Claims<'_>>, Error> {
        let shared = &self.first.shared;
        let Some(first) = shared.ring.claim_at(index, |index| shared.is_done(index))? else {
            return Ok(None);
        };
        let mut others = Vec::with_capacity(self.others.len());
        for other in &self.others {
            match other.ring.claim_at(index, |index| other.is_done(index)) {
                Ok(Some(claim)) => others.push((&**other, claim)),
                missing => {
                    others.into_iter().for_each(|(_, claim)| claim.put_back());
                    // Last: the holder of the next claim finds the others as they are.
                    first.put_back();
                    return missing.map(|_| None);
                }
            }
        }
        Ok(Some(Claims { others, first }))
    }

    #[cold]
    fn wait_for_claims(&self) -> Result<Claims<'_>, StageError> {
        let (shared, mut claims) = (&self.first.shared, None);
        let waited = shared.sentinel.wait(shared.options.deadline, || {
            claims = self.try_claim()?;
            Ok(claims.is_some())
        });
        match (waited, claims) {
            (Ok(()), Some(claims)) => Ok(claims),
            (Err(GaveUp::Driver(error)), _) => Err(StageError::Driver(error)),
            (Err(GaveUp::Deadline { probes, .. }), _) => {
                // The wait has asked the first device alone.
                self.others.iter().try_for_each(|part| part.sentinel.probe())?;
                let is_late = |part: &&Shared| {
                    part.ring.in_flight().any(|index| !part.is_done(index).unwrap_or(false))
                };
                let late = self.parts().find(is_late).unwrap_or(shared);
                Err(StageError::Stalled(late.stall(probes)))
            }
            (Ok(()), None) => Err(StageError::WouldBlock),
        }
    }

    /// The parts of all devices.
    fn parts(&self) -> impl Iterator<Item = &Shared> {
        std::iter::once(&*self.first.shared).chain(self.others.iter().map(|part| &**part))
    }
}

/// The same ring slot in the rings of all devices. Fields are dropped in their order: a thread that
/// finds the first ring's free finds the others' free too.
struct Claims<'a> {
    others: Vec<OtherClaim<'a>>,
    first: SlotClaim<'a>,
}

type OtherClaim<'a> = (&'a Shared, SlotClaim<'a>);

/// A step of [`PeerBuffers`] that is being filled, as a [`Step`] is.
#[must_use = "a step that is dropped has not happened"]
pub struct PeerStep<'a, Tag = Untagged> {
    /// Ahead of the first's, as in [`Claims`].
    others: Vec<OtherClaim<'a>>,
    first: &'a Shared,
    step: Step<'a, Tag>,
}

impl<'a, Tag> PeerStep<'a, Tag> {
    /// Pads the slots and sends them to each device, on a stream of it: `streams` are in the order
    /// of the devices. One driver call each where [`Step::submit`] takes one. Returns where the
    /// inputs are, for each.
    ///
    /// # Errors
    ///
    /// * [`StageError::Streams`]: another number of streams than there are devices.
    /// * [`StageError::OtherDevice`]: a stream is of another device than its place says.
    /// * [`StageError::Exchanged`]: the step was exchanged for another, as by [`std::mem::swap`].
    /// * As [`Step::submit`]; a slot [referred](Step::refer_buffer) to other memory is
    ///   [`ShapeFault::ManyDevices`].
    ///
    /// If the driver refuses the copy to one device, those before it have the step, and those
    /// behind it have not: it may be staged again for all.
    pub fn submit(mut self, streams: &[&Stream]) -> Result<Vec<Staged<'a, Tag>>, StageError> {
        let skipped = self.finish(streams)?;
        let (shared, step) = (self.first, &mut self.step);
        let counts = step.counts();
        let sent = Sent { bucket: step.bucket, skipped, referred: 0 };
        let stream = streams[0];
        let begun = shared.launch_guarded(&mut step.claim, sent, stream)?;
        shared.launched(&step.claim, stream, begun);
        let this = (begun.number, stream.id());
        let mut all = Vec::with_capacity(streams.len());
        let mut outcome = Ok(());
        let mut others = self.others.into_iter().zip(&streams[1..]);
        for ((other, claim), stream) in &mut others {
            match send(other, claim, counts, sent, stream) {
                Ok(staged) => all.push(staged),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // Of devices that have not been sent it.
        drop(others);
        // Last, also behind an error: the next claim of it asks for those of all devices.
        let Step { claim, bucket, keep, .. } = self.step;
        all.insert(0, Staged::new(shared, claim, counts, bucket, this, keep));
        outcome.map(|()| all)
    }

    /// Checks the step and its streams, and fills the tails. Returns a bit for each slot whose
    /// contents the devices keep.
    fn finish(&mut self, streams: &[&Stream]) -> Result<u64, StageError> {
        let Self { others, first, step } = self;
        let (wanted, given) = (1 + others.len(), streams.len());
        if wanted != given {
            return Err(StageError::Streams { wanted, given });
        }
        // Of another ring slot, the other devices would copy what may be another step's.
        let index = step.claim.index();
        let is_own = std::ptr::eq(step.shared, *first)
            && others.iter().all(|(_, claim)| claim.index() == index);
        if !is_own {
            return Err(StageError::Exchanged);
        }
        let parts = std::iter::once(*first).chain(others.iter().map(|(part, _)| *part));
        for (part, stream) in parts.zip(streams) {
            check_device(&part.context, stream)?;
            part.refuse_capture(stream, |api| api.graph_launch.name())?;
        }
        let Left { skipped, referred } = step.finish()?;
        if referred != 0 {
            let slot = referred.trailing_zeros() as usize;
            return Err(first.misuse(slot, SlotFault::Shape(ShapeFault::ManyDevices)));
        }
        Ok(skipped)
    }
}

/// Sends a claimed ring slot to another device.
fn send<'a, Tag>(
    other: &'a Shared,
    mut claim: SlotClaim<'a>,
    counts: Counts,
    sent: Sent<'a>,
    stream: &Stream,
) -> Result<Staged<'a, Tag>, StageError> {
    if sent.bucket.is_none() {
        // It fits, as it did in the first ring.
        let _extent = other.plan.exact(counts, &mut claim.fields);
    }
    let begun = other.launch_guarded(&mut claim, sent, stream)?;
    other.launched(&claim, stream, begun);
    Ok(Staged::new(other, claim, counts, sent.bucket, (begun.number, stream.id()), None))
}

impl<'a, Tag> Deref for PeerStep<'a, Tag> {
    type Target = Step<'a, Tag>;

    fn deref(&self) -> &Step<'a, Tag> {
        &self.step
    }
}

impl<'a, Tag> DerefMut for PeerStep<'a, Tag> {
    fn deref_mut(&mut self) -> &mut Step<'a, Tag> {
        &mut self.step
    }
}

impl<Tag> fmt::Debug for PeerStep<'_, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerStep").field("counts", &self.step.counts()).finish_non_exhaustive()
    }
}
