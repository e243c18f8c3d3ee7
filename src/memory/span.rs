//! The common part of the resources: a span that commits pieces, and the methods that follow.
//!
//! ```text
//!   commit      claim -> back -> counted     back fails: undone -> released, else lost
//!   decommit    unback -> released, counted  unback fails: lost
//!   suspend     memory goes, the claim stays; decommit then only ends the claim
//!   drop        give_back; what fails is noted, and leaked
//! ```
//!
//! A range that is lost stays claimed, so that its addresses are not used again.

use std::fmt::Debug;
use std::ops::{Deref, DerefMut};

use super::device_options::{Granted, Handles};
use super::owner::Owner;
use super::piece_map::PieceMap;
use super::report::{Backing, ResourceReport};
use super::{CANNOT_SUSPEND, PhysicalMemory};
use crate::error::{CudaError, Error};

/// The account of a span: its committed ranges, and the context that it belongs to.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) pieces: PieceMap,
    pub(super) owner: Owner,
}

/// One way to reserve addresses and to put memory behind pieces of them.
///
/// The ranges are as in [`MemoryResource`](super::MemoryResource), and so are its promises; but a
/// range that overlaps or was not committed is refused instead of being forbidden.
pub(super) trait Span: Debug + Send + Sync {
    fn ledger(&self) -> &Ledger;

    /// The address of the first byte. A span that has addresses only with its memory, and could not
    /// get that, has an address where there is none, and every commit returns the error.
    fn base(&self) -> u64;

    /// The address of the first byte, or why there is none; another call may have one then.
    fn try_base(&self) -> Result<u64, Error> {
        Ok(self.base())
    }

    fn size(&self) -> usize;
    fn granularity(&self) -> usize;
    fn backing(&self) -> Backing;

    /// As [`MemoryResource::limit_to`](super::MemoryResource::limit_to).
    fn limit_to(&mut self, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    /// What a device's memory was made for.
    fn granted(&self) -> Option<&Granted> {
        None
    }

    /// The NUMA node that pages are asked from.
    fn node(&self) -> Option<u32> {
        None
    }

    /// Where the device sees a range that is committed, in one piece.
    fn device_address(&self, offset: usize, len: usize) -> Option<u64>;

    /// As [`MemoryResource::piece_len`](super::MemoryResource::piece_len).
    fn piece_len(&self, _offset: usize, len: usize) -> usize {
        len
    }

    /// As [`MemoryResource::physical_memory`](super::MemoryResource::physical_memory).
    fn physical_memory(&self) -> Option<PhysicalMemory> {
        None
    }

    /// As [`MemoryResource::keep_from_children`](super::MemoryResource::keep_from_children).
    fn keep_from_children(&self, _offset: usize, _len: usize) {}

    /// As [`MemoryResource::with_context`](super::MemoryResource::with_context).
    fn with_context(&self, call: &mut dyn FnMut()) -> Result<(), Error> {
        let _section = self.owner().enter()?;
        call();
        Ok(())
    }

    /// Puts memory behind a range that is claimed.
    fn back(&self, offset: usize, len: usize) -> Result<(), Failed>;

    /// Takes the memory behind a range away again. After an error the range is lost.
    fn unback(&self, offset: usize, len: usize) -> Result<(), Error>;

    /// Takes the memory behind a range away for a while; after an error it is as it was.
    fn suspend(&self, _offset: usize, _len: usize) -> Result<(), Error> {
        Err(CANNOT_SUSPEND)
    }

    /// Puts memory behind a suspended range again; after an error it is as it was.
    fn resume(&self, _offset: usize, _len: usize) -> Result<(), Error> {
        Err(CANNOT_SUSPEND)
    }

    /// Whether a committed range is suspended.
    fn is_suspended(&self, _offset: usize, _len: usize) -> bool {
        false
    }

    /// Gives everything back; called at most once. After an error, what the device may still use
    /// is leaked.
    fn give_back(&mut self) -> Result<(), Error>;

    fn owner(&self) -> &Owner {
        &self.ledger().owner
    }

    fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let Ledger { pieces, owner } = self.ledger();
        owner.context().driver().check_fork()?;
        if !pieces.claim(offset, len) {
            return Err(NOT_FREE);
        }
        self.back(offset, len).map_err(|failed| {
            if failed.undone {
                pieces.release(offset, len);
            } else {
                owner.tally.lose(len);
            }
            failed.error
        })?;
        owner.tally.commit(len);
        Ok(())
    }

    fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let Ledger { pieces, owner } = self.ledger();
        owner.context().driver().check_fork()?;
        if !pieces.is_committed(offset, len) {
            return Err(NOT_COMMITTED);
        }
        // A part of a commit may be a part of a registration or a mapping, which cannot be cut.
        if !pieces.is_one_claim(offset, len) {
            return Err(NOT_ONE_COMMIT);
        }
        if self.is_suspended(offset, len) {
            pieces.release(offset, len);
            return Ok(());
        }
        self.unback(offset, len).inspect_err(|_| owner.tally.lose(len))?;
        pieces.release(offset, len);
        owner.tally.decommit(len);
        Ok(())
    }

    /// As [`MemoryResource::is_free`](super::MemoryResource::is_free).
    fn is_free(&self, offset: usize, len: usize) -> bool {
        self.ledger().pieces.is_free(offset, len)
    }

    /// As [`MemoryResource::note_leak`](super::MemoryResource::note_leak).
    fn note_leak(&self, bytes: usize) {
        let bytes = match self.backing() {
            Backing::Pieces => bytes,
            Backing::Whole => self.size(),
        };
        let owner = self.owner();
        // In a forked child nothing is its own, and so nothing leaks.
        owner.note(owner.context().driver().check_fork().and(Err(Error::Leaked { bytes })));
    }

    fn report(&self) -> ResourceReport {
        let granted = self.granted();
        ResourceReport {
            handles: granted.map_or(Handles::NONE, |granted| granted.handles),
            rdma: granted.is_some_and(|granted| granted.rdma),
            peers: granted.map_or(0, |granted| granted.peers.len()),
            ..self.owner().tally.report(self.backing(), self.node())
        }
    }
}

/// An error on the way to memory behind a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether the range is as it was. If not, it is lost.
    pub(super) undone: bool,
}

impl Failed {
    /// Undoes an earlier step, too, where all later ones were undone. `undo` returns whether it
    /// succeeded.
    pub(super) fn and_undo(self, undo: impl FnOnce() -> bool) -> Self {
        Self { undone: self.undone && undo(), ..self }
    }
}

impl From<Error> for Failed {
    /// An error of a call that has changed nothing.
    fn from(error: Error) -> Self {
        Self { error, undone: true }
    }
}

/// A span that gives everything back when it is dropped.
#[derive(Debug)]
pub(super) struct OwnedSpan {
    span: Box<dyn Span>,
    is_released: bool,
}

impl OwnedSpan {
    pub(super) fn new(span: impl Span + 'static) -> Self {
        Self { span: Box::new(span), is_released: false }
    }

    /// Gives everything back, at most once.
    pub(super) fn release(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_released, true) {
            return Ok(());
        }
        self.span.give_back()
    }
}

impl Deref for OwnedSpan {
    type Target = dyn Span;

    fn deref(&self) -> &Self::Target {
        &*self.span
    }
}

impl DerefMut for OwnedSpan {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.span
    }
}

impl Drop for OwnedSpan {
    fn drop(&mut self) {
        let outcome = self.release();
        self.span.owner().note(outcome);
    }
}

/// The error of a commit of a range that overlaps another or leaves the span: nothing has changed.
const NOT_FREE: Error =
    Error::Driver { call: "commit of a range that is not free", code: CudaError::INVALID_VALUE };

/// The error of a decommit of a range that is not committed: nothing has changed.
const NOT_COMMITTED: Error = Error::Driver {
    call: "decommit of a range that is not committed",
    code: CudaError::INVALID_VALUE,
};

