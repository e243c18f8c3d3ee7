//! A block: two words that travel in registers.

use std::fmt;
use std::num::NonZeroU64;

use super::geometry::LARGE;
use super::size_class::SizeClass;

/// A block of a pool's memory: an address, and what the pool needs to free it.
///
/// It is a plain handle, which costs nothing to move and frees nothing when it is dropped: pass it
/// to [`SlabPool::dealloc`](super::SlabPool::dealloc) of its pool. It cannot be copied, so safe
/// code cannot free twice. Its size in memory is 16 bytes, also as an `Option`.
///
/// ```text
///   address (64)          | pool id (56) | class (8) |
/// ```
///
/// It may be sent to, and freed by, any thread.
///
/// # Examples
///
/// ```
/// use wharf::memory::UnbackedResource;
/// use wharf::slab::{PoolOptions, SlabPool};
///
/// let pool = SlabPool::new(UnbackedResource::new(1 << 30)?, PoolOptions::default())?;
/// let block = pool.alloc(5000)?;
/// assert_eq!(block.address() % 256, 0);
/// assert_eq!(pool.block_size(&block), 5120);
/// pool.dealloc(block)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a block that is dropped stays allocated"]
#[derive(PartialEq, Eq, Hash)]
pub struct Block {
    address: u64,
    /// Two words of equal width: with narrower fields the compiler writes the handle in pieces
    /// and reads it as one, which stalls the store buffer (4 ns become 18).
    meta: NonZeroU64,
}

impl Block {
    #[inline]
    pub(super) fn new(address: u64, tag: NonZeroU64, class: u8) -> Self {
        Self { address, meta: tag | u64::from(class) }
    }

    /// The two words, for an owner that keeps them in atomics.
    #[inline]
    pub(crate) fn into_words(self) -> (u64, u64) {
        (self.address, self.meta.get())
    }

    /// The block whose words these are; the caller owns it, and has it once. `None` for zeros.
    #[inline]
    pub(crate) fn from_words(address: u64, meta: u64) -> Option<Self> {
        NonZeroU64::new(meta).map(|meta| Self { address, meta })
    }

    /// The address of the block's first byte, a multiple of 256.
    #[inline]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The block's size class; `None` for a large block, which has a run of granules of its own.
    pub fn class(&self) -> Option<SizeClass> {
        SizeClass::from_index(usize::from(self.class_number()))
    }

    #[inline]
    pub(super) fn class_number(&self) -> u8 {
        (self.meta.get() & 0xff) as u8
    }

    /// The class number if `tag` is the pool's; larger than any otherwise.
    #[inline]
    pub(super) fn class_under(&self, tag: NonZeroU64) -> u64 {
        self.meta.get() ^ tag.get()
    }

    /// Whether the block belongs to the pool with `tag`.
    pub(super) fn is_of(&self, tag: NonZeroU64) -> bool {
        self.class_under(tag) <= u64::from(LARGE)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            Some(class) => write!(f, "Block({:#x}, {class})", self.address),
            None => write!(f, "Block({:#x}, large)", self.address),
        }
    }
}

/// The block belongs to another pool. Nothing was freed.
#[derive(Debug, PartialEq, Eq)]
pub struct WrongPool(
    /// The block, which is still allocated.
    pub Block,
);

impl fmt::Display for WrongPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} belongs to another pool", self.0)
    }
}

impl std::error::Error for WrongPool {}
