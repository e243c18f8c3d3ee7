//! Slots that the device reads in a pinned buffer.

use super::error::{SlotFault, StageError};
use super::reference::Source;
use super::slot_id::SlotId;
use super::step::Step;
use crate::address::to_usize;
use crate::element::Element;
use crate::error::Error;
use crate::memory::MemoryKind;
use crate::pool::Buffer;
use crate::stream::Stream;

impl<Tag> Step<'_, Tag> {
    /// Lets the device read a slot's elements in a pinned buffer, so that the host copies nothing:
    /// as many as the step is [padded](Self::padded) to.
    ///
    /// `from` may be dropped at once: its memory is reused when the copy is done. Until the step is
    /// submitted or dropped the host cannot write it
    /// ([`HostError::Shared`](crate::pool::HostError)), and then [`Buffer::host_mut`] waits for the
    /// copy.
    ///
    /// Costs a driver call, and another when a later step writes the slot again.
    ///
    /// # Errors
    ///
    /// Nothing has changed, and the step goes on, after an error:
    ///
    /// * [`StageError::Slot`]: the slot is not copied by itself, of another set, or of another
    ///   length, or the buffer is not of pinned memory, or of another device's.
    /// * [`StageError::Driver`] with [`CudaError::INVALID_VALUE`](crate::CudaError::INVALID_VALUE):
    ///   the elements lie in several [registrations](crate::memory::PinnedOptions::piece_limit).
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
    /// use wharf::memory::{PinnedMemoryResource, PinnedOptions};
    /// use wharf::pool::{Buffer, Pool};
    /// use wharf::staging::{InputBuffers, Len};
    ///
    /// let stream = Stream::new(&context)?;
    /// let pinned = PinnedMemoryResource::new(&context, 64 << 20, PinnedOptions::default())?;
    /// let pool = Pool::builder().build(pinned)?;
    /// let mut embeddings: Buffer<f32> = pool.alloc(8 * 1024, &stream)?;
    /// embeddings.host_mut(Duration::ZERO)?.fill(0.5);
    ///
    /// let inputs = InputBuffers::builder(&context);
    /// let inputs = inputs.slot::<f32>("embeddings", Len::Tokens.times(1024));
    /// let inputs = inputs.buckets([8]).build()?;
    /// let mut step = inputs.begin(8, 1)?;
    /// step.refer_buffer(inputs.slot_id("embeddings")?, &embeddings)?;
    /// step.submit(&stream)?;
    /// // Waits for the copy out of it.
    /// embeddings.host_mut(Duration::from_secs(1))?.fill(0.25);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refer_buffer<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: &Buffer<T>,
    ) -> Result<(), StageError> {
        let span = self.referable(slot, from.len())?;
        let kind = from.kind();
        if !matches!(kind, MemoryKind::Pinned | MemoryKind::WriteCombined) {
            return Err(self.shared.misuse(slot.index(), SlotFault::NotPinned { kind }));
        }
        let (wanted, given) = (self.shared.context.device().ordinal(), from.ordinal());
        if given != Some(wanted) {
            return Err(self.shared.misuse(slot.index(), SlotFault::OtherDevice { wanted, given }));
        }
        // It is one copy to the driver, which takes no more than one piece.
        from.one_piece()?;
        let address = from.host_address();
        let handle = from
            .slice(..)
            .ok_or_else(|| self.shared.misuse(slot.index(), SlotFault::TooManyHandles))?;
        let address = std::ptr::with_exposed_provenance(to_usize(address));
        self.put_reference(slot.index(), span, address, Box::new(handle));
        Ok(())
    }
}

impl<T: Element> Source for Buffer<T> {
    fn order(&self, stream: &Stream) -> Result<(), Error> {
        self.acquire(stream)
    }

    fn note(&self, stream: &Stream) -> bool {
        self.record_use(stream).is_ok()
    }
}
