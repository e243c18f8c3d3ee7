//! Ranks that agree on the size of each step, as by an all-reduce.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use wharf::staging::Counts;

/// What each rank wants next.
pub(crate) struct Agreement {
    wanted: Box<[[AtomicUsize; 2]]>,
    barrier: Barrier,
}

impl Agreement {
    pub(crate) fn new(ranks: usize) -> Self {
        let wanted = (0..ranks).map(|_| Default::default()).collect();
        Self { wanted, barrier: Barrier::new(ranks) }
    }

    /// Waits for all ranks.
    pub(crate) fn barrier(&self) {
        self.barrier.wait();
    }

    /// The size that holds every rank's step; `None` if no rank has one.
    pub(crate) fn agree(&self, rank: usize, wanted: Counts) -> Option<Counts> {
        let [tokens, requests] = &self.wanted[rank];
        tokens.store(wanted.tokens, SeqCst);
        requests.store(wanted.requests, SeqCst);
        self.barrier.wait();
        let most = |count: usize| self.wanted.iter().map(|it| it[count].load(SeqCst)).max();
        let counts = Counts { tokens: most(0)?, requests: most(1)? };
        // Read by all before it is written again.
        self.barrier.wait();
        (counts.tokens > 0).then_some(counts)
    }
}
