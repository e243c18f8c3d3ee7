//! The stress itself: threads allocate, pass blocks round, free, while growth fails and trims run.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use wharf::memory::{MemoryResource, UnbackedResource};
use wharf::slab::{AllocError, Block, PoolOptions, SlabPool};

/// Blocks that each thread holds at most.
const HELD: usize = 200;
const UNIT: u64 = 256;

type Failure = Box<dyn Error + Send + Sync>;

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Blocks allocated, and as many freed.
    pub(crate) blocks: u64,
    /// Blocks freed by another thread than the one that allocated them.
    pub(crate) passed_on: u64,
    /// Allocations refused at the limit.
    pub(crate) exhausted: u64,
    /// Commits that failed.
    pub(crate) failed: u64,
    /// Those that did not, and as many decommits.
    pub(crate) commits: u64,
}

/// Every 256 bytes of the span: in a live block or not.
struct Ownership {
    base: u64,
    words: Box<[AtomicU64]>,
}

/// Runs `threads` threads, each until `is_over`, which is told how many turns the thread has had
/// and how many allocations of all threads were refused at the limit, and checks that no block
/// overlapped another and that nothing was lost.
///
/// # Errors
///
/// The first disagreement found.
pub(crate) fn stress(
    threads: usize,
    limit: usize,
    is_over: impl Fn(u64, u64) -> bool + Sync,
) -> Result<Outcome, Failure> {
    let resource = UnbackedResource::new(2 * limit)?;
    let pool = SlabPool::new(
        resource,
        PoolOptions::default().max_bytes(limit).thread_cache_bytes(1 << 20),
    )?;
    // Some commits fail even if the thread that decides how many never gets to run.
    pool.upstream().commits().fail_one_in(3);
    let owned = Ownership::of(pool.upstream());
    let (stop, refused) = (AtomicBool::new(false), AtomicU64::new(0));
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::channel()).unzip();
    let outcome = thread::scope(|scope| {
        let chaos = scope.spawn(|| chaos(&pool, &stop, limit));
        let workers: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(number, receiver)| {
                let next = senders[(number + 1) % threads].clone();
                let (pool, owned, refused) = (&pool, &owned, &refused);
                let worker = Worker {
                    pool,
                    owned,
                    refused,
                    random: number as u64,
                    done: Outcome::default(),
                };
                let is_over = |turns| stop.load(Relaxed) || is_over(turns, refused.load(Relaxed));
                scope.spawn(move || worker.run(is_over, next, &receiver))
            })
            .collect();
        // Only the workers hold senders now, so a receiver ends when its sender's thread has.
        drop(senders);
        let done: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Relaxed);
        chaos.join().map_err(|_| "the trimmer died")??;
        let mut sum = Outcome::default();
        for worker in done {
            sum.add(&worker.map_err(|_| "a worker died")??);
        }
        Ok::<_, Failure>(sum)
    })?;
    finish(&pool, &owned, outcome)
}

/// Checks that everything is back.
fn finish(
    pool: &SlabPool<UnbackedResource>,
    owned: &Ownership,
    outcome: Outcome,
) -> Result<Outcome, Failure> {
    pool.upstream().commits().fail_one_in(0);
    let patience = Instant::now();
    // A thread's cache comes back when the thread has ended, which is after its closure has.
    while pool.stats().cached > 0 && patience.elapsed() < Duration::from_secs(600) {
        thread::yield_now();
    }
    pool.trim(Duration::ZERO, 0);
    let stats = pool.stats();
    let (commits, decommits) = (pool.upstream().commits(), pool.upstream().decommits());
    let failed = commits.failed();
    let commits = commits.calls() - failed;
    if (stats.live, stats.cached, stats.reserved, pool.upstream().committed()) != (0, 0, 0, 0) {
        return Err(format!("something was lost: {stats:?}").into());
    }
    if commits != decommits.calls() {
        return Err(format!("{commits} commits, {} decommits", decommits.calls()).into());
    }
    if owned.words.iter().any(|word| word.load(Relaxed) != 0) {
        return Err("a block was freed in part".into());
    }
    Ok(Outcome { failed, commits, ..outcome })
}

