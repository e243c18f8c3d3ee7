//! The allocators.

pub mod mallocs;
pub mod noop;
pub mod ours;
pub mod pools;
pub mod ranges;

use crate::peer::{Kind, Peer};
use crate::work::{Bench, Bound};

/// A peer by name, and how to make one.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What the tables call it.
    pub name: &'static str,
    /// What it is compared as.
    pub kind: Kind,
    /// Makes a fresh instance.
    pub make: fn() -> Box<dyn Bench>,
}

impl Entry {
    /// Whether this is neither wharf nor the harness.
    pub fn is_other(&self) -> bool {
        !matches!(self.kind, Kind::Ours | Kind::Harness)
    }
}

/// All peers, the harness first, then wharf.
pub fn all() -> Vec<Entry> {
    vec![
        entry::<noop::Noop>(),
        entry::<ours::ThreadCache>(),
        entry::<ours::LocalCache>(),
        entry::<pools::ArrayQueues>(),
        entry::<pools::SegQueues>(),
        entry::<pools::ShardedSlabs>(),
        entry::<pools::ObjectPools>(),
        entry::<ranges::OffsetAllocator>(),
        entry::<ranges::Xalloc>(),
        entry::<ranges::VirtualBlock>(),
        entry::<ranges::GpuAlloc>(),
        entry::<mallocs::Mimalloc>(),
        entry::<mallocs::Jemalloc>(),
        entry::<mallocs::Snmalloc>(),
        entry::<mallocs::Glibc>(),
    ]
}

fn entry<P: Peer>() -> Entry {
    Entry { name: P::NAME, kind: P::KIND, make: || Box::new(Bound(P::new())) }
}
