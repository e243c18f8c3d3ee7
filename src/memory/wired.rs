//! A resource whose pieces a transport registers.

#![expect(unsafe_code, reason = "passes commits on; vouches for the addresses of the resource")]

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::budget::Share;
use super::lease::Attached;
use super::piece_table::{PieceTable, Place};
use super::registrations::Registrations;
use super::wire::Wire;
use super::{MemoryKind, MemoryResource, PhysicalMemory};
use crate::error::{CudaError, Error};
use crate::lockfree::piece_word::PieceFault;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A resource, each commit of which is registered with a transport.
///
/// ```text
///   commit      committed -> attached          attach fails: decommitted, the error returned
///   decommit    detached -> decommitted        leased: refused, nothing has changed
///                                              detach fails: lost, never used again
/// ```
///
/// A pool on it keeps every block in one piece, and takes pieces of 256 MiB if its options do not
/// say otherwise, so that transports have few large registrations. It passes everything else on to
/// the resource below. Shared by leases: what is leased outlives the pool.
///
/// # Examples
///
/// See [`Wire`].
pub struct WiredResource<R: MemoryResource, W: Wire> {
    shared: Arc<Shared<R, W>>,
}

/// What leases keep alive.
struct Shared<R: MemoryResource, W: Wire> {
    resource: ManuallyDrop<R>,
    wire: W,
    /// By the index of the piece.
    keys: Mutex<HashMap<u32, W::Key>>,
    table: PieceTable,
    /// Bytes of pieces that the transport may still use though they have no key any more.
    lost: AtomicUsize,
    /// What commits count against, as long as any of the memory is there.
    shares: Mutex<Vec<Arc<Share>>>,
}

impl<R: MemoryResource, W: Wire> WiredResource<R, W> {
    /// Has `wire` register what is committed of `resource`, of which nothing is committed yet.
    pub fn new(resource: R, wire: W) -> Self {
        let table = PieceTable::new(resource.size(), resource.granularity());
        let (resource, keys) = (ManuallyDrop::new(resource), Mutex::new(HashMap::new()));
        let (lost, shares) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        Self { shared: Arc::new(Shared { resource, wire, keys, table, lost, shares }) }
    }

    /// The transport.
    pub fn wire(&self) -> &W {
        &self.shared.wire
    }

    /// The resource below.
    pub fn upstream(&self) -> &R {
        &self.shared.resource
    }
}

impl<R: MemoryResource, W: Wire> Shared<R, W> {
    /// Commits a piece whose place the caller has claimed, and registers it: both or neither.
    fn commit(&self, place: Place) -> Result<(), Error> {
        // SAFETY: the caller of the commit promises what that of this one has to.
        let committed = unsafe { self.resource.commit(place.offset, place.len) };
        committed.inspect_err(|_| self.table.close(place))?;
        match self.attach(place) {
            Ok(key) => {
                self.keys.lock().insert(place.index, key);
                self.table.open(place);
                Ok(())
            }
            Err(error) => {
                // SAFETY: committed above, and nothing was told of it.
                let undone = unsafe { self.resource.decommit(place.offset, place.len) };
                self.end(place, undone.is_ok());
                Err(error)
            }
        }
    }

    /// Ends the registration of a piece that the caller has retired, and decommits it.
    fn decommit(&self, place: Place) -> Result<(), Error> {
        if let Err(error) = self.detach(place) {
            self.lost.fetch_add(place.len, Relaxed);
            self.end(place, false);
            return Err(error);
        }
        // A transport that ends a registration of host memory lets children have it (rdma-core,
        // `madvise(MADV_DOFORK)`).
        self.resource.keep_from_children(place.offset, place.len);
        // SAFETY: one commit's range, by the table. It is not used: the caller of the decommit
        // promises that of the program, and the transport has just ended its registration.
        let outcome = unsafe { self.resource.decommit(place.offset, place.len) };
        self.end(place, outcome.is_ok());
        outcome
    }

    fn attach(&self, place: Place) -> Result<W::Key, Error> {
        let piece = self.piece(place);
        let mut key = Err(NOT_CALLED);
        self.resource.with_context(&mut || key = caught(|| self.wire.attach(&piece)))?;
        key
    }

    fn detach(&self, place: Place) -> Result<(), Error> {
        let piece = self.piece(place);
        let mut key = self.keys.lock().remove(&place.index);
        let mut outcome = Err(NOT_CALLED);
        self.resource.with_context(&mut || {
            if let Some(key) = key.take() {
                outcome = caught(|| self.wire.detach(&piece, key));
            }
        })?;
        outcome
    }

    /// The piece of a place that the caller has claimed is gone, or lost.
    fn end(&self, place: Place, is_gone: bool) {
        if is_gone { self.table.close(place) } else { self.table.lose(place) }
    }
}

impl<R: MemoryResource, W: Wire> Attached for Shared<R, W> {
    fn table(&self) -> &PieceTable {
        &self.table
    }

    fn base(&self) -> u64 {
        self.resource.base()
    }

    fn kind(&self) -> MemoryKind {
        self.resource.kind()
    }

    fn ordinal(&self) -> Option<i32> {
        self.resource.ordinal()
    }

