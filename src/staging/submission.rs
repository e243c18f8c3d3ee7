//! The way in which a step is sent: as a graph, or as calls of the stream.

use std::fmt;
use std::time::Duration;

/// How steps are sent to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Submission {
    /// By the launch of a graph: one driver call.
    #[default]
    Graph,
    /// By the copies and the write of the completion word, as calls of the stream: two in
    /// [`Layout::Packed`](super::Layout::Packed), one more than there are slots in `PerSlot`. No
    /// graphs are made.
    ///
    /// The same is guarded. No event ends the copy, so that a reader on another stream waits for
    /// all that the step's stream has been given by then, and takes up to three driver calls more.
    Calls,
    /// By whichever of the two is faster: each sends a step of the middle bucket a few dozen times
    /// when the set is built. Graphs stay where calls save less than a tenth. A
    /// [view](super::InputBuffers::view) takes the way of its set.
    Fastest,
}

/// How a set sends its steps, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submitting {
    /// [`Submission::Graph`] or [`Submission::Calls`].
    pub by: Submission,
    /// What [`Submission::Fastest`] has measured; `None` where the set was told, or has no bucket.
    pub measured: Option<SubmissionTimes>,
}

/// The median times of a step by graph and by calls, from the first call to the end of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmissionTimes {
    /// By the launch of a graph.
    pub graph: Duration,
    /// By calls of the stream.
    pub calls: Duration,
}

impl SubmissionTimes {
    /// The faster way.
    pub(super) fn faster(self) -> Submission {
        let limit = self.graph.mul_f64(WORTH_A_CHANGE);
        if self.calls < limit { Submission::Calls } else { Submission::Graph }
    }
}

impl fmt::Display for Submitting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.by == Submission::Calls { "calls" } else { "a graph" };
        match self.measured {
            None => write!(f, "by {by}"),
            Some(SubmissionTimes { graph, calls }) => {
                write!(f, "by {by}: a graph took {graph:?}, calls {calls:?}")
            }
        }
    }
}

/// Below this share of a graph's time calls are taken instead.
const WORTH_A_CHANGE: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_gain_is_not_worth_a_change() {
        let times = |graph, calls| SubmissionTimes {
            graph: Duration::from_nanos(graph),
            calls: Duration::from_nanos(calls),
        };
        assert_eq!(times(1000, 950).faster(), Submission::Graph);
        assert_eq!(times(1000, 899).faster(), Submission::Calls);
        assert_eq!(times(500, 1000).faster(), Submission::Graph);
    }
}
