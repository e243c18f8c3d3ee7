//! Finding the faster way to send a step.

use std::time::{Duration, Instant};

use super::error::StageError;
use super::launch::Sent;
use super::plan::Bucket;
use super::state::SlotClaim;
use super::submission::{Submission, SubmissionTimes, Submitting};
use super::transfer::Transfer;
use crate::profile::range;
use crate::stream::Stream;

impl Transfer {
    /// Decides how steps are sent.
    pub(super) fn decide(&mut self, wanted: Submission) -> Result<(), StageError> {
        let middle = self.plan.buckets.get(self.plan.buckets.len() / 2);
        self.submitting = match (wanted, middle) {
            (Submission::Fastest, Some(bucket)) => {
                let measured = self.measure(bucket)?;
                Submitting { by: measured.faster(), measured: Some(measured) }
            }
            (Submission::Fastest, None) => Submitting::default(),
            (by, _) => Submitting { by, measured: None },
        };
        Ok(())
    }

    /// Sends the contents of the first ring slot in both ways, in turn, on a stream of its own.
    fn measure(&self, bucket: &Bucket) -> Result<SubmissionTimes, StageError> {
        let _range = range!("staging::measure");
        let stream = Stream::new(&self.context)?;
        let _scope = self.context.enter()?;
        let mut claim = self.try_claim()?.ok_or(StageError::WouldBlock)?;
        let (mut graph, mut calls) = (Vec::new(), Vec::new());
        for round in 0..WARM_UPS + ROUNDS {
            for (by, times) in [(Submission::Graph, &mut graph), (Submission::Calls, &mut calls)] {
                let time = self.time(&mut claim, bucket, by, &stream)?;
                if round >= WARM_UPS {
                    times.push(time);
                }
            }
        }
        let [graph, calls] = [graph, calls].map(|mut times| {
            times.sort_unstable();
            times[ROUNDS / 2]
        });
        let times = SubmissionTimes { graph, calls };
        if times.faster() == Submission::Calls {
            // A step takes a graph where there is one.
            self.keep(&mut claim, |_| false)?;
        }
        Ok(times)
    }

    /// How long a step takes, from its call to the end of its copies.
    fn time(
        &self,
        claim: &mut SlotClaim<'_>,
        bucket: &Bucket,
        by: Submission,
        stream: &Stream,
    ) -> Result<Duration, StageError> {
        let sent = Sent { bucket: Some(bucket), skipped: 0, referred: 0 };
        claim.open().reset();
        let start = Instant::now();
        match by {
            Submission::Calls => self.enqueue_as(claim, sent, stream, true)?,
            _ => self.launch(claim, sent, stream)?,
        }
        stream.synchronize()?;
        Ok(start.elapsed())
    }
}

const WARM_UPS: usize = 4;
const ROUNDS: usize = 32;
