//! Pools: blocks of fixed sizes, one pool for each of wharf's size classes.
//!
//! The class and the index are a block's name. Where that is all a pool needs, it is spared the
//! arithmetic from index to address, in its favour.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crossbeam_queue::{ArrayQueue, SegQueue};
use lockfree_object_pool::{LinearObjectPool, LinearOwnedReusable};
use sharded_slab::Slab;
use wharf::slab::SizeClass;

use crate::peer::{Kind, Shared};

/// Blocks of each class.
const CAPACITY: u32 = 1024;

/// Pretended start of the managed range.
const BASE: u64 = 1 << 40;

/// Room for a class's blocks in that range.
const CLASS_SPAN: u64 = 1 << 36;

/// A block's address, and class and index in one word.
#[derive(Debug)]
pub struct Named {
    name: u64,
    address: u64,
}

/// A bounded queue of free indices for each class.
#[derive(Debug)]
pub struct ArrayQueues(Vec<ArrayQueue<u32>>);

/// An unbounded queue of free indices for each class.
#[derive(Debug)]
pub struct SegQueues(Vec<SegQueue<u32>>);

macro_rules! queues {
    ($peer:ident, $name:literal, $new:expr) => {
        impl Shared for $peer {
            const NAME: &'static str = $name;
            const KIND: Kind = Kind::Pool;
            type Block = Named;

            fn new() -> Self {
                let queues = SizeClass::all().map(|_| {
                    let queue = $new;
                    for index in 0..CAPACITY {
                        // A bounded queue has room for all.
                        let _ = queue.push(index);
                    }
                    queue
                });
                Self(queues.collect())
            }

            #[inline]
            fn alloc(&self, size: usize) -> Option<Named> {
                let class = SizeClass::of(size)?;
                let index = u64::from(self.0[class.index()].pop()?);
                let offset = index * class.block_size() as u64;
                let address = BASE + class.index() as u64 * CLASS_SPAN + offset;
                Some(Named { name: (class.index() as u64) << 32 | index, address })
            }

            #[inline]
            fn free(&self, block: Named) {
                let index = (block.name & u64::from(u32::MAX)) as u32;
                // What was popped can be pushed.
                let _ = self.0[(block.name >> 32) as usize].push(index);
            }

            fn extent(&self, block: &Named, size: usize) -> Option<(usize, usize)> {
                Some(((block.address / 256) as usize, size.div_ceil(256)))
            }
        }
    };
}

queues!(ArrayQueues, "ArrayQueue", ArrayQueue::new(CAPACITY as usize));
queues!(SegQueues, "SegQueue", SegQueue::new());

/// A slab of keys for each class, sharded by thread.
#[derive(Debug)]
pub struct ShardedSlabs(Vec<Slab<()>>);

impl Shared for ShardedSlabs {
    const NAME: &'static str = "sharded-slab";
    const KIND: Kind = Kind::Pool;
    type Block = (usize, usize);

    fn new() -> Self {
        Self(SizeClass::all().map(|_| Slab::new()).collect())
    }

    #[inline]
    fn alloc(&self, size: usize) -> Option<Self::Block> {
        let class = SizeClass::of(size)?.index();
        Some((class, self.0[class].insert(())?))
    }

    #[inline]
    fn free(&self, (class, key): Self::Block) {
        self.0[class].remove(key);
    }
}

/// A pool of indices for each class.
pub struct ObjectPools(Vec<Arc<LinearObjectPool<u32>>>);

impl Shared for ObjectPools {
    const NAME: &'static str = "lockfree-object-pool";
    const KIND: Kind = Kind::Pool;
    type Block = Owned;

    fn new() -> Self {
        let pools = SizeClass::all().map(|class| {
            let next = Arc::new(AtomicU32::new(u32::try_from(class.index()).unwrap_or(0) << 24));
            Arc::new(LinearObjectPool::new(move || next.fetch_add(1, Relaxed), |_| ()))
        });
        Self(pools.collect())
    }

    #[inline]
    fn alloc(&self, size: usize) -> Option<Owned> {
        Some(Owned(self.0[SizeClass::of(size)?.index()].pull_owned()))
    }

    #[inline]
    fn free(&self, block: Owned) {
        drop(block);
    }

    fn extent(&self, block: &Owned, _: usize) -> Option<(usize, usize)> {
        Some((*block.0 as usize, 1))
    }
}

/// An object of the pool, which goes back when it is dropped.
pub struct Owned(LinearOwnedReusable<u32>);

#[expect(unsafe_code, reason = "the pool's guard is not Send, for its raw pointer")]
// SAFETY: the guard holds the pool by an Arc and a pointer to a slot of it that only the guard
// uses; its drop sets the slot's bit by an atomic operation, from whatever thread.
unsafe impl Send for Owned {}