    fn count_against(&self, share: &Arc<Share>) {
        self.shares.lock().push(Arc::clone(share));
    }
}

impl<R: MemoryResource, W: Wire> Drop for Shared<R, W> {
    fn drop(&mut self) {
        // In a forked child neither the transport nor the memory is its own.
        if self.resource.check_fork().is_ok() {
            // What a lease has kept from its pool's end.
            for place in self.table.all().collect::<Vec<_>>() {
                if self.table.retire(place.offset, place.len).is_ok() {
                    let _lost = self.decommit(place);
                }
            }
            let lost = self.lost.load(Relaxed);
            if lost > 0 {
                #[expect(clippy::mem_forget, reason = "what is leaked stays counted")]
                std::mem::forget(std::mem::take(&mut *self.shares.lock()));
                // Its end would take back what the transport may use.
                return self.resource.note_leak(lost);
            }
        }
        // SAFETY: dropped here alone, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.resource) };
    }
}

// SAFETY: passes everything on to a resource that keeps the promises; a commit that fails is undone
// or its range refused from then on, and so is what overlaps.
unsafe impl<R: MemoryResource + 'static, W: Wire + 'static> MemoryResource for WiredResource<R, W>
where
    W::Key: 'static,
{
    fn base(&self) -> u64 {
        self.shared.resource.base()
    }

    fn size(&self) -> usize {
        self.shared.resource.size()
    }

    fn granularity(&self) -> usize {
        self.shared.resource.granularity()
    }

    fn kind(&self) -> MemoryKind {
        self.shared.resource.kind()
    }

    fn ordinal(&self) -> Option<i32> {
        self.shared.resource.ordinal()
    }

    fn peers(&self) -> &[i32] {
        self.shared.resource.peers()
    }

    fn is_whole(&self) -> bool {
        self.shared.resource.is_whole()
    }

    fn limit_to(&mut self, bytes: usize) -> Result<(), Error> {
        // Once, before any other thread has the resource; without a piece there is no lease.
        let is_whole = self.is_whole();
        match Arc::get_mut(&mut self.shared) {
            Some(shared) => shared.resource.limit_to(bytes),
            None if is_whole => Err(HELD),
            // Its base is fixed, and it is memory only where it is committed.
            None => Ok(()),
        }
    }

    fn check_fork(&self) -> Result<(), Error> {
        self.shared.resource.check_fork()
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        self.shared.resource.device_address(offset, len)
    }

    fn piece_len(&self, offset: usize, len: usize) -> usize {
        self.shared.resource.piece_len(offset, len)
    }

    fn physical_memory(&self) -> Option<PhysicalMemory> {
        self.shared.resource.physical_memory()
    }

    fn is_free(&self, offset: usize, len: usize) -> bool {
        self.shared.resource.is_free(offset, len)
    }

    fn note_leak(&self, bytes: usize) {
        self.shared.resource.note_leak(bytes);
    }

    fn with_context(&self, call: &mut dyn FnMut()) -> Result<(), Error> {
        self.shared.resource.with_context(call)
    }

    fn keep_from_children(&self, offset: usize, len: usize) {
        self.shared.resource.keep_from_children(offset, len);
    }

    fn registrations(&self) -> Option<Registrations> {
        let shared: Arc<Shared<R, W>> = Arc::clone(&self.shared);
        Some(Registrations::new(shared))
    }

    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.shared.resource.check_fork()?;
        let place = self.shared.table.begin(offset, len).map_err(|_| NOT_FREE)?;
        self.shared.commit(place)
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.shared.resource.check_fork()?;
        let place = self.shared.table.retire(offset, len).map_err(|fault| match fault {
            PieceFault::Leased => Error::Leased,
            _ => NOT_COMMITTED,
        })?;
        self.shared.decommit(place)
    }
}

impl<R: MemoryResource, W: Wire> Debug for WiredResource<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<R: MemoryResource, W: Wire> Debug for Shared<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("WiredResource");
        out.field("kind", &self.resource.kind()).field("pieces", &self.table.all().count());
        out.field("lost", &self.lost.load(Relaxed)).finish_non_exhaustive()
    }
}

/// What a transport answers. A panic would unwind through a commit that is half made, and through
/// its caller's accounts.
fn caught<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(PANICKED))
}

const PANICKED: Error =
    Error::Transport { call: "a call of the transport that panicked", code: -1 };

/// The context of the memory cannot be used, and the transport was not called.
const NOT_CALLED: Error =
    Error::Driver { call: "registration of a piece", code: CudaError::INVALID_CONTEXT };

/// The limit is where the memory is made, and a handle holds the resource: drop it, and ask the
/// pool for one.
const HELD: Error = Error::Driver {
    call: "limit of memory in one allocation, whose registrations are held",
    code: CudaError::INVALID_VALUE,
};

const NOT_FREE: Error =
    Error::Driver { call: "commit of a range that is not free", code: CudaError::INVALID_VALUE };

const NOT_COMMITTED: Error = Error::Driver {
    call: "decommit of a range that is not one commit's",
    code: CudaError::INVALID_VALUE,
};
