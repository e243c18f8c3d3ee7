//! Warm work on a pool, with everything counted that it must not do.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::error::Error;
use std::sync::Arc;

use softcuda::{Config, Simulator};
use wharf::memory::DeviceMemoryResource;
use wharf::slab::{Block, PoolOptions, SlabPool};
use wharf::{Context, Driver};

type Failure = Box<dyn Error + Send + Sync>;

/// The system's allocator; counts what each thread asks of it.
pub(crate) struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no counter any more, and nothing here asks for its count.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as for this function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Calls of the allocator by the calling thread so far.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// What the warm part of a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Blocks allocated and freed.
    pub(crate) pairs: u64,
    /// Calls of the heap's allocator.
    pub(crate) allocations: u64,
    /// Calls of the driver.
    pub(crate) driver_calls: u64,
}

/// Allocates and frees `pairs` blocks of device memory on the software driver, after as much
/// of the same work as makes the pool warm. Calls `mark` before and after the
/// warm part.
///
/// # Errors
///
/// What the driver or the pool says.
pub(crate) fn warm_pairs(pairs: u64, mark: impl Fn()) -> Result<Outcome, Failure> {
    let machine = Arc::new(Simulator::new(Config::default()));
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api()?)?;
    let context = Context::retain(&driver.device(0)?)?;
    let pool =
        SlabPool::new(DeviceMemoryResource::new(&context, 1 << 30)?, PoolOptions::default())?;
    let mut held = Vec::with_capacity(BURST);
    let mut work = |pairs: u64| {
        let mut done = 0;
        while done < pairs {
            done += burst(&pool, &mut held, (pairs - done).min(BURST as u64))?;
        }
        Ok::<_, Failure>(done)
    };
    work(4 * BURST as u64)?;
    mark();
    let calls = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
    let driver_calls = calls();
    let before = allocations();
    let pairs = work(pairs)?;
    let allocations = allocations() - before;
    mark();
    Ok(Outcome { pairs, allocations, driver_calls: calls() - driver_calls })
}

/// Enough blocks to fill magazines and to empty them several times over.
const BURST: usize = 128;

/// Every other block is freed at once; the others when all are there, so that magazines run
/// empty and over and batches go to the slabs and back.
fn burst(
    pool: &SlabPool<DeviceMemoryResource>,
    held: &mut Vec<Block>,
    count: u64,
) -> Result<u64, Failure> {
    for number in 0..count {
        let size = if number % 16 < 12 { 4096 } else { 256 << (number % 13) };
        let block = pool.alloc(size)?;
        if number % 2 == 0 {
            pool.dealloc(block)?;
        } else {
            held.push(block);
        }
    }
    held.drain(..).try_for_each(|block| pool.dealloc(block))?;
    Ok(count)
}
