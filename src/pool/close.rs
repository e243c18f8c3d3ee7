//! The end of a pool: what the device still uses is waited for, reported or leaked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use super::error::LeakReport;
use super::record::Use;
use super::stream_pool::Pool;
use crate::timeline::Timeline;

impl Pool {
    /// Waits for all retired blocks, for at most `limit` altogether, gives back what the device is
    /// done with, and says which buffers are still alive, and how much is still in use.
    ///
    /// Live buffers stay valid, and the memory goes with the last of them. If this is the last
    /// handle, the pool ends without a further wait: blocks in use are leaked as when it is
    /// [dropped](Self#drop). Giving memory back calls the driver, which may wait for the device by
    /// itself.
    ///
    /// # Errors
    ///
    /// [`LeakReport`]: the live buffers, and the bytes in use.
    pub fn close(self, limit: Duration) -> Result<(), LeakReport> {
        let start = Instant::now();
        // Markers for all streams first: one comes while another is waited for.
        self.core.drain_all();
        self.core.wait_for_retired(limit.saturating_sub(start.elapsed()), |_, _| true);
        self.trim(Duration::ZERO, 0);
        let mut buffers = self.blocks();
        buffers.retain(|buffer| buffer.handles > 0);
        let report = LeakReport { buffers, in_use: self.core.in_use() };
        // Parked references are not to keep the pool.
        drop(self.open);
        if let Some(mut core) = Arc::into_inner(self.core) {
            core.close_timeout = Duration::ZERO;
        }
        if report.buffers.is_empty() && report.in_use == 0 { Ok(()) } else { Err(report) }
    }
}

impl Core {
    /// Waits for the uses of retired blocks for which `is_wanted` holds, for at most `limit`
    /// altogether.
    pub(super) fn wait_for_retired(
        &self,
        limit: Duration,
        is_wanted: impl Fn(&Timeline, u64) -> bool,
    ) {
        let start = Instant::now();
        for of in self.retired_uses() {
            let Some((timeline, ticket)) = self.slots.pending(of) else { continue };
            let left = || limit.saturating_sub(start.elapsed());
            if is_wanted(&timeline, ticket) && timeline.wait(ticket, left()).is_err() {
                return;
            }
        }
    }

    /// The uses of blocks that no handle holds.
    fn retired_uses(&self) -> impl Iterator<Item = Use> {
        let in_map = self.retirers().filter_map(|first| {
            let ticket = self.upstream.last_retirement(first.owner)?;
            Some(Use { slot: first.owner as usize, ticket })
        });
        let retired = self.records.all().filter(|(_, record)| record.state.load().handles() == 0);
        in_map.chain(retired.flat_map(|(_, record)| record.uses()))
    }

    /// Bytes of blocks that no handle holds, and that cannot be given back now.
    pub(super) fn in_use(&self) -> usize {
        self.poll();
        let retired = self.records.all().filter(|(_, record)| record.state.load().handles() == 0);
        let stuck = retired.filter(|(_, record)| record.is_lost() || !self.is_idle(record));
        stuck.map(|(_, record)| record.size()).sum::<usize>() + self.upstream.retired()
    }

    /// Gives all blocks back; no buffer is held any more. Waits for the device for as long as the
    /// pool lingers, but not for streams that cannot tell how far they are. Blocks in use then
    /// stay with their records.
    pub(super) fn teardown(&self) {
        // Markers for all streams first: one comes while another is waited for.
        self.drain_all();
        self.wait_for_retired(self.close_timeout, Timeline::can_complete);
        self.drain_all();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // What the device still uses then counts as live, so the slabs leak it, and say so.
        self.teardown();
    }
}
