//! wharf: its whole pool (limit, statistics, growth, large blocks) on addresses that cannot be
//! touched, so every run is also proof that nothing of it lies in the managed memory.

use std::hint::black_box;
use std::sync::OnceLock;

use wharf::memory::UnbackedResource;
use wharf::slab::{self, Block, PoolOptions, SlabPool};

use crate::peer::{Kind, Local, Peer, STEP_INPUTS};

/// The managed range, in bytes.
const RANGE: usize = 4 << 30;

/// wharf's pool, on no memory.
pub type Pool = SlabPool<UnbackedResource>;

/// Through the cache that wharf keeps for each thread.
#[derive(Debug)]
pub struct ThreadCache(Pool);

/// Through a cache that each thread holds itself.
#[derive(Debug)]
pub struct LocalCache(Pool);

impl Peer for ThreadCache {
    const NAME: &'static str = "wharf";
    const KIND: Kind = Kind::Ours;
    type Block = Block;
    type Local<'a> = &'a Pool;

    fn new() -> Self {
        Self(pool(RANGE))
    }

    fn local(&self) -> &Pool {
        &self.0
    }
}

impl Peer for LocalCache {
    const NAME: &'static str = "wharf LocalCache";
    const KIND: Kind = Kind::Ours;
    type Block = Block;
    type Local<'a> = slab::LocalCache<'a, UnbackedResource>;

    fn new() -> Self {
        Self(pool(RANGE))
    }

    fn local(&self) -> Self::Local<'_> {
        self.0.local_cache()
    }
}

impl Local for &Pool {
    type Block = Block;

    #[inline]
    fn alloc(&mut self, size: usize) -> Option<Block> {
        SlabPool::alloc(self, size).ok()
    }

    #[inline]
    fn free(&mut self, block: Block) {
        let freed = self.dealloc(block);
        debug_assert_eq!(freed, Ok(()));
    }

    fn extent(&self, block: &Block, size: usize) -> Option<(usize, usize)> {
        extent(block, size)
    }

    #[inline]
    fn bundle(&mut self, sizes: &[u32; STEP_INPUTS]) -> Option<()> {
        let bundle = self.alloc_bundle(&sizes.map(|size| size as usize)).ok()?;
        black_box(&bundle);
        self.free(bundle.block);
        Some(())
    }
}

impl Local for slab::LocalCache<'_, UnbackedResource> {
    type Block = Block;

    #[inline]
    fn alloc(&mut self, size: usize) -> Option<Block> {
        slab::LocalCache::alloc(self, size).ok()
    }

    #[inline]
    fn free(&mut self, block: Block) {
        let freed = self.dealloc(block);
        debug_assert_eq!(freed, Ok(()));
    }

    fn extent(&self, block: &Block, size: usize) -> Option<(usize, usize)> {
        extent(block, size)
    }
}

/// What each thread's cache may hold, in MiB, where it is not wharf's default.
pub static THREAD_CACHE: OnceLock<usize> = OnceLock::new();

/// A pool over `range` bytes of addresses.
///
/// # Panics
///
/// If the process may not have so many.
#[expect(clippy::expect_used, reason = "without its subject there is no benchmark")]
pub fn pool(range: usize) -> Pool {
    let resource = UnbackedResource::new(range).expect("addresses for the managed range");
    let options = PoolOptions::default();
    let options = THREAD_CACHE.get().map_or(options, |mib| options.thread_cache_bytes(mib << 20));
    SlabPool::new(resource, options).expect("a span that can be cut into granules")
}

fn extent(block: &Block, size: usize) -> Option<(usize, usize)> {
    Some((usize::try_from(block.address() / 256).ok()?, size.div_ceil(256)))
}
