//! Objects that live in device, managed, pinned or file-mapped memory and move by asynchronous
//! copies.
//!
//! An engine uses [`TieredPool`], [`TieredObject`] and the guards [`Pin`] and [`PinMut`].
//!
//! ```text
//!   TieredPool     alloc(size, tier), map_file, step                      any thread
//!      |
//!   TieredObject   pin(tier, stream) -> guard with an address; hints
//!      |
//!   records        word: tier, pins, move under way | two blocks | file   one an object
//!      |
//!   moves, leases  what waits for the device: copies, ended guards
//!      |
//!   SlabPool       one a tier: Device > Managed > Pinned > FileMapped
//! ```
//!
//! An object is in one tier at a time. [`pin`](TieredObject::pin) holds it in the tier that is
//! asked for, and moves it there first if need be; a tier that is full sends its coldest objects,
//! by a clock with second chances, to the next tier below that has room. A pinned object stays, and
//! so does one that the device still uses: the end of a guard is noted with the stream's ticket,
//! and counts when that is complete.
//!
//! # Moves
//!
//! A copy runs on the pool's own stream, while the object is where it was and can be pinned there.
//! When the copy is complete the object changes tiers in one step, unless it is held, or was
//! written to or dropped meanwhile; then the copy was in vain. A reader does not wait for it; a
//! writer does, so that nothing writes what a copy still reads. A copy that the driver refuses ends
//! the same way, and its error goes to the caller that asked for it, so an object is always in one
//! place, whole and readable. Nothing runs in the background: copies end in a call of the pool,
//! such as [`TieredPool::step`].
//!
//! A move between
//!
//! * two tiers is a copy; several go in one driver call where the driver can;
//! * a tier and the file is nothing, for an object that was not written since it was read there;
//! * managed memory and the processor that uses it is advice and prefetch, which the driver may
//!   refuse; that is counted.
//!
//! Progress, and driver calls:
//!
//! * `pin` of an object in its tier, drop of a guard: lock-free. No driver call; two at the end of
//!   a guard that writes or has copied.
//! * `pin_mut` of an object in its tier: waits for reads by others and for a copy away, until the
//!   pool's deadline. It polls streams.
//! * `pin` of an object elsewhere: waits for room and for the copy, until the pool's deadline. It
//!   allocates, copies and polls streams.
//! * `try_alloc`, `try_pin`, `prefetch`, `step`: never wait for the device. Their calls are the
//!   same.
//! * drop of an object: lock-free, without a driver call; memory in use is freed by a later call.
//!
//! # Why not on buffers
//!
//! The tiers rest on slabs and tickets themselves, not on the buffers of a pool: a block has one
//! owner, the object, and one rule says when it is free.

mod core;
mod demote;
mod error;
mod file;
mod hold;
mod memory;
mod moves;
mod object;
mod options;
mod pin;
mod planned;
mod pool;
mod rate_limit;
mod record;
pub(crate) mod slots;
mod stats;

use std::fmt;

pub use self::error::{Blocked, TierError};
pub use self::file::MappedFile;
pub use self::object::TieredObject;
pub use self::options::TierBuilder;
pub use self::pin::{Pin, PinMut};
pub use self::pool::TieredPool;
pub use self::stats::{TierStats, TierUse};
use crate::lockfree::tier_state::FILE;
use crate::memory::MemoryKind;

/// A kind of memory that objects live in; the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Memory of the device.
    Device,
    /// Managed memory, which the driver moves to the processor that uses it.
    Managed,
    /// Pinned memory of the host.
    Pinned,
    /// A file in host memory.
    FileMapped,
}

impl Tier {
    const ALL: [Self; FILE + 1] = [Self::Device, Self::Managed, Self::Pinned, Self::FileMapped];

    fn index(self) -> usize {
        match self {
            Self::Device => 0,
            Self::Managed => 1,
            Self::Pinned => 2,
            Self::FileMapped => FILE,
        }
    }

    fn from_index(index: usize) -> Self {
        Self::ALL[index]
    }

    fn kind(self) -> MemoryKind {
        match self {
            Self::Device => MemoryKind::Device,
            Self::Managed => MemoryKind::Managed,
            Self::Pinned => MemoryKind::Pinned,
            Self::FileMapped => MemoryKind::FileMapped,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Managed => "managed",
            Self::Pinned => "pinned",
            Self::FileMapped => "file-mapped",
        })
    }
}
