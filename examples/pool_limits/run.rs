//! The program: threads hold a few buffers each of random sizes, on a device that has exactly as
//! much memory as the pool may commit. One byte more, and the driver says so.

use softcuda::{Config, Simulator};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{AllocError, Buffer, Pool};
use wharf::slab::PoolOptions;
use wharf::{Context, Driver, Stream};

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Buffers that were allocated, used and dropped.
    pub(crate) blocks: u64,
    /// Allocations that were refused at the limit.
    pub(crate) refused: u64,
    /// Allocations for which a stream was made to wait for another.
    pub(crate) cross_stream: u64,
    /// Allocations after everything complete was given back.
    pub(crate) retried: u64,
    /// The most that was committed, in bytes.
    pub(crate) peak: usize,
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Runs `threads` against a limit of `limit` bytes, each until `is_over`, which is told how many
/// turns the thread has had and how many allocations of all threads were refused.
pub(crate) fn limits(
    threads: u64,
    limit: usize,
    is_over: impl Fn(u64, u64) -> bool + Sync,
) -> Result<Outcome> {
    let machine = Simulator::new(Config { device_memory: limit as u64, ..Config::default() });
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api()?)?;
    let context = Context::retain(&driver.device(0)?)?;
    let slabs = PoolOptions::default().thread_cache_bytes(1 << 20);
    let options = Pool::builder().slabs(slabs).max_bytes(limit);
    let pool = options.build(DeviceMemoryResource::new(&context, limit * 4)?)?;
    let streams =
        (0..6).map(|_| Stream::new(&context)).collect::<std::result::Result<Vec<_>, _>>()?;
    let refused = AtomicU64::new(0);
    let mut outcome = std::thread::scope(|scope| {
        let (machine, context, pool, streams, is_over, refused) =
            (&machine, &context, &pool, &streams, &is_over, &refused);
        let one = move |seed| {
            let _bound = machine.bind();
            let _scope = context.enter()?;
            press(pool, streams, seed, refused, is_over)
        };
        let threads: Vec<_> = (1..=threads).map(|seed| scope.spawn(move || one(seed))).collect();
        let mut sum = Outcome::default();
        for thread in threads {
            let one = thread.join().map_err(|_| "a thread panicked")??;
            sum.blocks += one.blocks;
            sum.refused += one.refused;
        }
        Result::Ok(sum)
    })?;
    let (stats, slabs) = (pool.stats(), pool.slab_stats());
    outcome.cross_stream = stats.cross_stream;
    outcome.retried = stats.retried;
    outcome.peak = slabs.peak_reserved;
    if slabs.peak_reserved > limit {
        return Err("the account says that the limit was exceeded".into());
    }
    Ok(outcome)
}

/// One thread's part.
fn press(
    pool: &Pool,
    streams: &[Stream],
    seed: u64,
    refused: &AtomicU64,
    is_over: &impl Fn(u64, u64) -> bool,
) -> Result<Outcome> {
    let (mut random, mut held, mut outcome) = (seed, Vec::<Buffer<u8>>::new(), Outcome::default());
    let mut below = |end: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 16).unwrap_or(0) % end
    };
    for _ in (0..).take_while(|&turns| !is_over(turns, refused.load(Relaxed))) {
        let stream = &streams[below(streams.len())];
        let most = 1 << below(24);
        if held.len() > 12 {
            held.swap_remove(below(held.len()));
        }
        match pool.alloc(1 + below(most), stream) {
            Ok(buffer) => {
                buffer.fill(1, stream)?;
                held.push(buffer);
                outcome.blocks += 1;
            }
            Err(AllocError::Exhausted(_)) => {
                held.clear();
                outcome.refused += 1;
                refused.fetch_add(1, Relaxed);
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(outcome)
}
