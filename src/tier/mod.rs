//! Objects that live in device, managed, pinned or file-mapped memory and move by asynchronous copies.
//!
//! ```text
//!   TieredPool     alloc(size, tier), map_file, step                      any thread
//!      |
//!   TieredObject   pin(tier, stream) -> guard with an address; hints
//!      |
//!   records        word: tier, pins, move under way | two places | file   one an object
//!      |
//!   moves, leases  what waits for the device: copies, ended guards
//!      |
//!   SlabPool       one a tier: Device > Managed > Pinned > FileMapped
//! ```
//!
//! An object is in one tier at a time. [`pin`](TieredObject::pin) holds it in the tier that is asked
//! for, and moves it there first if need be; a tier that is full sends its coldest objects, by a clock with
//! second chances, to the next tier below that has room. What is pinned stays, and so does what the
//! device still uses: the end of a guard is noted with the stream's ticket, and counts when that is
//! complete.
//!
//! # Moves
//!
//! A copy runs on the pool's own stream, while the object is where it was and can be pinned there. When
//! the copy is complete the object changes tiers in one step, unless somebody holds it, wrote to it or
//! dropped it meanwhile; then the copy was in vain. A copy that the driver refuses ends the same way, and
//! its error goes to who asked for it, so an object is always in one place, whole and readable.
//! Nothing runs in the background: copies end when somebody calls, be it [`TieredPool::step`].
//!
//! | between | by |
//! |---|---|
//! | two tiers | a copy; several in one driver call where the driver can |
//! | a tier and the file, for an object that was not written since it was read from there | nothing: it is there |
//! | managed memory and its user | advice and prefetch, which the driver may refuse; that is counted |
//!
//! | operation | progress | driver calls |
//! |---|---|---|
//! | `pin` of what is in its tier, drop of a guard | lock-free | none |
//! | `pin` of what is elsewhere | waits for room and for the copy, until the pool's deadline | allocation, copy, questions to streams |
//! | `try_pin`, `prefetch`, `step` | never wait for the device | as above |
//! | drop of an object | lock-free; memory in use is freed by a later call | none |
//!
//! # Why not on buffers
//!
//! The tiers rest on slabs and tickets themselves, not on the buffers of a pool: a block has one owner, the
//! object, and one rule says when it is free.

mod core;
mod demote;
mod error;
mod file;
mod moves;
mod object;
mod options;
mod pace;
mod packed;
mod pin;
mod pool;
mod record;
mod shelf;
mod slots;
mod stats;

use std::fmt;

pub use self::error::{Obstacle, TierError};
pub use self::file::MappedFile;
pub use self::object::TieredObject;
pub use self::options::TierBuilder;
pub use self::pin::{Pin, PinMut};
pub use self::pool::TieredPool;
pub use self::stats::{TierStats, TierUse};
use crate::lockfree::tier_state::FILE;

/// A kind of memory that objects live in; the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Memory of the device.
    Device,
    /// Managed memory, which the driver moves to whoever uses it.
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
