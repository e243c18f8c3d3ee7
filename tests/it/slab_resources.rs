//! Pools on the real memory resources: all that was taken is given back, whatever fails.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wharf::memory::{
    DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource, PinnedMemoryResource,
    WriteCombinedMemoryResource,
};
use wharf::slab::{AllocError, Block, PoolOptions, SlabPool};
use wharf::{Context, CudaError, Driver};

use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::memory_kinds::{Kind, assert_balanced, context_of};

const SPAN: usize = 256 << 20;
const THREADS: u64 = 4;

/// A sequence of numbers from a seed: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// A size from 1 byte to 8 MiB, small ones more often.
    fn size(&mut self) -> usize {
        let most = 1 << self.below(24);
        usize::try_from(1 + self.below(most)).unwrap()
    }
}

fn pool_of<R: Kind>(context: &Context) -> SlabPool<R> {
    let options = PoolOptions::default().max_bytes(SPAN / 2).thread_cache_bytes(1 << 20);
    SlabPool::new(R::make(context, SPAN).unwrap(), options).unwrap()
}

/// Allocates and frees at random on 4 threads; what remained at the end is freed. How many
/// allocations failed in the driver.
fn churn<R: Kind>(pool: &SlabPool<R>, rounds: usize, meanwhile: impl Fn(usize) + Sync) -> usize {
    let bind = binder();
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| {
                let (bind, meanwhile) = (bind.clone(), &meanwhile);
                scope.spawn(move || {
                    let _bound = bind();
                    churn_alone(pool, rounds, seed, meanwhile)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn churn_alone<R: Kind>(
    pool: &SlabPool<R>,
    rounds: usize,
    seed: u64,
    meanwhile: &(impl Fn(usize) + Sync),
) -> usize {
    let (mut random, mut blocks, mut failed) = (Random(seed), Vec::<Block>::new(), 0);
    for round in 0..rounds {
        meanwhile(round);
        if blocks.len() > 64 || !blocks.is_empty() && random.below(3) == 0 {
            let index = usize::try_from(random.below(blocks.len() as u64)).unwrap();
            pool.dealloc(blocks.swap_remove(index)).unwrap();
            continue;
        }
        match pool.alloc(random.size()) {
            Ok(block) => blocks.push(block),
            Err(AllocError::Exhausted(state)) if state.cause.is_none() => {}
            Err(AllocError::Exhausted(_) | AllocError::Upstream(_)) => failed += 1,
            Err(other) => panic!("{other}"),
        }
        assert!(pool.stats().reserved <= SPAN / 2);
    }
    for block in blocks {
        pool.dealloc(block).unwrap();
    }
    failed
}

fn all_comes_back<R: Kind>(driver: &Driver) {
    let pool = pool_of::<R>(&context_of(driver));
    churn(&pool, 400, |_| ());
    let trimmed = pool.trim(Duration::ZERO, 0);
    assert_eq!((trimmed.lost, trimmed.error), (0, None));
    let stats = pool.stats();
    assert_eq!((stats.live, stats.cached, stats.reserved, stats.lost), (0, 0, 0, 0));
    let report = pool.upstream().report();
    assert_eq!((report.committed, report.registered, report.lost), (0, 0, 0));
}

mod comes_back {
    use super::*;

    macro_rules! each_kind {
        ($($name:ident: $resource:ty;)+) => {
            on_each_driver!($($name),+);

            $(fn $name(driver: &Driver) {
                all_comes_back::<$resource>(driver);
            })+
        };
    }

    each_kind! {
        pinned: PinnedMemoryResource;
        write_combined: WriteCombinedMemoryResource;
        device: DeviceMemoryResource;
        managed: ManagedMemoryResource;
        file_mapped: FileMappedMemoryResource;
    }
}

#[test]
fn calls_that_reserve_and_release_are_equal_in_number() {
    fn on<R: Kind>() {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, all_comes_back::<R>);
        assert_eq!(machine.leaks(), Vec::<String>::new());
        assert_balanced(&machine);
    }
    on::<PinnedMemoryResource>();
    on::<WriteCombinedMemoryResource>();
    on::<DeviceMemoryResource>();
    on::<ManagedMemoryResource>();
    on::<FileMappedMemoryResource>();
}

/// Growth, and then trim, on a machine on which one call of a name fails every few rounds.
fn survives<R: Kind>(call: &'static str) {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let pool = pool_of::<R>(&context_of(driver));
        churn(&pool, 150, |round| {
            if round % 10 == 0 {
                machine.fail(call, 1, CudaError::OUT_OF_MEMORY);
            }
            if round % 25 == 0 {
                pool.trim(Duration::ZERO, 0);
            }
        });
        settle(&pool);
        // Without failures, everything works but what was lost for ever.
        let (stats, report) = (pool.stats(), pool.upstream().report());
        assert_eq!((stats.live, stats.cached), (0, 0), "{call}");
        assert_eq!(stats.reserved, stats.lost, "{call}: what is reserved is what was lost");
        assert_eq!(report.committed, stats.lost, "{call}: the pool and the resource agree");
        let room = stats.limit - stats.reserved;
        if room >= 4 << 20 {
            let block = pool.alloc(1 << 20).unwrap();
            assert!(
                pool.upstream().device_address(offset_of(&pool, &block), 1 << 20).is_some(),
                "{call}"
            );
            pool.dealloc(block).unwrap();
        }
        pool.trim(Duration::ZERO, 0);
        assert_eq!(pool.stats().reserved, stats.lost, "{call}");
    });
}

fn offset_of<R: Kind>(pool: &SlabPool<R>, block: &Block) -> usize {
    usize::try_from(block.address() - pool.upstream().base()).unwrap()
}

/// Grows and trims until the last failure has been met.
fn settle<R: Kind>(pool: &SlabPool<R>) {
    for _ in 0..4 {
        if let Ok(block) = pool.alloc(5 << 20) {
            pool.dealloc(block).unwrap();
        }
        pool.trim(Duration::ZERO, 0);
    }
}

#[test]
fn every_call_of_growth_and_trim_may_fail() {
    for call in ["cuMemHostRegister", "cuMemHostGetDevicePointer", "cuMemHostUnregister"] {
        survives::<PinnedMemoryResource>(call);
        survives::<FileMappedMemoryResource>(call);
    }
    for call in ["cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemRelease", "cuMemUnmap"] {
        survives::<DeviceMemoryResource>(call);
    }
    for call in ["cuCtxGetCurrent", "cuCtxSetCurrent", "cuThreadExchangeStreamCaptureMode"] {
        survives::<PinnedMemoryResource>(call);
        survives::<DeviceMemoryResource>(call);
    }
}
