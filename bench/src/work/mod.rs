//! The workloads.
//!
//! | name | one unit of work |
//! |---|---|
//! | W1 | a 4 KiB block allocated and freed; 32 others are live, and 32 were freed before |
//! | W2 | one of 256 live blocks, 256 B to 1 MiB, replaced |
//! | W3 | the same by each of two threads on one allocator |
//! | W4 | a block allocated by one thread, freed by another, through a ring; W4f: all 4 KiB |
//! | W5 | W2 by eight threads on two cores: processor time, and the time of single operations |
//! | W6 | the 12 inputs of a step of inference allocated, then freed; two other steps are live |
//! | W6b | the same inputs as parts of one block |
//!
//! Sizes are spread evenly on a logarithmic scale. They and the slots come from streams made
//! beforehand from fixed seeds, so that no loop draws random numbers and all peers do the same.

mod pair;
mod ring;
mod single;
mod step;
mod window;

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::machine::{CORES, float, ns};
use crate::peer::{Local, Peer};

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Workload {
    /// One 4 KiB block.
    W1,
    /// A window of blocks, one thread.
    W2,
    /// A window for each of two threads.
    W3,
    /// From thread to thread, sizes mixed.
    W4,
    /// From thread to thread, 4 KiB.
    W4f,
    /// A window for each of eight threads on two cores.
    W5,
    /// A step's inputs, one by one.
    W6,
    /// A step's inputs as one block.
    W6b,
}

impl Workload {
    /// Threads that do the same.
    fn threads(self) -> usize {
        match self {
            Self::W3 => 2,
            Self::W5 => 8,
            _ => 1,
        }
    }

    /// Nanoseconds for a unit of work, where each thread did `count` in `time`.
    pub fn per_unit(self, time: Duration, count: u64) -> f64 {
        // W5's threads share the cores: processor time, not what each thread waited.
        let share = match self {
            Self::W5 => float(CORES as u64) / float(self.threads() as u64),
            _ => 1.0,
        };
        ns(time) * share / float(count)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A peer, whatever its type.
pub trait Bench: Sync {
    /// Does `count` units of a workload on each thread; `None` if the peer has no room for it.
    fn run(&self, workload: Workload, count: u64) -> Option<Duration>;

    /// Does W5 with `count` units on each thread; the ticks that single operations took.
    fn single(&self, count: u64) -> Option<Vec<u32>>;
}

/// A peer with its type.
#[derive(Debug)]
pub struct Bound<P>(pub P);

impl<P: Peer> Bench for Bound<P> {
    fn run(&self, workload: Workload, count: u64) -> Option<Duration> {
        match workload {
            Workload::W1 => pair::run(&self.0, count),
            Workload::W2 => window::run(&self.0, count),
            Workload::W3 | Workload::W5 => window::run_threads(&self.0, count, workload.threads()),
            Workload::W4 => ring::run(&self.0, count, &window::stream(RING_SEED)),
            Workload::W4f => {
                ring::run(&self.0, count, &[4096 << window::SLOT_BITS; window::STREAM])
            }
            Workload::W6 => step::run(&self.0, count),
            Workload::W6b => step::run_bundled(&self.0, count),
        }
    }

    fn single(&self, count: u64) -> Option<Vec<u32>> {
        single::run(&self.0, count, Workload::W5.threads())
    }
}

const RING_SEED: u64 = 77;

/// Allocates blocks of `sizes` and frees every other one; the rest stays live.
///
/// Real programs are in their midst: without this, an allocator that gives up an empty page at
/// once would do so for every pair.
fn prime<L: Local>(local: &mut L, sizes: impl Iterator<Item = usize>) -> Option<Vec<L::Block>> {
    let mut live = Vec::new();
    let mut unwanted = Vec::new();
    for (index, size) in sizes.enumerate() {
        let block = local.alloc(size)?;
        if index % 2 == 0 { live.push(block) } else { unwanted.push(block) }
    }
    free_all(local, unwanted);
    Some(live)
}

fn free_all<L: Local>(local: &mut L, blocks: impl IntoIterator<Item = L::Block>) {
    blocks.into_iter().for_each(|block| local.free(block));
}
