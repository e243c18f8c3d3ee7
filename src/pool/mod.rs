//! Buffers: memory that is reused in the order of streams, and never while the device uses it.
//!
//! ```text
//!   Pool, SimplePool      alloc(len, stream)                             any thread
//!      |
//!   Buffer<T>             typed view of a block; drop, copy, record_use
//!      |
//!   Record                block | state | last use by each stream
//!      |
//!   Lane (one a stream)   lists of records that are free for that stream
//!      |  drain: what the device is past
//!   SlabPool              blocks that are free for anybody
//! ```
//!
//! A buffer that is dropped is free for the one stream that used it, at once and without a driver
//! call: the stream runs in order. For others it is free when the device is past its last use, which
//! its [`timeline`](crate::timeline) tells. What several streams used waits for all of them.
//!
//! ```text
//!                        +-----------------------------------------------+
//!                        v            alloc on the same stream           |
//!   slabs --alloc--> Allocated --use--> InUse --drop--> Retired ---------+
//!     ^                                                    |
//!     +------------------- drain, when complete -----------+
//! ```
//!
//! | operation | progress | driver calls |
//! |---|---|---|
//! | `alloc` of what the stream has dropped, `record_use`, drop | lock-free | none |
//! | `alloc` of what other streams have dropped and completed, or of free slabs | lock-free | none |
//! | `prewarm`, `reserve`, [`Prewarm`] | as `alloc`, up to growth; never at the limit | as `alloc` |
//! | `alloc` that grows | blocking in the driver | the resource's, and a marker in streams that have retired blocks |
//! | `alloc` at the limit | waits for a thread that has the lists in hand; for the device only if the options allow | an event and a wait, for a block that another stream still uses |
//! | `trim`, `close`, drop of the pool | blocking in the driver | the resource's |
//! | copies and fills | one driver call | one; and a wait, on a stream that is not the buffer's first, for earlier owners |
//!
//! # Captures
//!
//! Nothing here puts anything into a stream that is being captured, other than the copies and fills
//! that the caller asks for; growth does not disturb captures. Memory last used on such a stream is
//! free for that stream as always, and for others after the capture.
//!
//! # After a fault
//!
//! When the driver says that the context is lost, allocations are errors, and what the device may have
//! been using is leaked: its slabs stay committed.

#[cfg(not(all(test, loom)))]
mod buffer;
#[cfg(not(all(test, loom)))]
mod buffer_pool;
#[cfg(not(all(test, loom)))]
mod copy;
#[cfg(not(all(test, loom)))]
mod core;
#[cfg(not(all(test, loom)))]
mod drain;
mod dtype;
mod element;
#[cfg(not(all(test, loom)))]
mod error;
#[cfg(not(all(test, loom)))]
mod info;
#[cfg(not(all(test, loom)))]
mod ladder;
#[cfg(not(all(test, loom)))]
mod lane;
#[cfg(not(all(test, loom)))]
mod options;
#[cfg(not(all(test, loom)))]
mod plan;
#[cfg(not(all(test, loom)))]
mod prewarm;
#[cfg(not(all(test, loom)))]
mod raw;
#[cfg(not(all(test, loom)))]
mod record;
#[cfg(not(all(test, loom)))]
mod simple;
mod spec;
#[cfg(not(all(test, loom)))]
mod stats;
#[cfg(not(all(test, loom)))]
mod stream_pool;
#[cfg(not(all(test, loom)))]
mod track;
#[cfg(not(all(test, loom)))]
mod upstream;

#[cfg(not(all(test, loom)))]
pub use self::buffer::Buffer;
#[cfg(not(all(test, loom)))]
pub use self::buffer_pool::{AllocateError, BufferPool, NotOurs};
pub use self::dtype::DType;
#[cfg(not(all(test, loom)))]
pub(crate) use self::element::bytes_of;
pub(crate) use self::element::bytes_of_mut;
pub use self::element::{Bf16, Bool, Element, F8E4M3, F8E5M2, F16};
#[cfg(not(all(test, loom)))]
pub use self::error::{HostError, LeakReport, RawError};
#[cfg(not(all(test, loom)))]
pub use self::info::{BufferInfo, BufferState};
#[cfg(not(all(test, loom)))]
pub use self::options::{PoolBuilder, Pressure};
#[cfg(not(all(test, loom)))]
pub use self::plan::MemoryPlan;
#[cfg(not(all(test, loom)))]
pub use self::prewarm::Prewarm;
#[cfg(not(all(test, loom)))]
pub use self::raw::RawBuffer;
#[cfg(not(all(test, loom)))]
pub use self::simple::SimplePool;
pub use self::spec::{BufferSpec, SpecError};
#[cfg(not(all(test, loom)))]
pub use self::stats::ReclaimStats;
#[cfg(not(all(test, loom)))]
pub use self::stream_pool::Pool;
pub use crate::slab::AllocError;
