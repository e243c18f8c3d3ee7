//! Guards that hold objects where they are.

#![expect(unsafe_code, reason = "copies from and to the object that it holds")]

use std::fmt;
use std::ops::Deref;

use super::core::Lease;
use super::object::TieredObject;
use super::shelf::Place;
use super::{Tier, TierError};
use crate::error::Error;
use crate::lockfree::tier_state::TierState;
use crate::stream::{Stream, Transfer};
use crate::sync::atomic::Ordering::Relaxed;

/// An object held in a tier, for work on one stream that reads it.
///
/// The object stays there until the guard is dropped and the stream is past what was submitted to it by
/// then. Dropping it makes no driver call and never waits.
pub struct Pin<'a> {
    object: &'a TieredObject,
    stream: &'a Stream,
    /// The slot that the end of the hold goes to.
    lease: usize,
    place: Place,
    tier: Tier,
}

impl<'a> Pin<'a> {
    pub(super) fn new(object: &'a TieredObject, lease: usize, state: TierState, stream: &'a Stream) -> Self {
        let record = &object.core.records[object.index];
        let tier = Tier::from_index(state.tier());
        let pin = Self { object, stream, lease, place: record.place(state.place()), tier };
        if tier == Tier::Managed && !record.near.swap(true, Relaxed) {
            object.core.attract(tier.index(), pin.place, pin.size(), true);
        }
        pin
    }

    /// The tier.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The size of the object, in bytes.
    pub fn size(&self) -> usize {
        self.object.size()
    }

    /// The address of the first byte: the host's, in a tier that the host reaches, else the device's.
    ///
    /// What is there may be read, by work on the guard's stream before the guard is dropped, or by the host
    /// as long as it is held.
    pub fn address(&self) -> u64 {
        self.place.address
    }

    /// The device's address of the first byte, for work on the guard's stream before the guard is dropped.
    ///
    /// `None` where the device does not reach it: in a file that the driver could not register.
    pub fn device_address(&self) -> Option<u64> {
        self.place.device
    }

    /// Copies the object to the host, and waits for the stream.
    ///
    /// # Errors
    ///
    /// * [`TierError::Length`]: the slice has another length than the object.
    /// * [`TierError::Driver`]: the driver refused the copy, or earlier work of the stream failed.
    pub fn copy_to_slice(&self, bytes: &mut [u8]) -> Result<(), TierError> {
        let copy =
            self.copy(bytes.as_mut_ptr().expose_provenance() as u64, self.place.address, bytes.len())?;
        // SAFETY: the slice is borrowed until the stream is synchronised, below; the object stays where
        // it is as long as this guard.
        unsafe { self.stream.copy_batch(&[copy]) }?;
        Ok(self.stream.synchronize()?)
    }

    /// A copy of the whole object.
    fn copy(&self, destination: u64, source: u64, size: usize) -> Result<Transfer, TierError> {
        let object = self.size();
        if size == object {
            Ok(Transfer { destination, source, size })
        } else {
            Err(TierError::Length { slice: size, object })
        }
    }
}

impl fmt::Debug for Pin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({} bytes in {} memory at {:#x})", self.size(), self.tier, self.place.address)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let (core, index) = (&self.object.core, self.object.index);
        match self.stream.ticket() {
            Ok(ticket) => core.leases.fill(self.lease, Lease { index, ticket }),
            // Nobody knows when the stream is past its use, so the object stays where it is.
            Err(error) => note(core.stream.context(), error),
        }
    }
}

/// Takes note of an error that has no caller.
fn note(context: &crate::driver::Context, error: Error) {
    context.release().note(context.driver(), Err(error));
}

/// An object held in a tier, for work on one stream that reads and writes it.
///
/// Nobody else holds it meanwhile, on the host or the device.
#[derive(Debug)]
pub struct PinMut<'a>(Pin<'a>);

impl<'a> PinMut<'a> {
    pub(super) fn new(pin: Pin<'a>) -> Self {
        Self(pin)
    }

    /// Copies bytes of the host to the object, and waits for the stream.
    ///
    /// # Errors
    ///
    /// * [`TierError::Length`]: the slice has another length than the object.
    /// * [`TierError::Driver`]: the driver refused the copy, or earlier work of the stream failed.
    pub fn copy_from_slice(&mut self, bytes: &[u8]) -> Result<(), TierError> {
        let copy = self.copy(self.place.address, bytes.as_ptr().expose_provenance() as u64, bytes.len())?;
        // SAFETY: the slice is borrowed until the stream is synchronised, below; nobody else uses the
        // object as long as this guard.
        unsafe { self.stream.copy_batch(&[copy]) }?;
        Ok(self.stream.synchronize()?)
    }
}

impl<'a> Deref for PinMut<'a> {
    type Target = Pin<'a>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
