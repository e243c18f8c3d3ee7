//! Staging: a step's inputs at stable device addresses, and its results in pinned memory, by one
//! driver call each.
//!
//! Every engine uses [`InputBuffers`], [`Len`], [`SlotId`], [`Step`] and [`Staged`], and for
//! results [`OutputBuffers`] and [`Pending`]. [`Reader`] is for a model on another stream,
//! [`StaticBuffers`] for captured graphs; the rest is options and errors. The
//! [guide](crate::guide::staging) has examples.
//!
//! ```text
//!   begin(tokens, requests)      picks the bucket, takes a ring slot that the device has read
//!      |                              ^
//!      v                              | the graph's last node writes the slot's completion word
//!   Step: write(slot) ...             |
//!      |                              |
//!      v  submit(&stream)       +-----+---------------------------------------+
//!   pads the tails, launches -> | copies of the ring slot -> word -> event    |  a graph for each
//!      |                        +---------------------------------------------+  slot and bucket
//!      v
//!   Staged: device_ptr(slot), reader(&stream), wait_on(&stream), consumed_by(&stream)
//! ```
//!
//! In a packed layout a ring slot has one graph, which is told the bucket when that changes.
//!
//! Results are the mirror: the model writes the device memory, `fetch(tokens, requests, &stream)`
//! launches the graph of copies to a ring slot, and [`Pending`] reads the word and the slot.
//!
//! ```text
//!   fetch ──> Pending ──try_read, wait──> Results: read(slot)      a ring slot is free when the
//!                └─────────────── drop ──────────────────────>     Pending is gone, and written
//! ```
//!
//! A slot may be of another shape than a run of elements that each step copies: a table of which a
//! step sends [what changed](Step::patch), memory that
//! [the device alone](InputBuffersBuilder::device_only) writes, placeholders that it
//! [overwrites](InputBuffersBuilder::slot_overwritten), [rows](InputBuffersBuilder::slot_rows) at a
//! stride. [Views](InputBuffers::view) are sets on another set's device memory; [`PeerBuffers`] are
//! on several devices and written once.
//!
//! **No overwrite in flight.** A ring slot is handed out when its completion word says that the
//! copy which read it is done; the number of slots is capacity, not a guard. **No overwrite of what
//! is read.** Device memory is guarded by stream order on one stream; a step on another stream
//! waits, on the device, for everything that uses the step before (`guard.rs`). **One driver call a
//! step**: sizes within a bucket need no change of the graph, since the tail is padded on the host
//! and copied along.
//!
//! **Without a borrow.** A step that goes to a task or a thread [owns](Step::into_owned) its share
//! of the set; [`Fetch`] and [`Pending`] do anyway. With the feature `futures` they are awaited.
//!
//! **A copy stream of its own.** [`Staged::reader`] declares any read; [`ReadEvents`] make it nodes
//! of graphs, for one reader, at two or four driver calls less.
//!
//! Where the device cannot write words, the slot's event is asked instead, which is three calls
//! more when a step begins: the thread must be freed of others' captures for it.
//!
//! **Captures.** Where a capture is known of, staging puts nothing into its streams and does not
//! disturb it, except by what was asked for: [`Embedded`] graphs, and shares in [`StaticBuffers`].
//! Known are those of [`CaptureScope`](crate::graph::CaptureScope), and those of other code while
//! [`Driver::capture_elsewhere`](crate::Driver::capture_elsewhere) announces them or where a set
//! [asks each time](InputBuffersBuilder::check_captures). Other captures record what their streams
//! are given, or are invalidated by it:
//! [`Step::submit`], [`Staged::reader`], [`Staged::wait_on`], [`Staged::consumed_by`] and
//! [`Reader::end`] say which.

#[cfg(feature = "futures")]
mod awaited;
mod bound;
mod bucket_size;
mod buffer_source;
mod buffers;
mod build_error;
mod builder;
pub(crate) mod cache;
mod completion;
mod device_slots;
mod embedded;
mod embedded_outputs;
mod error;
mod fetch;
mod graphs;
pub(crate) mod guard;
mod in_place;
mod launch;
mod launches;
mod len;
mod lost;
mod measure;
mod names;
mod node;
mod number;
mod outputs;
mod outputs_builder;
mod owned;
mod pad;
mod patch;
pub(crate) mod patches;
mod peers;
mod pending;
mod place;
mod plan;
mod prepare;
mod preset;
mod prewarm;
mod read_events;
mod reader;
mod refer;
mod reference;
mod region;
mod result_info;
pub(crate) mod ring;
mod rows;
mod set_spec;
mod shape;
mod shape_error;
mod shared;
mod slot_error;
mod slot_id;
mod slot_info;
mod spec;
mod staged;
mod stall;
mod state;
mod static_buffers;
mod step;
mod stream_copy;
mod submission;
mod submit;
mod submit_referred;
pub(crate) mod tables;
mod ticks;
mod transfer;
mod view;
mod viewed;
mod wait;
mod write_many;

pub use self::bound::Bound;
pub use self::buffers::{InputBuffers, ReleaseError};
pub use self::build_error::BuildError;
pub use self::builder::InputBuffersBuilder;
pub use self::completion::Completion;
pub use self::device_slots::SetMemory;
pub use self::embedded::Embedded;
pub use self::embedded_outputs::EmbeddedOutputs;
pub use self::error::{Count, CountFault, SlotFault, StageError};
pub use self::fetch::Fetch;
pub use self::graphs::{GraphsKept, GraphsMade};
pub use self::len::{Counts, Len};
pub use self::outputs::OutputBuffers;
pub use self::outputs_builder::OutputBuffersBuilder;
pub use self::peers::{PeerBuffers, PeerStep};
pub use self::pending::{Pending, Results};
pub use self::plan::Layout;
pub use self::prewarm::Prewarm;
pub use self::read_events::ReadEvents;
pub use self::reader::Reader;
pub use self::set_spec::Instantiation;
pub use self::shape_error::{ShapeFault, ViewFault};
pub use self::slot_error::SlotError;
pub use self::slot_id::{CountId, SlotId, Untagged};
pub use self::slot_info::SlotInfo;
pub use self::spec::{Forgotten, Pad};
pub use self::staged::Staged;
pub use self::stall::{Stall, StallCause};
pub use self::static_buffers::StaticBuffers;
pub use self::step::Step;
pub use self::submission::{Submission, SubmissionTimes, Submitting};
pub use self::write_many::SlotIds;
