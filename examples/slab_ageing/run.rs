//! The ageing itself: random replacements for a long time, at a constant number of live blocks.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use wharf::memory::UnbackedResource;
use wharf::slab::{Block, PoolOptions, SlabPool};

type Failure = Box<dyn Error + Send + Sync>;

/// What came of it; bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// The most bytes asked for and live at once.
    pub(crate) peak_asked: usize,
    /// The most bytes of live blocks at once.
    pub(crate) peak_live: usize,
    /// The most bytes committed at once.
    pub(crate) peak_reserved: usize,
    /// The most bytes committed at once in the first tenth.
    pub(crate) peak_reserved_early: usize,
}

/// A sum and the most it ever was.
#[derive(Debug, Default)]
struct Level {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Level {
    fn add(&self, bytes: usize) {
        self.peak.fetch_max(self.now.fetch_add(bytes, Relaxed) + bytes, Relaxed);
    }
}

/// Replaces random blocks `replacements` times, in `threads` threads, about `live` bytes being
/// live all the time. Sizes are spread evenly over the doublings from 256 bytes to 1 MiB.
///
/// # Errors
///
/// What the pool says, if an allocation fails.
pub(crate) fn age(live: usize, replacements: usize, threads: usize) -> Result<Outcome, Failure> {
    let pool = SlabPool::new(UnbackedResource::new(8 * live)?, PoolOptions::default())?;
    // The mean of such sizes is 128 KiB.
    let slots = live / threads / (128 << 10);
    let (asked, live) = (Level::default(), Level::default());
    let round = |seed: u64, held: &mut Vec<(Block, usize)>, count: usize| {
        let mut random = seed;
        for _ in 0..count {
            let size = size(&mut random);
            let block = (pool.alloc(size)?, size);
            let at = usize::try_from(next(&mut random))? % slots;
            asked.add(size);
            live.add(pool.block_size(&block.0));
            if held.len() < slots {
                held.push(block);
                continue;
            }
            let (old, size) = std::mem::replace(&mut held[at], block);
            asked.now.fetch_sub(size, Relaxed);
            live.now.fetch_sub(pool.block_size(&old), Relaxed);
            pool.dealloc(old)?;
        }
        Ok::<_, Failure>(())
    };
    let mut held: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    // A tenth, then the rest, each in new threads: the blocks change threads in between.
    let mut early = 0;
    for (stage, count) in
        [replacements / 10, replacements - replacements / 10].into_iter().enumerate()
    {
        thread::scope(|scope| {
            let round = &round;
            let workers: Vec<_> = held
                .iter_mut()
                .enumerate()
                .map(|(thread, held)| {
                    let seed = (stage * threads + thread) as u64;
                    scope.spawn(move || round(seed, held, slots + count / threads))
                })
                .collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a thread died")?)
        })?;
        if stage == 0 {
            early = pool.stats().peak_reserved;
        }
        held.rotate_left(1);
    }
    let stats = pool.stats();
    held.into_iter().flatten().try_for_each(|(block, _)| pool.dealloc(block))?;
    Ok(Outcome {
        peak_asked: asked.peak.load(Relaxed),
        peak_live: live.peak.load(Relaxed),
        peak_reserved: stats.peak_reserved,
        peak_reserved_early: early,
    })
}

/// 256 bytes to 1 MiB: a doubling at random, and evenly within it.
fn size(random: &mut u64) -> usize {
    let bits = 8 + next(random) % 12;
    let size = (1_u64 << bits) + next(random) % (1 << bits);
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A step of `SplitMix64`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
