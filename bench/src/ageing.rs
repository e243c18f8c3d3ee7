//! Fragmentation: what a pool reserves for what is live, after millions of replacements.

use std::fmt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use clap::Args;
use wharf::slab::{AllocError, Block};

use crate::machine::{float, pin};
use crate::peers::ours::{Pool, pool};

/// What to replace, and how often.
#[derive(Args, Clone, Copy, Debug)]
pub struct Ageing {
    /// MiB of requested bytes that are live.
    #[arg(long, default_value_t = 512)]
    live: usize,
    /// Millions of replacements, by all threads together.
    #[arg(long, default_value_t = 20)]
    millions: usize,
    /// Threads, each with blocks of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// What a run found; all sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    peak_requested: usize,
    peak_live: usize,
    peak_reserved: usize,
    /// The peaks after the first tenth of the replacements.
    early_reserved: usize,
    early_live: usize,
}

/// Runs on a fresh pool.
///
/// # Errors
///
/// If the pool has no room, which is another failure to use it well.
pub fn run(options: &Ageing) -> Result<Outcome, AllocError> {
    let pool = pool((options.live << 20).saturating_mul(8));
    let state = State {
        pool: &pool,
        requested: Gauge::default(),
        live: Gauge::default(),
        barrier: Barrier::new(options.threads),
        early_reserved: AtomicUsize::new(0),
        early_live: AtomicUsize::new(0),
    };
    let blocks = (options.live << 20) / MEAN_SIZE / options.threads;
    let replacements = options.millions * 1_000_000 / options.threads;
    thread::scope(|scope| {
        let state = &state;
        let threads: Vec<_> = (0..options.threads)
            .map(|number| scope.spawn(move || state.age(number, blocks, replacements)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    Ok(Outcome {
        peak_requested: state.requested.peak.load(Relaxed),
        peak_live: state.live.peak.load(Relaxed),
        peak_reserved: pool.stats().peak_reserved,
        early_reserved: state.early_reserved.load(Relaxed),
        early_live: state.early_live.load(Relaxed),
    })
}

/// The mean of sizes spread evenly on a logarithmic scale: the difference of the ends over the
/// logarithm of their ratio, 1 MiB - 256 B over ln 4096.
const MEAN_SIZE: usize = 126_033;

struct State<'a> {
    pool: &'a Pool,
    requested: Gauge,
    live: Gauge,
    barrier: Barrier,
    early_reserved: AtomicUsize,
    early_live: AtomicUsize,
}

/// A sum and the largest value it had.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl State<'_> {
    /// One thread's part.
    fn age(&self, number: usize, blocks: usize, replacements: usize) -> Result<(), AllocError> {
        pin(number);
        let mut random = fastrand::Rng::with_seed(number as u64);
        let filled: Result<Vec<_>, _> = (0..blocks).map(|_| self.alloc(&mut random)).collect();
        let first = replacements / 10;
        // Both threads reach the barrier, whatever happened: the other one waits there.
        let aged = filled.and_then(|mut blocks| {
            self.replace(&mut blocks, first, &mut random)?;
            Ok(blocks)
        });
        if self.barrier.wait().is_leader() {
            self.early_reserved.store(self.pool.stats().peak_reserved, Relaxed);
            self.early_live.store(self.live.peak.load(Relaxed), Relaxed);
        }
        self.barrier.wait();
        let mut blocks = aged?;
        self.replace(&mut blocks, replacements - first, &mut random)?;
        blocks.into_iter().for_each(|block| self.free(block));
        Ok(())
    }

    fn replace(
        &self,
        blocks: &mut [(Block, usize)],
        count: usize,
        random: &mut fastrand::Rng,
    ) -> Result<(), AllocError> {
        for _ in 0..count {
            let slot = random.usize(..blocks.len());
            let block = self.alloc(random)?;
            self.free(std::mem::replace(&mut blocks[slot], block));
        }
        Ok(())
    }

    fn alloc(&self, random: &mut fastrand::Rng) -> Result<(Block, usize), AllocError> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 2^20")]
        let size = (256.0 * 4096_f64.powf(random.f64())) as usize;
        let block = self.pool.alloc(size)?;
        self.requested.add(size);
        self.live.add(self.pool.block_size(&block));
        Ok((block, size))
    }

    fn free(&self, (block, size): (Block, usize)) {
        self.requested.subtract(size);
        self.live.subtract(self.pool.block_size(&block));
        let freed = self.pool.dealloc(block);
        debug_assert_eq!(freed, Ok(()));
    }
}

impl Gauge {
    fn add(&self, amount: usize) {
        let now = self.now.fetch_add(amount, Relaxed) + amount;
        self.peak.fetch_max(now, Relaxed);
    }

    fn subtract(&self, amount: usize) {
        self.now.fetch_sub(amount, Relaxed);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |size: usize| float(size as u64) / f64::from(1 << 20);
        let ratio = |a: usize, b: usize| float(a as u64) / float(b as u64);
        writeln!(f, "peak requested    {:7.1} MiB", mib(self.peak_requested))?;
        writeln!(f, "peak live blocks  {:7.1} MiB", mib(self.peak_live))?;
        writeln!(f, "peak reserved     {:7.1} MiB", mib(self.peak_reserved))?;
        let over_live = ratio(self.peak_reserved, self.peak_live);
        let over_requested = ratio(self.peak_reserved, self.peak_requested);
        writeln!(
            f,
            "reserved / live   {over_live:7.3}     \
             goal 1.15; of requested bytes {over_requested:.3}"
        )?;
        let growth = |peak, early| 100.0 * (ratio(peak, early) - 1.0);
        let (reserved, live) = (
            growth(self.peak_reserved, self.early_reserved),
            growth(self.peak_live, self.early_live),
        );
        write!(
            f,
            "growth            {reserved:7.2} %   \
             after the first tenth, of live blocks {live:.2} %; goal 2 %"
        )
    }
}