/// Trims and makes commits fail until the threads are done.
fn chaos(
    pool: &SlabPool<UnbackedResource>,
    stop: &AtomicBool,
    limit: usize,
) -> Result<(), Failure> {
    let mut random = 99;
    while !stop.load(Relaxed) {
        pool.upstream().commits().fail_one_in(2 + next(&mut random) % 3);
        let keep = if next(&mut random).is_multiple_of(2) { 0 } else { limit / 8 };
        pool.trim(Duration::from_millis(next(&mut random) % 3), keep);
        let stats = pool.stats();
        if stats.reserved > limit || pool.upstream().committed() > limit {
            stop.store(true, Relaxed);
            return Err(format!("the limit was passed: {stats:?}").into());
        }
        thread::yield_now();
    }
    Ok(())
}

struct Worker<'a> {
    pool: &'a SlabPool<UnbackedResource>,
    owned: &'a Ownership,
    refused: &'a AtomicU64,
    random: u64,
    done: Outcome,
}

impl Worker<'_> {
    fn run(
        mut self,
        is_over: impl Fn(u64) -> bool,
        next_thread: Sender<Block>,
        mail: &Receiver<Block>,
    ) -> Result<Outcome, Failure> {
        let mut held = Vec::with_capacity(HELD);
        for _ in (0..).take_while(|&turns| !is_over(turns)) {
            if held.len() == HELD || (!held.is_empty() && next(&mut self.random).is_multiple_of(3))
            {
                let at = usize::try_from(next(&mut self.random))? % held.len();
                let block = held.swap_remove(at);
                if next(&mut self.random).is_multiple_of(4) {
                    self.done.passed_on += 1;
                    next_thread.send(block)?;
                } else {
                    self.free(block)?;
                }
            } else if let Some(block) = self.alloc()? {
                held.push(block);
            }
            mail.try_iter().take(4).try_for_each(|block| self.free(block))?;
        }
        held.into_iter().try_for_each(|block| self.free(block))?;
        // Every thread hangs up before it waits for the end of its mail, so the ring comes to rest.
        drop(next_thread);
        mail.iter().try_for_each(|block| self.free(block))?;
        Ok(self.done)
    }

    fn alloc(&mut self) -> Result<Option<Block>, Failure> {
        // All doublings from 256 bytes to 1 MiB alike, now and then up to 24 MiB.
        let doublings = if next(&mut self.random).is_multiple_of(500) { 17 } else { 12 };
        let bits = 8 + next(&mut self.random) % doublings;
        let size = (1_u64 << bits) + next(&mut self.random) % (1 << bits);
        match self.pool.alloc(usize::try_from(size)?) {
            Ok(block) => {
                self.owned.take(&block, self.pool.block_size(&block))?;
                self.done.blocks += 1;
                Ok(Some(block))
            }
            Err(AllocError::Exhausted(state)) if state.cause.is_none() => {
                self.done.exhausted += 1;
                self.refused.fetch_add(1, Relaxed);
                Ok(None)
            }
            // A commit that failed on demand.
            Err(AllocError::Exhausted(_) | AllocError::Upstream(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn free(&self, block: Block) -> Result<(), Failure> {
        self.owned.give(&block, self.pool.block_size(&block))?;
        Ok(self.pool.dealloc(block)?)
    }
}

impl Ownership {
    fn of(resource: &UnbackedResource) -> Self {
        let words = resource.size() / 256 / 64;
        Self { base: resource.base(), words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    fn take(&self, block: &Block, size: usize) -> Result<(), Failure> {
        self.change(block, size, |word, bits| word.fetch_or(bits, Relaxed) & bits == 0)
    }

    fn give(&self, block: &Block, size: usize) -> Result<(), Failure> {
        self.change(block, size, |word, bits| word.fetch_and(!bits, Relaxed) & bits == bits)
    }

    fn change(
        &self,
        block: &Block,
        size: usize,
        as_expected: fn(&AtomicU64, u64) -> bool,
    ) -> Result<(), Failure> {
        let mut unit = (block.address() - self.base) / UNIT;
        let end = unit + size as u64 / UNIT;
        while unit < end {
            let count = (64 - unit % 64).min(end - unit);
            let bits = (!0 >> (64 - count)) << (unit % 64);
            if !as_expected(&self.words[usize::try_from(unit / 64)?], bits) {
                return Err(format!("{block:?} of {size} bytes overlaps another").into());
            }
            unit += count;
        }
        Ok(())
    }
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.passed_on += other.passed_on;
        self.exhausted += other.exhausted;
    }
}

/// A step of `SplitMix64`.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