/// The error of a decommit of a part of a commit, or of several: nothing has changed.
const NOT_ONE_COMMIT: Error = Error::Driver {
    call: "decommit of a range that is not one commit's",
    code: CudaError::INVALID_VALUE,
};

/// Makes a struct with a field `span: OwnedSpan` a memory resource.
macro_rules! resource_of_span {
    ($name:ident, $kind:ident, $commit:literal, $decommit:literal) => {
        impl $name {
            /// Where the device sees `len` bytes from `offset` of the span on.
            ///
            /// `None` if not all of them are committed and within the device's reach, or if they
            /// lie in several [pieces]($crate::memory::MemoryResource::pieces) of registered
            /// memory.
            #[doc(alias = "cuMemHostGetDevicePointer")]
            pub fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
                self.span.device_address(offset, len)
            }

            /// The memory obtained so far, and its cost.
            pub fn report(&self) -> $crate::memory::ResourceReport {
                self.span.report()
            }

            /// The context that the memory belongs to.
            pub fn context(&self) -> &$crate::driver::Context {
                self.span.owner().context()
            }

            /// Gives everything back.
            ///
            /// # Errors
            ///
            /// The driver's error; memory that the device may still use is leaked then.
            pub fn close(mut self) -> Result<(), $crate::error::Error> {
                self.span.release()
            }
        }

        // SAFETY: a `Span` keeps its addresses until the drop, base and size are multiples of the
        // granularity, a commit that fails is undone, and what overlaps is refused.
        unsafe impl $crate::memory::MemoryResource for $name {
            fn base(&self) -> u64 {
                self.span.base()
            }

            fn size(&self) -> usize {
                self.span.size()
            }

            fn granularity(&self) -> usize {
                self.span.granularity()
            }

            fn kind(&self) -> $crate::memory::MemoryKind {
                $crate::memory::MemoryKind::$kind
            }

            fn ordinal(&self) -> Option<i32> {
                Some(self.span.owner().ordinal())
            }

            fn peers(&self) -> &[i32] {
                self.span.granted().map_or(&[], |granted| &granted.peers)
            }

            fn limit_to(&mut self, bytes: usize) -> Result<(), $crate::error::Error> {
                self.span.limit_to(bytes)
            }

            fn is_whole(&self) -> bool {
                self.span.backing() == $crate::memory::Backing::Whole
            }

            fn check_fork(&self) -> Result<(), $crate::error::Error> {
                self.span.owner().context().driver().check_fork()
            }

            fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
                self.span.device_address(offset, len)
            }

            fn piece_len(&self, offset: usize, len: usize) -> usize {
                self.span.piece_len(offset, len)
            }

            fn physical_memory(&self) -> Option<$crate::memory::PhysicalMemory> {
                self.span.physical_memory()
            }

            fn is_free(&self, offset: usize, len: usize) -> bool {
                self.span.is_free(offset, len)
            }

            fn note_leak(&self, bytes: usize) {
                self.span.note_leak(bytes);
            }

            fn with_context(&self, call: &mut dyn FnMut()) -> Result<(), $crate::error::Error> {
                self.span.with_context(call)
            }

            fn keep_from_children(&self, offset: usize, len: usize) {
                self.span.keep_from_children(offset, len);
            }

            unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), $crate::error::Error> {
                let _range = $crate::profile::range!($commit, len);
                self.span.commit(offset, len)
            }

            unsafe fn suspend(
                &self,
                offset: usize,
                len: usize,
            ) -> Result<(), $crate::error::Error> {
                let _range = $crate::profile::range!($decommit, len);
                self.span.suspend(offset, len)
            }

            unsafe fn resume(&self, offset: usize, len: usize) -> Result<(), $crate::error::Error> {
                let _range = $crate::profile::range!($commit, len);
                self.span.resume(offset, len)
            }

            unsafe fn decommit(
                &self,
                offset: usize,
                len: usize,
            ) -> Result<(), $crate::error::Error> {
                let _range = $crate::profile::range!($decommit, len);
                self.span.decommit(offset, len)
            }
        }
    };
}
pub(super) use resource_of_span;
