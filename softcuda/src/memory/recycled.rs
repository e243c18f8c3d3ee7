//! Addresses of freed memory, which the next allocation gets.
//!
//! Drivers reuse addresses at once. An operation that is still to run on freed memory reaches its
//! next owner's bytes then, here as there; what it holds of its own is the old [`Block`], by which
//! it is told.

use std::sync::{Arc, Weak};

use super::block::{Block, Kind, Mapping};

/// The freed ranges of one machine, the last one freed at the end.
#[derive(Debug, Default)]
pub(crate) struct Recycled(Vec<Range>);

#[derive(Debug)]
struct Range {
    mapping: Arc<Mapping>,
    class: Class,
    /// Whose it was.
    block: Weak<Block>,
    /// The stream that frees it, by the number that no other stream has; or zero.
    stream: u64,
}

/// Whose addresses are whose: a memory pool has its own, the host's are apart from the devices'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Host,
    Device,
    Pool(u64),
}

impl Class {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Pool { pool, .. } => Self::Pool(pool),
            kind if kind.is_host() => Self::Host,
            _ => Self::Device,
        }
    }
}

impl Recycled {
    /// Takes the addresses of `block`, which is freed, or will be when `stream` comes there.
    pub(crate) fn put(&mut self, block: &Arc<Block>, stream: u64) {
        let Some(mapping) = block.mapping() else { return };
        // The oldest are the system's again.
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        let (mapping, class) = (Arc::clone(mapping), Class::of(block.kind));
        self.0.push(Range { mapping, class, block: Arc::downgrade(block), stream });
    }

    /// The range that was freed last of those that have room for an allocation which `stream`
    /// makes, or zero: "stream-ordered" memory may come back to its stream before it is freed.
    pub(crate) fn take(&mut self, kind: Kind, size: usize, stream: u64) -> Option<Arc<Mapping>> {
        let class = Class::of(kind);
        let fits = |range: &Range| {
            let is_free = range.block.upgrade().is_none_or(|block| block.is_freed());
            range.class == class
                && range.mapping.size() >= size
                && (is_free || stream != 0 && range.stream == stream)
        };
        let index = self.0.iter().rposition(fits)?;
        Some(self.0.remove(index).mapping)
    }
}

/// The number of ranges that are kept.
const MOST: usize = 256;
