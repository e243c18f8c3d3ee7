//! Guards that hold objects where they are.

#![expect(unsafe_code, reason = "copies from and to the object that it holds")]

use std::fmt;
use std::ops::Deref;

use super::core::Lease;
use super::memory::TierBlock;
use super::object::TieredObject;
use super::{Tier, TierError};
use crate::error::Error;
use crate::lockfree::tier_state::TierState;
use crate::stream::{Stream, Transfer, parts};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::timeline::Ticket;

/// An object held in a tier, for work on one stream that reads it.
///
/// The object stays there until the guard is dropped and the stream is past what was submitted to
/// it by then. Dropping it never waits, and makes no driver call unless the guard has copied or
/// writes: then it puts a marker into the stream, so that the object is free when that work is
/// done, whatever is submitted later. After other work whose end matters, call [`Stream::mark`]
/// behind the guard's end.
pub struct Pin<'a> {
    object: &'a TieredObject,
    stream: &'a Stream,
    /// The slot that the end of the hold goes to.
    lease: usize,
    /// Whether the hold's end will be waited for: of a guard that writes, or has copied.
    marks: AtomicBool,
    /// Where the object is, for the host or the device, and for the device.
    address: u64,
    device: Option<u64>,
    tier: Tier,
}

impl<'a> Pin<'a> {
    pub(super) fn new(
        object: &'a TieredObject,
        lease: usize,
        state: TierState,
        write: bool,
        stream: &'a Stream,
    ) -> Self {
        let pin = Self::reading(object, lease, state, stream);
        pin.marks.store(write, Relaxed);
        let record = &object.core.records[object.index];
        if pin.tier == Tier::Managed && !record.near.swap(true, Relaxed) {
            let block = record.block(state.place());
            object.core.prefetch(pin.tier.index(), block, pin.size(), true);
        }
        pin
    }

    /// A hold for reading, in memory that stays where it is.
    #[inline]
    pub(super) fn reading(
        object: &'a TieredObject,
        lease: usize,
        state: TierState,
        stream: &'a Stream,
    ) -> Self {
        let record = &object.core.records[object.index];
        let TierBlock { address, device, .. } = record.block(state.place());
        let (tier, marks) = (Tier::from_index(state.tier()), AtomicBool::new(false));
        Self { object, stream, lease, marks, address, device, tier }
    }

    /// The tier.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The size of the object, in bytes.
    pub fn size(&self) -> usize {
        self.object.size()
    }

    /// The address of the first byte: the host's, in a tier that the host reaches, else the
    /// device's.
    ///
    /// The bytes there may be read, by work on the guard's stream before the guard is dropped, or
    /// by the host as long as it is held.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The device's address of the first byte, for work on the guard's stream before the guard is
    /// dropped.
    ///
    /// `None` where the device does not reach it: in a file that the driver could not register.
    ///
    /// Good for kernels. The driver refuses a copy or fill of pinned or file-mapped memory that
    /// crosses from one [registration](crate::memory::MemoryResource::pieces), of 256 MiB, to the
    /// next; those of this crate are cut there.
    pub fn device_address(&self) -> Option<u64> {
        self.device
    }

    /// Copies the object to the host, and waits for the stream.
    ///
    /// # Errors
    ///
    /// * [`TierError::Length`]: the slice has another length than the object.
    /// * [`TierError::Driver`]: the driver refused the copy, or earlier work of the stream failed.
    pub fn copy_to_slice(&self, bytes: &mut [u8]) -> Result<(), TierError> {
        let host = bytes.as_mut_ptr().expose_provenance() as u64;
        let to_host =
            |part: Part| Transfer { destination: part.host, source: part.object, size: part.size };
        let copies: Vec<_> = self.parts(host, bytes.len())?.map(to_host).collect();
        // SAFETY: the slice is borrowed until the stream is synchronised, below; the object stays
        // where it is as long as this guard.
        let copied = unsafe { self.stream.copy_batch(&copies) };
        self.marks.store(true, Relaxed);
        // Also after an error: some of the copies may have been submitted.
        let waited = self.stream.synchronize();
        Ok(copied.and(waited)?)
    }

    /// The parts of the whole object that one copy from or to the host may take each.
    fn parts(&self, host: u64, size: usize) -> Result<impl Iterator<Item = Part>, TierError> {
        let object = self.size();
        if size != object {
            return Err(TierError::Length { slice: size, object });
        }
        let (core, index, address) = (&self.object.core, self.object.index, self.address);
        let reach = move |at: usize, left| {
            let of_host = self.stream.host_memory(host + at as u64).reach(left);
            of_host.min(core.piece_len(index, self.tier.index(), address + at as u64, left))
        };
        Ok(parts(size, reach).map(move |part| Part {
            host: host + part.start as u64,
            object: address + part.start as u64,
            size: part.len(),
        }))
    }
}

impl fmt::Debug for Pin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({} bytes in {} memory at {:#x})", self.size(), self.tier, self.address)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        match self.stream.ready_timeline() {
            Some(timeline) if !self.marks.load(Relaxed) => {
                self.end(timeline.ticket_now().to_ticket());
            }
            _ => self.end_slow(),
        }
    }
}

impl Pin<'_> {
    /// Lets the end of the hold wait for the stream.
    #[inline]
    fn end(&self, ticket: Ticket) {
        self.object.core.leases.fill(self.lease, Lease { index: self.object.index, ticket });
    }

    #[cold]
    fn end_slow(&self) {
        match self.stream.ticket() {
            Ok(ticket) => {
                if self.marks.load(Relaxed) {
                    // An error comes again with the question.
                    let _marked = self.stream.mark();
                }
                self.end(ticket);
            }
            // It is unknown when the stream is past its use, so the object stays where it is.
            Err(error) => note(self.object.core.stream.context(), error),
        }
    }
}

/// What one copy between the host and an object takes.
#[derive(Clone, Copy, Debug)]
struct Part {
    host: u64,
    object: u64,
    size: usize,
}

/// Takes note of an error that has no caller.
fn note(context: &crate::driver::Context, error: Error) {
    context.release().note(context.driver(), Err(error));
}

/// An object held in a tier, for work on one stream that reads and writes it.
///
/// It has no other holder meanwhile, on the host or the device.
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
        let host = bytes.as_ptr().expose_provenance() as u64;
        let to_object =
            |part: Part| Transfer { destination: part.object, source: part.host, size: part.size };
        let copies: Vec<_> = self.parts(host, bytes.len())?.map(to_object).collect();
        // SAFETY: the slice is borrowed until the stream is synchronised, below; the object has
        // no other user as long as this guard.
        let copied = unsafe { self.stream.copy_batch(&copies) };
        // Also after an error: some of the copies may have been submitted.
        let waited = self.stream.synchronize();
        Ok(copied.and(waited)?)
    }
}

impl<'a> Deref for PinMut<'a> {
    type Target = Pin<'a>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
