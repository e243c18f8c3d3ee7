//! Slabs: who owns which bytes of a span.
//!
//! ```text
//!   SlabPool       alloc(size), dealloc(block)                       any thread
//!      |
//!   magazines      a few blocks of each class, taken in advance      one thread each
//!      |  refill, spill: up to 15 blocks
//!   Parcels        one spilled batch of each class, for who wants it all threads
//!      |
//!   Store          slabs: state word and bitmap of each              all threads
//!      |  growth, trim
//!   SliceMap       free slices of granules that slabs share
//!   RunMap         granules that are not committed
//!      |  commit, decommit
//!   MemoryResource
//! ```
//!
//! An allocation takes the last address of a magazine. An empty magazine is refilled with the batch that another
//! thread has spilled, or from the slab that this thread used last, where blocks are small, else from the lowest slab
//! of the class that has room: one compare-and-swap reserves the blocks, one more for each word takes their bits. If no
//! slab has room, an empty one of the same length is given the class, or free slices become one, or empty
//! slabs of other lengths are broken up, or a granule is committed. A free goes the same way back. How many blocks of a class a
//! thread keeps goes with the cube root of 1 / size: that makes the misses of all classes together fewest for the bytes. A slab
//! whose blocks are all free stays as it is until somebody wants its slices, the limit is reached, or a trim releases it.
//!
//! Slabs are small, down to 128 KiB, and share the granules of 2 MiB that are committed: the fewer blocks a slab
//! has, the sooner all of them are free. What threads keep is a reserve: before a pool that had stopped growing
//! commits more than it ever had, they give it back (`recall`).
//!
//! | operation | progress | calls the resource |
//! |---|---|---|
//! | `alloc` from a magazine, `dealloc` into one | wait-free | no |
//! | `alloc`, `dealloc` through the store | lock-free | no |
//! | `alloc` that grows | blocking in the resource; one thread a class, and one for what is less than a granule; the others take what is free | yes |
//! | `trim`, drop of the pool | blocking in the resource; stops no other operation | yes |
//! | first use of a pool by a thread | lock-free but for the heap, from which its cache comes | no |
//! | `dealloc_raw`, `block_at` | lock-free; constant time | no |
//! | `stats` | wait-free | no |

mod block;
pub(crate) mod budget;
#[cfg(not(all(test, loom)))]
mod bundle;
mod error;
pub(crate) mod geometry;
mod growth;
#[cfg(not(all(test, loom)))]
mod local_cache;
pub(crate) mod magazine;
#[cfg(not(all(test, loom)))]
mod options;
#[cfg(not(all(test, loom)))]
mod pool;
#[cfg(not(all(test, loom)))]
mod raw;
pub(crate) mod recall;
pub(crate) mod registry;
mod size_class;
mod span;
#[cfg(not(all(test, loom)))]
mod stats;
pub(crate) mod store;
#[cfg(not(all(test, loom)))]
mod thread_cache;
pub(crate) mod trim;

pub use self::block::{Block, WrongPool};
#[cfg(not(all(test, loom)))]
pub use self::bundle::Bundle;
pub use self::error::{AllocError, DeallocError, Exhaustion, PoolError};
#[cfg(not(all(test, loom)))]
pub use self::local_cache::LocalCache;
#[cfg(not(all(test, loom)))]
pub use self::options::PoolOptions;
#[cfg(not(all(test, loom)))]
pub use self::pool::SlabPool;
#[cfg(not(all(test, loom)))]
pub use self::raw::BlockInfo;
pub use self::size_class::SizeClass;
#[cfg(not(all(test, loom)))]
pub use self::stats::{ClassStats, PoolStats, SlabInfo};
pub use self::trim::Trimmed;
