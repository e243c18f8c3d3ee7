//! The check `race`: accesses of the same bytes that nothing orders.
//!
//! Two operations race where they touch the same bytes of an allocation, one of them writes, and
//! neither is ordered behind the other. Operations are ordered by
//!
//! * their stream, the rules of default streams, events, `cuCtxWaitEvent`;
//! * edges of a graph, the stream that a graph is launched in, the exec's launch before;
//! * a wait for a value in memory: it comes behind what last wrote there on the device, and behind
//!   what the host knows where the host wrote;
//! * the host: an operation comes behind what the host knows when it is submitted.
//!
//! # What the host knows
//!
//! An operation, and all that it is ordered behind, is known to the host when
//!
//! * a call has waited for it, or a query of its stream or event has said that it is complete;
//! * it has written a word (`cuStreamWriteValue`, a batch node, native code that says so) or has
//!   called the host: programs poll such words without telling the driver, so the host *could*
//!   know from then on.
//!
//! All threads are one host: what one was told, another may have heard from it. So a program is
//! never accused that is right, and one that is wrong is told where the earlier operation was not
//! known to be complete when the later one was submitted. The schedule `late` makes that likely. A
//! copy to pinned memory is no word: a host that polls its bytes has no promise of the driver's.
//!
//! The check looks when an operation runs, at those that ran before: all pairs come up, whatever
//! the order. Memory that was freed and allocated again is another allocation; what a program cuts
//! out of one allocation is not, so reuse inside it is looked at.
//!
//! * [`access`]: which bytes an operation touches.
//! * [`history`]: who touched which bytes last.
//! * [`order`](crate::order): the clocks.

pub(crate) mod access;
pub(crate) mod history;

use std::sync::Arc;

use crate::order::Lane;
pub(crate) use access::{Access, Mode};
pub(crate) use history::{Done, History};

/// Where an operation runs: behind which others, and in words.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    pub(crate) lane: Arc<Lane>,
    pub(crate) place: Arc<str>,
}

impl Track {
    /// The same place, on a lane of its own.
    pub(crate) fn beside(&self, lane: &Arc<Lane>) -> Self {
        Self { lane: Arc::clone(lane), place: Arc::clone(&self.place) }
    }
}
