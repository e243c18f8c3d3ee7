//! Every peer that says where its blocks lie hands out a place once: four threads allocate, and
//! free what they find in boxes that all put blocks into.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::{array, thread};

use wharf_bench::peer::{Local, Peer};
use wharf_bench::peers::{mallocs, ours, pools, ranges};

const THREADS: usize = 4;
const ALLOCATIONS: usize = 20_000;
const LIVE: usize = 100;
const BOXES: usize = 64;

/// The live blocks: start and end.
#[derive(Default)]
struct Blocks(Mutex<BTreeMap<usize, usize>>);

impl Blocks {
    fn insert(&self, (start, len): (usize, usize)) {
        let (mut blocks, end) = (self.0.lock().unwrap(), start + len);
        if let Some((_, &before)) = blocks.range(..end).next_back() {
            assert!(before <= start, "{start}..{end} overlaps a block that ends at {before}");
        }
        blocks.insert(start, end);
    }

    fn remove(&self, (start, len): (usize, usize)) {
        assert_eq!(self.0.lock().unwrap().remove(&start), Some(start + len), "the block is live");
    }
}

struct Exchange<P: Peer> {
    peer: P,
    blocks: Blocks,
    boxes: [Mutex<Option<(P::Block, usize)>>; BOXES],
}

impl<P: Peer> Exchange<P> {
    fn work(&self, seed: u64) {
        let mut local = self.peer.local();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut live = Vec::new();
        for _ in 0..ALLOCATIONS {
            let size = random.usize(1..1 << 20) >> random.u32(..12);
            live.push(self.alloc(&mut local, size.max(1)));
            if live.len() > LIVE {
                let block = live.swap_remove(random.usize(..LIVE));
                let other = self.boxes[random.usize(..BOXES)].lock().unwrap().replace(block);
                other.into_iter().for_each(|block| self.free(&mut local, block));
            }
        }
        live.into_iter().for_each(|block| self.free(&mut local, block));
    }

    fn alloc(&self, local: &mut P::Local<'_>, size: usize) -> (P::Block, usize) {
        let block = local.alloc(size).unwrap();
        local.extent(&block, size).into_iter().for_each(|extent| self.blocks.insert(extent));
        (block, size)
    }

    fn free(&self, local: &mut P::Local<'_>, (block, size): (P::Block, usize)) {
        // First: afterwards the place may be another thread's.
        local.extent(&block, size).into_iter().for_each(|extent| self.blocks.remove(extent));
        local.free(block);
    }
}

fn check<P: Peer>() {
    let exchange = &Exchange::<P> {
        peer: P::new(),
        blocks: Blocks::default(),
        boxes: array::from_fn(|_| Mutex::new(None)),
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|seed| scope.spawn(move || exchange.work(seed as u64))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let left = exchange.boxes.iter().filter_map(|it| it.lock().unwrap().take());
    left.for_each(|block| exchange.free(&mut exchange.peer.local(), block));
    assert_eq!(exchange.blocks.0.lock().unwrap().len(), 0);
}

#[test]
fn wharf_hands_out_a_place_once() {
    check::<ours::ThreadCache>();
    check::<ours::LocalCache>();
}

#[test]
fn pools_hand_out_a_place_once() {
    check::<pools::ArrayQueues>();
    check::<pools::SegQueues>();
    check::<pools::ObjectPools>();
    check::<pools::ShardedSlabs>();
}

#[test]
fn ranges_hand_out_a_place_once() {
    check::<ranges::OffsetAllocator>();
    check::<ranges::Xalloc>();
    check::<ranges::VirtualBlock>();
    check::<ranges::GpuAlloc>();
}

#[test]
fn mallocs_hand_out_a_place_once() {
    check::<mallocs::Mimalloc>();
    check::<mallocs::Jemalloc>();
    check::<mallocs::Snmalloc>();
    check::<mallocs::Glibc>();
}
