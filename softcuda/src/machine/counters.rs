//! Counters of calls and of copied bytes.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::transfer::{Copy, Side};

/// Bytes copied, by direction; a copy counts when it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Host to device.
    pub htod: u64,
    /// Device to host.
    pub dtoh: u64,
    /// Device to device.
    pub dtod: u64,
    /// Host to host.
    pub htoh: u64,
}

/// The number of calls of each entry point, and the number of bytes copied.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: Mutex<HashMap<&'static str, u64>>,
    htod: AtomicU64,
    dtoh: AtomicU64,
    dtod: AtomicU64,
    htoh: AtomicU64,
}

impl Counters {
    pub(super) fn add_call(&self, call: &'static str) -> u64 {
        let mut calls = self.calls.lock();
        let count = calls.entry(call).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn calls(&self, call: &str) -> u64 {
        self.calls.lock().get(call).copied().unwrap_or(0)
    }

    /// Every entry point that was called, by name.
    pub(crate) fn all_calls(&self) -> Vec<(&'static str, u64)> {
        let calls = self.calls.lock();
        let mut calls: Vec<_> = calls.iter().map(|(call, count)| (*call, *count)).collect();
        calls.sort_unstable();
        calls
    }

    pub(crate) fn add_bytes(&self, copy: &Copy) {
        let is_host = |side: &Side| side.blocks.iter().all(|block| block.kind.is_host());
        let counter = match (is_host(&copy.src), is_host(&copy.dst)) {
            (true, false) => &self.htod,
            (false, true) => &self.dtoh,
            (false, false) => &self.dtod,
            (true, true) => &self.htoh,
        };
        // Relaxed: a statistic.
        counter.fetch_add(copy.bytes() as u64, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> Bytes {
        // Relaxed: statistics.
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Bytes {
            htod: read(&self.htod),
            dtoh: read(&self.dtoh),
            dtod: read(&self.dtod),
            htoh: read(&self.htoh),
        }
    }
}
