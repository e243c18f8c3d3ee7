//! Slots that the device writes: alone, or behind the copy of what the host has written.

use wharf_sys::bindings::CUdeviceptr;

use super::buffers::InputBuffers;
use super::builder::InputBuffersBuilder;
use super::error::{SlotFault, StageError};
use super::len::Len;
use super::pad;
use super::shape_error::ShapeFault;
use super::slot_id::SlotId;
use super::spec::{Forgotten, Pad, Padding, SlotKind};
use super::staged::Staged;
use super::step::Step;
use crate::element::Element;

impl<Tag> InputBuffersBuilder<Tag> {
    /// Adds a slot of device memory that the device alone writes, such as embeddings that a kernel
    /// computes. It takes no memory of the ring and no copy; no step has anything of it.
    ///
    /// Its address is the same in all steps ([`Staged::device_ptr`],
    /// [`StaticBuffers`](super::StaticBuffers)), in every layout. It holds the elements of the
    /// largest step, zeros at first. What writes and reads it is the engine's to order.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::staging::{InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context)
    ///     .slot::<i32>("input_ids", Len::Tokens)
    ///     .device_only::<f32>("inputs_embeds", Len::Tokens.times(1024))
    ///     .buckets([8, 2048])
    ///     .build()?;
    /// let embeddings = inputs.slot_id::<f32>("inputs_embeds")?;
    /// let _address = inputs.static_buffers().device_ptr(embeddings, 8).unwrap();
    /// // 8 MiB of the device's memory.
    /// assert!(inputs.memory().device >= 8 << 20 && inputs.memory().pinned < 8 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn device_only<T: Element>(mut self, name: &str, len: Len) -> Self {
        self.set.add(name, T::DTYPE, len, Padding::Keep, SlotKind::DeviceOnly);
        self
    }

    /// Adds a slot that is half the host's and half the device's: the host writes the elements that
    /// it knows among [placeholders](Step::write_placeholders), and a kernel
    /// [overwrites](Staged::overwrite_ptr) those behind the copy. So ids that the step before has
    /// sampled on the device take the place of those that the host does not have yet.
    ///
    /// A step that does not write it stages placeholders alone, and placeholders are behind the
    /// step's elements.
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
    /// let inputs = InputBuffers::builder(&context);
    /// let inputs = inputs.slot_overwritten::<i32>("input_ids", Len::Tokens, -1);
    /// let inputs = inputs.buckets([8]).build()?;
    /// let (ids, stream) = (inputs.slot_id::<i32>("input_ids")?, Stream::new(&context)?);
    /// let mut step = inputs.begin(5, 2)?;
    /// // A prompt of four tokens, and a request whose last token is still being sampled.
    /// step.write_placeholders(ids)?[..4].copy_from_slice(&[11, 12, 13, 14]);
    /// let staged = step.submit(&stream)?;
    /// // A kernel puts the sampled id at the place of the fifth, on this stream.
    /// let _fifth = staged.overwrite_ptr(ids)? + 4 * 4;
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn slot_overwritten<T: Element>(self, name: &str, len: Len, placeholder: T) -> Self {
        let mut with = self.slot_padded::<T>(name, len, Pad::Value(placeholder));
        if let Some(slot) = with.set.slots.last_mut() {
            slot.shape.is_overwritten = true;
            slot.forgotten = Some(Forgotten::Pad);
        }
        with
    }
}

impl<Tag> Step<'_, Tag> {
    /// The elements of a slot that the device
    /// [overwrites](super::InputBuffersBuilder::slot_overwritten), all of them placeholders, for
    /// those that the host knows to be written among them.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot is not one that the device overwrites
    /// ([`ShapeFault::NotOverwritten`]), or is of another set. Nothing was written, and the step
    /// goes on.
    pub fn write_placeholders<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
    ) -> Result<&mut [T], StageError> {
        self.shared.check_fork()?;
        let (span, len) = self.locate(slot)?;
        let (shared, index) = (self.shared, slot.index());
        let spec = &shared.plan.slots[index];
        if !spec.shape.is_overwritten {
            return Err(shared.misuse(index, SlotFault::Shape(ShapeFault::NotOverwritten)));
        }
        let width = size_of::<T>();
        pad::fill(self.elements(span, len * width), width, 0, spec.pad);
        Ok(self.take(index, span, len))
    }
}

impl<Tag> Staged<'_, Tag> {
    /// Where a kernel overwrites the elements of a slot that was
    /// [declared](super::InputBuffersBuilder::slot_overwritten) for it, behind the copy: on the
    /// step's stream, or on one that [reads](Self::reader) the step, whose end the next step's copy
    /// waits for.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot was not declared so, or is of another set.
    pub fn overwrite_ptr<T: Element>(
        &self,
        slot: SlotId<T, Tag>,
    ) -> Result<CUdeviceptr, StageError> {
        let shared = self.shared();
        let index = slot.index();
        match shared.plan.slots.get(index).filter(|_| slot.set() == shared.id()) {
            None => Err(shared.misuse(index, SlotFault::Foreign)),
            Some(spec) if spec.shape.is_overwritten => Ok(self.device_ptr(slot)),
            Some(_) => Err(shared.misuse(index, SlotFault::Shape(ShapeFault::NotOverwritten))),
        }
    }
}

/// The memory that a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetMemory {
    /// Pinned memory of its ring, in bytes.
    pub pinned: usize,
    /// Device memory of its own, in bytes.
    pub device: usize,
}

impl<Tag> InputBuffers<Tag> {
    /// The memory that the set holds, in the driver's granules: without that of embedded graphs,
    /// which have rings of their own, and of the set that it is a [view](Self::view) of.
    pub fn memory(&self) -> SetMemory {
        let (pinned, device) = (self.shared.host.size(), self.shared.device.size());
        SetMemory { pinned, device }
    }
}
