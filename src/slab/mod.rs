//! A slab allocator over a span of address space, lock-free but for searches and growth.
//!
//! [`SlabPool`], [`PoolOptions`] and [`Block`] are for engines that decide themselves when a block
//! may be reused; [`Pool`](crate::pool::Pool) does that in the order of streams. The rest is
//! statistics and errors.
//!
//! ```text
//!   SlabPool       alloc(size), dealloc(block)                       any thread
//!      |
//!   Cache          magazines: a few blocks of each class             one thread each
//!      |  refill, spill: up to 15 blocks
//!   TransferCache  four spilled batches of each class                all threads
//!      |
//!   Store          slabs: state word and bitmap of each              all threads
//!      |  emptied runs, growth, trim                                 under a lock
//!   Space          the map: runs, holes, what streams have retired, gaps; pieces
//!      |  commit, decommit
//!   MemoryResource
//! ```
//!
//! An allocation takes the last address of a magazine. An empty magazine is refilled with a batch
//! that this thread or another has spilled, or from the slab that this thread used last, where
//! blocks are small, else from the lowest slab of the class that has room: one compare-and-swap
//! reserves the blocks, one more for each word takes their bits. If no slab has room, a run is cut
//! from what is free, or a piece of memory is committed. A free goes the same way back. The
//! capacity of a magazine is proportional to 1/size^(1/3), which minimises the misses of all
//! classes together for a given number of cached bytes.
//!
//! Blocks of up to 128 KiB share slabs, which are as short as they can be: the fewer blocks a slab
//! has, the sooner all of them are free. Larger blocks are runs of slices of 32 KiB of their own;
//! up to 1 MiB they have size classes, so that threads can keep them; where a magazine of these is
//! empty, a block of up to a quarter more stands in. A run that is free joins what
//! is free beside it when a thread searches the map next. What threads have cached is a reserve:
//! before a pool that had stopped growing exceeds its peak, they free it (`recall`).
//!
//! | operation | progress | calls the resource |
//! |---|---|---|
//! | `alloc` from a magazine, `dealloc` into one | wait-free | no |
//! | `alloc` of a class of which a slab has room, `dealloc` | lock-free | no |
//! | `alloc` that searches the map | one thread at a time; logarithmic in the runs | no |
//! | `alloc` that grows | blocking in the resource; one thread at a time | yes |
//! | `trim`, drop of the pool | blocking in the resource; stops growth alone | yes |
//! | first use of a pool by a thread | lock-free, and allocates the cache on the heap | no |
//! | `dealloc_raw`, `block_at` | lock-free; constant time | no |
//! | `stats` | takes the lock of the map for a moment | no |

mod block;
mod blocks;
pub(crate) mod budget;
mod bundle;
pub(crate) mod cache;
mod counts;
mod error;
mod fold;
mod free;
pub(crate) mod geometry;
mod growth;
mod local_cache;
mod locate;
mod magazine;
mod number;
mod options;
mod pool;
mod raw;
pub(crate) mod recall;
pub(crate) mod registry;
mod run;
mod size_class;
pub(crate) mod sleep;
pub(crate) mod space;
pub(crate) mod span;
mod stats;
pub(crate) mod store;
mod suspend;
mod thread_cache;
pub(crate) mod trim;

pub use self::block::{Block, WrongPool};
pub(crate) use self::blocks::{BlockRequest, Blocks, OwnedBlock};
pub use self::bundle::Bundle;
pub use self::error::{AllocError, DeallocError, Exhaustion, PoolError};
pub use self::local_cache::LocalCache;
pub use self::options::PoolOptions;
pub use self::pool::SlabPool;
pub use self::raw::BlockInfo;
pub use self::size_class::SizeClass;
pub(crate) use self::sleep::Keeper;
pub(crate) use self::space::Retirement;
pub use self::stats::{ClassStats, PoolStats, SlabInfo};
pub use self::trim::Trimmed;
