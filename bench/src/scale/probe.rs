//! What runs under callgrind: operations of one pool, each through [`counted`], in a known order.
#![expect(unsafe_code, reason = "vouches for addresses")]

use std::hint::black_box;
use std::time::Duration;

use clap::Args;
use softcuda::{Config, Schedule, Simulator};
use wharf::memory::{MemoryKind, MemoryResource};
use wharf::pool::Pool;
use wharf::slab::{AllocError, PoolOptions, SlabPool};
use wharf::{Context, Driver, Error, Stream};

use super::Subject;
use crate::stream_order::Failure;

/// One run: counted operations, in the order of [`OPERATIONS`](super::OPERATIONS).
#[derive(Args, Clone, Copy, Debug)]
pub struct Probe {
    /// The pool.
    subject: Subject,
    /// GiB of addresses, all of which the pool may commit.
    gib: usize,
    /// Makes the pool and ends, and prints how many bytes of it are resident.
    #[arg(long)]
    resident: bool,
    /// Only allocations that grow the pool, each of them counted.
    #[arg(long)]
    growth: bool,
}

/// What callgrind counts: all that `operation` does.
#[inline(never)]
pub fn counted<T>(operation: impl FnOnce() -> T) -> T {
    black_box(operation())
}

/// So many bytes of addresses that are not even reserved: valgrind gives a program less than
/// 128 GiB of them.
#[derive(Debug)]
struct Addresses(usize);

// SAFETY: the kind promises no memory, and nothing reads or writes any.
unsafe impl MemoryResource for Addresses {
    fn base(&self) -> u64 {
        1 << 45
    }

    fn size(&self) -> usize {
        self.0
    }

    fn granularity(&self) -> usize {
        2 << 20
    }

    fn kind(&self) -> MemoryKind {
        MemoryKind::Unbacked
    }

    fn ordinal(&self) -> Option<i32> {
        None
    }

    unsafe fn commit(&self, _offset: usize, _len: usize) -> Result<(), Error> {
        Ok(())
    }

    unsafe fn decommit(&self, _offset: usize, _len: usize) -> Result<(), Error> {
        Ok(())
    }
}

/// A pool of either kind, as far as the probe needs it.
trait Subjected {
    type Block;
    fn alloc(&self, size: usize) -> Result<Self::Block, AllocError>;
    fn free(&self, block: Self::Block);
    fn stats(&self) -> wharf::slab::PoolStats;
}

impl Probe {
    /// Runs.
    ///
    /// # Errors
    ///
    /// What the driver, the system or a pool said.
    pub fn run(&self) -> Result<(), Failure> {
        let bytes = self.gib << 30;
        let resource = Addresses(bytes);
        match self.subject {
            Subject::Slab => {
                let before = resident()?;
                let pool = counted(|| SlabPool::new(resource, PoolOptions::default()))?;
                self.measure(&pool, before)
            }
            Subject::Pool => {
                let machine =
                    Simulator::new(Config { schedule: Schedule::Eager, ..Config::default() });
                let _bound = machine.bind();
                let driver = Driver::from_api(machine.api()?)?;
                let context = Context::retain(&driver.device(0)?)?;
                let stream = Stream::new(&context)?;
                let before = resident()?;
                let builder = Pool::builder().wait(Duration::ZERO);
                let pool = counted(|| builder.build(resource))?;
                self.measure(&Streamed { pool, stream }, before)
            }
        }
    }

    fn measure(&self, pool: &impl Subjected, before: usize) -> Result<(), Failure> {
        if self.resident {
            println!("{}", resident()?.saturating_sub(before));
            return Ok(());
        }
        if self.growth {
            return grow(pool);
        }
        // Full, but for one block, of which all neighbours stay.
        let mut held = Vec::new();
        while let Ok(block) = pool.alloc(BLOCK) {
            held.push(block);
        }
        let refused = counted(|| pool.alloc(BLOCK));
        assert!(matches!(refused, Err(AllocError::Exhausted(_))), "there is room left");
        pool.free(held.swap_remove(held.len() / 2));
        let found = counted(|| pool.alloc(BLOCK / 4 * 3))?;
        let _stats = counted(|| pool.stats());
        pool.free(found);
        Ok(())
    }
}

/// Fills a pool; what is counted are allocations that obtain memory.
fn grow(pool: &impl Subjected) -> Result<(), Failure> {
    let mut held = Vec::new();
    let mut reserved = 0;
    loop {
        // Memory comes in pieces: where no block fits any more, the next allocation obtains some.
        let is_full = (held.len() + 1) * LARGE > reserved;
        let next = if is_full { counted(|| pool.alloc(LARGE)) } else { pool.alloc(LARGE) };
        match next {
            Ok(block) => held.push(block),
            Err(AllocError::Exhausted(_)) => break,
            Err(error) => return Err(error.into()),
        }
        reserved = pool.stats().reserved;
    }
    Ok(())
}

impl Subjected for SlabPool<Addresses> {
    type Block = wharf::slab::Block;

    fn alloc(&self, size: usize) -> Result<Self::Block, AllocError> {
        Self::alloc(self, size)
    }

    fn free(&self, block: Self::Block) {
        drop(self.dealloc(block));
    }

    fn stats(&self) -> wharf::slab::PoolStats {
        Self::stats(self)
    }
}

/// A pool, and the one stream that uses it.
struct Streamed {
    pool: Pool,
    stream: Stream,
}

impl Subjected for Streamed {
    type Block = wharf::pool::Buffer<u8>;

    fn alloc(&self, size: usize) -> Result<Self::Block, AllocError> {
        self.pool.alloc(size, &self.stream)
    }

    fn free(&self, block: Self::Block) {
        drop(block);
    }

    fn stats(&self) -> wharf::slab::PoolStats {
        self.pool.slab_stats()
    }
}

/// Bytes of this process that are in memory.
fn resident() -> Result<usize, Failure> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    Ok(pages.ok_or("no second field in /proc/self/statm")? * 4096)
}

const BLOCK: usize = 2 << 20;
/// Blocks in a pool that grows: so many that each obtains memory would be too few to see a spike.
const LARGE: usize = 64 << 20;
