//! The kind of every error: one table, so that what two layers call by two names has one number.

use crate::driver::DeferredError;
use crate::error::ErrorKind;
use crate::graph::{GraphError, InstantiateError};
use crate::manager::{AllocateError, ManagerError, SpecError};
use crate::memory::LeaseError;
use crate::pool::{FreeError, HostError, LeakReport, RawError, SleepError};
use crate::slab::{AllocError, DeallocError, Exhaustion, PoolError};
use crate::staging::{BuildError, CountFault, ReleaseError, SlotError, SlotFault, StageError};
use crate::tier::TierError;
use crate::timeline::WaitError;

/// Gives error types their `kind`.
macro_rules! kinds {
    ($($error:ty: |$this:ident| $kind:expr;)+) => {
        $(impl $error {
            /// What the caller can do about it.
            #[must_use]
            pub fn kind(&self) -> ErrorKind {
                let $this = self;
                $kind
            }
        })+
    };
}

kinds! {
    DeferredError: |error| match error {
        Self::Driver(error) => error.kind(),
        Self::Deadline { .. } => ErrorKind::TimedOut,
    };
    WaitError: |error| match error {
        Self::Driver(error) => error.kind(),
        Self::Deadline(_) => ErrorKind::TimedOut,
    };
    AllocError: |error| match error {
        Self::Exhausted(exhaustion) => exhaustion.kind(),
        Self::TooLarge { .. } | Self::Unaligned { .. } => ErrorKind::Invalid,
        Self::TooMany { .. } => ErrorKind::OutOfMemory,
        Self::Asleep => ErrorKind::WouldBlock,
        Self::Upstream(error) => error.kind(),
    };
    SleepError: |error| match error {
        Self::Busy(_) => ErrorKind::TimedOut,
        Self::Failed { error, .. } => error.kind(),
    };
    // A driver that has lost the context says so here too: no memory will come of waiting.
    Exhaustion: |error| match error.cause.map(|cause| cause.kind()) {
        Some(ErrorKind::ContextLost) => ErrorKind::ContextLost,
        _ => ErrorKind::OutOfMemory,
    };
    DeallocError: |error| match error {
        Self::Foreign { .. } | Self::Interior { .. } => ErrorKind::Invalid,
        Self::WrongPool { .. } => ErrorKind::WrongOwner,
        Self::Stale { .. } | Self::NotLive { .. } => ErrorKind::Stale,
    };
    PoolError: |error| match error {
        Self::Granule { .. } | Self::Limit { .. } | Self::Span { .. } => ErrorKind::Invalid,
        Self::Tables { .. } => ErrorKind::OutOfMemory,
        Self::Upstream { cause, .. } | Self::Addresses { cause, .. } => cause.kind(),
    };
    LeaseError: |error| match error {
        Self::NotRegistered { .. } | Self::OutOfPiece { .. } => ErrorKind::Invalid,
        Self::Stale { .. } => ErrorKind::Stale,
        Self::TooMany { .. } => ErrorKind::WouldBlock,
    };
    HostError: |error| match error {
        Self::Kind(_) => ErrorKind::Invalid,
        Self::Shared => ErrorKind::WouldBlock,
        Self::Busy(error) => error.kind(),
    };
    RawError: |error| match error {
        Self::WrongPool { .. } => ErrorKind::WrongOwner,
        Self::Stale { .. } | Self::NotLive { .. } => ErrorKind::Stale,
    };
    FreeError: |error| match error {
        Self::Handle(error) => error.kind(),
        Self::Stream(error) => error.kind(),
    };
    LeakReport: |_report| ErrorKind::WouldBlock;
    TierError: |error| match error {
        Self::Busy { .. } => ErrorKind::WouldBlock,
        Self::Absent(_)
        | Self::TooLarge { .. }
        | Self::OutOfFile { .. }
        | Self::Length { .. }
        | Self::ReadOnly => ErrorKind::Invalid,
        Self::TooManyObjects { .. } => ErrorKind::OutOfMemory,
        Self::Pool(error) => error.kind(),
        Self::Driver(error) => error.kind(),
    };
    GraphError: |error| match error {
        Self::Driver(error) => error.kind(),
        Self::OtherContext | Self::ForeignNode(_) => ErrorKind::WrongOwner,
        Self::Capture { error, .. } => match error.kind() {
            lost @ (ErrorKind::ContextLost | ErrorKind::Forked) => lost,
            _ => ErrorKind::Capturing,
        },
        Self::ZeroLength
        | Self::Misaligned { .. }
        | Self::MemOps { .. }
        | Self::DuplicateEdge(_)
        | Self::Cycle(_)
        | Self::Direction { .. }
        | Self::NotKnown(_)
        | Self::CannotDisable(_)
        | Self::MemoryNode { .. }
        | Self::Update { .. }
        | Self::NotCapturing => ErrorKind::Invalid,
    };
    InstantiateError: |error| error.error.kind();
    SlotError: |error| match error {
        Self::Unknown(_) | Self::UnknownCount(_) | Self::Type { .. } => ErrorKind::Invalid,
    };
    CountFault: |fault| match fault {
        Self::Foreign => ErrorKind::WrongOwner,
        Self::TooLarge { .. } | Self::Written => ErrorKind::Invalid,
    };
    SlotFault: |fault| match fault {
        Self::Foreign | Self::OtherDevice { .. } => ErrorKind::WrongOwner,
        Self::TooManyHandles => ErrorKind::WouldBlock,
        Self::Forgotten
        | Self::Length { .. }
        | Self::CountNotSet
        | Self::Twice
        | Self::IsDynamic
        | Self::NotDynamic
        | Self::NeedsPerSlot
        | Self::NotPinned { .. }
        | Self::NotDevice { .. }
        | Self::Embedded
        | Self::Shape(_) => ErrorKind::Invalid,
    };
    StageError: |error| match error {
        Self::WouldBlock | Self::ReaderOpen { .. } => ErrorKind::WouldBlock,
        Self::Stalled(_) => ErrorKind::TimedOut,
        Self::TooLarge { .. }
        | Self::RingDepth(_)
        | Self::RingSlot { .. }
        | Self::InLaunch
        | Self::Streams { .. } => ErrorKind::Invalid,
        Self::Slot { fault, .. } => fault.kind(),
        Self::Count { fault, .. } => fault.kind(),
        Self::Superseded => ErrorKind::Stale,
        Self::ReaderCaptured { .. } => ErrorKind::Capturing,
        Self::OtherDevice { .. } | Self::Exchanged => ErrorKind::WrongOwner,
        Self::Driver(error) => error.kind(),
        Self::Graph(error) => error.kind(),
    };
    BuildError: |error| match error {
        Self::NoSlots
        | Self::NoSlotBefore(_)
        | Self::TooManySlots { .. }
        | Self::UnknownCount(_)
        | Self::DuplicateCount(_)
        | Self::CountOfCount(_)
        | Self::TooManyCounts { .. }
        | Self::DuplicateSlot(_)
        | Self::Bucket(_)
        | Self::BucketOf(_)
        | Self::RingDepth(_)
        | Self::Limit { .. }
        | Self::TooLarge
        | Self::KeepNeedsPerSlot(_)
        | Self::SourceNeedsPerSlot(_)
        | Self::ResultsNeedCompletion
        | Self::ReadEventsInPlace
        | Self::ReadEventsOfView
        | Self::ReadEventsOfPeers
        | Self::PeerSlot(_)
        | Self::View { .. } => ErrorKind::Invalid,
        Self::Driver(error) => error.kind(),
        Self::Graph(error) => error.kind(),
    };
    SpecError: |_error| ErrorKind::Invalid;
    AllocateError: |error| match error {
        Self::Spec(error) => error.kind(),
        Self::Place(_) => ErrorKind::WrongOwner,
        Self::Memory(error) => error.kind(),
        Self::Tier(error) => error.kind(),
    };
    ManagerError: |error| match error {
        Self::Build(error) => error.kind(),
        Self::Spec { error, .. } => error.kind(),
        Self::Pool(error) => error.kind(),
        Self::Tier(error) => error.kind(),
        Self::Allocate(error) => error.kind(),
        Self::Input { .. } => ErrorKind::Invalid,
        Self::Stage(error) => error.kind(),
        Self::Driver(error) => error.kind(),
    };
}

impl<Tag> ReleaseError<Tag> {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }
}
