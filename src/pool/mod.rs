//! Buffers: memory that is reused in the order of streams, and never while the device uses it.
//!
//! Every engine uses [`Pool`], [`PoolBuilder`], [`Buffer`] and [`AllocError`]. The rest is
//! statistics and bare handles.
//!
//! ```text
//!   Pool                  alloc(len, stream)                             any thread
//!      |
//!   Buffer<T>             typed view of a block; drop, copy, record_use
//!      |
//!   BufferRecord                block | state | last use by each stream
//!      |
//!   StreamSlot (one a stream)   lists of records that are free for that stream
//!      |  drain: what the device is past
//!   SlabPool              blocks that are free for anybody
//! ```
//!
//! A buffer that is dropped is free for the one stream that used it, at once and without a driver
//! call: the stream runs in order. Above 128 KiB it serves requests of any size, in parts and
//! joined with what is free (`fold`). For others it is free when the device is past its last use,
//! which its [`timeline`](crate::timeline) tells. What several streams used waits for all of them.
//!
//! ```text
//!                        +-----------------------------------------------+
//!                        v            alloc on the same stream           |
//!   slabs --alloc--> Allocated --use--> InUse --drop--> Retired ---------+
//!     ^                                                    |
//!     +------------------- drain, when complete -----------+
//! ```
//!
//! Progress, and driver calls:
//!
//! * `alloc` of exactly a size that the stream has dropped, `record_use`, drop: lock-free, without
//!   a driver call.
//! * `alloc` of another size, or of what is complete or free: under the lock of the slabs' map, in
//!   which no thread calls the driver; a marker in the stream now and then.
//! * by handle (`alloc_raw`, `free_raw`, `share_raw`, `take_raw`): as `alloc`, `record_use`, drop.
//! * by address (`find_address`, `take_address`, `free_address`): the same. `alloc_address` also
//!   makes a table, once for each 2 MiB of addresses that it hands out blocks in.
//! * `alloc_aligned`: as `alloc`, once or, where a larger block stood in, twice.
//! * `reserve_bytes`: as `alloc` that grows.
//! * `prewarm`, `reserve`, [`BlockPrewarm`]: as `alloc`, up to growth; never at the limit.
//! * `alloc` that grows: blocking in the driver. It makes the calls of the resource, and inserts a
//!   marker into each stream that has retired blocks.
//! * `alloc` at the limit: waits for a thread that moves blocks between lists; for the device only
//!   if the options allow. For each stream from which it takes what that still uses, it makes two
//!   calls more: an event and a wait.
//! * `trim`, `close`, drop of the pool: blocking in the driver, with the calls of the resource.
//! * `sleep`, `wake`: blocking in the driver; they wait for the device, and for copies and fills
//!   that are being submitted.
//! * copies and fills: one driver call; and a wait for earlier owners, on a stream that is not the
//!   buffer's first.
//!
//! # Captures
//!
//! Nothing here puts anything into a stream that is being captured, other than the copies and fills
//! that the caller asks for; growth does not disturb captures. Memory last used on such a stream is
//! free for that stream as always, and for others after the capture.
//!
//! # After a fault
//!
//! When the driver says that the context is lost, allocations are errors, and what the device may
//! have been using is leaked: its slabs stay committed.

mod address_map;
mod aligned;
mod buffer;
mod buffer_address;
mod buffer_uses;
mod builder;
mod by_handle;
mod chunks;
mod close;
mod copy;
mod core;
mod drain;
mod error;
mod evict;
mod export;
mod fold;
mod gate;
mod host_view;
mod info;
mod kept;
mod limit;
mod parked;
mod plan;
mod pressure;
mod prewarm;
mod raw;
mod ready;
mod reclaim;
pub(crate) mod record;
mod reserve;
mod sized;
mod sleep;
mod sleeper;
mod stats;
mod stream_pool;
pub(crate) mod stream_slot;
mod track;
mod uses;

pub use self::buffer::Buffer;
pub use self::builder::PoolBuilder;
pub use self::error::{FreeError, HostError, LeakReport, RawError};
pub use self::export::Exported;
pub use self::host_view::HostView;
pub use self::info::{BufferInfo, BufferState, StreamUse};
pub use self::plan::{BlocksOfSize, MemoryPlan};
pub use self::pressure::Pressure;
pub use self::prewarm::BlockPrewarm;
pub use self::raw::RawBuffer;
pub use self::sleep::{Contents, SleepError, Slept};
pub use self::stats::ReclaimStats;
pub use self::stream_pool::Pool;
pub use crate::slab::AllocError;
