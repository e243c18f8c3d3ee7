//! Staging: a step's inputs at stable device addresses, by one driver call.
//!
//! ```text
//!   begin(tokens, requests)      picks the bucket, takes a ring slot that the device has read
//!      |                              ^
//!      v                              | the graph's last node writes the slot's completion word
//!   Step: write(slot) ...             |
//!      |                              |
//!      v  submit(&stream)       +-----+---------------------------------------+
//!   pads the tails, launches -> | copies of the ring slot -> word -> event    |  one graph for each
//!      |                        +---------------------------------------------+  ring slot and bucket
//!      v
//!   Staged: device_ptr(slot), wait_on(&stream), consumed_by(&stream)
//! ```
//!
//! **No overwrite in flight.** A ring slot is handed out when its completion word says that the copy
//! which read it is done; how many there are is capacity, not a guard. **No overwrite of what is
//! read.** Device memory is guarded by stream order, across streams by `consumed_by`. **One driver
//! call a step**: sizes within a bucket need no change of the graph, since the tail is padded on the
//! host and copied along.
//!
//! Where the device cannot write words, the slot's event is asked instead, which is three calls more
//! when a step begins: the thread must be freed of others' captures for it.
//!
//! **Captures.** Nothing here puts anything into a stream that is being captured, or disturbs a capture,
//! except what is asked for: [`Embedded`] graphs, and shares in [`StaticBuffers`].

#[cfg(not(all(test, loom)))]
mod buffer_source;
mod buffers;
mod builder;
pub(crate) mod cache;
mod embedded;
mod error;
mod len;
mod node;
mod pad;
mod plan;
mod preset;
mod prewarm;
mod reference;
mod region;
pub(crate) mod ring;
mod shared;
mod slot_id;
mod slot_info;
mod spec;
mod staged;
mod state;
mod static_buffers;
mod step;
mod stream_copy;
mod ticks;

pub use self::buffers::InputBuffers;
pub use self::builder::{InputBuffersBuilder, Instantiation};
pub use self::embedded::Embedded;
pub use self::error::{BuildError, Count, SlotError, SlotFault, StageError, Stall};
pub use self::len::{Counts, Len};
pub use self::plan::Layout;
pub use self::prewarm::{GraphsMade, Prewarm};
pub use self::slot_id::{SlotId, Untagged};
pub use self::slot_info::SlotInfo;
pub use self::spec::{Forgotten, Pad};
pub use self::staged::Staged;
pub use self::static_buffers::StaticBuffers;
pub use self::step::Step;
