//! Views: sets whose slots lie in the device memory of another set.

use std::sync::Arc;

use super::buffers::InputBuffers;
#[cfg(doc)]
use super::build_error::BuildError;
use super::builder::InputBuffersBuilder;
use super::plan::Layout;
use super::set_spec::SetSpec;
use super::slot_error::SlotError;
use super::spec::SlotKind;
use super::viewed::Viewed;

impl<Tag> InputBuffers<Tag> {
    /// Begins a set of some of these slots, at the same device addresses, for a second model that
    /// shares inputs with the first: with buckets, a ring and graphs of its own, and no device
    /// memory. Slots may be added that are its own. Lengths, padding, policies and the ring's depth
    /// are those of this set; [`buckets`](InputBuffersBuilder::buckets) are to be said.
    ///
    /// A step of either set overwrites what was staged last, by whichever: all are ordered one
    /// behind the other, as steps of one set are, and a later step of the other set supersedes a
    /// [`Staged`](super::Staged). The second model may as well read what a step of this set has
    /// staged: the view's [`static_buffers`](Self::static_buffers) and buckets say where and how
    /// much, and [`begin_padded`](Self::begin_padded) pads for the larger of the two.
    ///
    /// Persistent tables are the same tables, whichever set patches them. The
    /// [read events](InputBuffersBuilder::read_events) of this set are the view's, whose steps wait
    /// for the same reads. With [`Submission::Fastest`](super::Submission::Fastest) a view takes
    /// the way of this set, and measures nothing.
    ///
    /// # Errors
    ///
    /// [`SlotError::Unknown`]: a slot is not there. [`InputBuffersBuilder::build`] returns
    /// [`BuildError::View`] for what cannot be viewed: sets of
    /// [`Layout::Packed`](super::Layout::Packed) or with zero-copy slots, and steps that are larger
    /// than this set's; [`BuildError::ReadEventsOfView`] for read events where this set has none,
    /// or none where it has some.
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
    /// let target = InputBuffers::builder(&context).minimal_slots();
    /// let target = target.slot::<i32>("seq_lens", Len::Requests).buckets([8, 64, 512]).build()?;
    /// // The draft model has one token a request, and no lengths.
    /// let draft = target.view(&["input_ids", "positions"])?.buckets([1, 2, 4]).build()?;
    /// assert_eq!(draft.memory().device, 0);
    ///
    /// let (ids, positions) = (draft.slot_id::<i64>("input_ids")?, draft.slot_id("positions")?);
    /// let mut step = draft.begin(3, 3)?;
    /// step.write(ids).copy_from_slice(&[4, 5, 6]);
    /// step.write::<i64>(positions).fill(9);
    /// let stream = Stream::new(&context)?;
    /// let staged = step.submit(&stream)?;
    /// assert_eq!(Some(staged.device_ptr(ids)), target.slot("input_ids")?.address);
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn view(&self, slots: &[&str]) -> Result<InputBuffersBuilder<Tag>, SlotError> {
        let (shared, plan) = (&self.shared, &self.shared.plan);
        let mut wanted = Vec::new();
        for name in slots {
            let index = plan.slots.iter().position(|slot| *slot.name == **name);
            wanted.push(index.ok_or_else(|| SlotError::Unknown((*name).into()))?);
        }
        let mut set = SetSpec::new(&shared.context, "view");
        let slot = |index: usize| {
            let (span, mut slot) = (plan.exact_span(plan.max, index), plan.slots[index].clone());
            slot.forgotten = Some(plan.forgotten[index]);
            if slot.kind != SlotKind::Dynamic {
                slot.device = Some(plan.address(shared.device.address(), index, span));
                slot.shape.room = Some(slot.row_size(plan.max).unwrap_or(0));
            }
            slot
        };
        set.slots = wanted.into_iter().map(slot).collect();
        let counts = plan.counts.iter();
        set.counts = counts.map(|count| (count.name.to_string(), count.most.length())).collect();
        (set.options, set.submission) = (shared.options, shared.submitting.by);
        set.options.read_events = shared.read_events.is_some();
        set.viewed = Some(Viewed {
            device: Arc::clone(&shared.device),
            guard: Arc::clone(&shared.guard),
            is_per_slot: plan.layout == Layout::PerSlot,
            has_zero_copy: plan.has_zero_copy,
            read_events: shared.read_events.clone(),
            submitting: shared.submitting,
        });
        Ok(InputBuffersBuilder::of(set))
    }
}
