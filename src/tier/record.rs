//! What the pool knows of one object.
//!
//! * `blocks[i]`: written by who makes the object; the owner of a move, the block that is not
//!   current; read by who pins. Relaxed: ordered by the state word.
//! * `home`, `size`: written by who makes the object; the owner of a move (`home`); read by owners
//!   of moves, who frees. Relaxed: ordered by the state word.
//! * `due`: written by `expect_use_in`, `step`; read by `step`, the clock. Relaxed: a hint.
//! * `near`: written by who pins, moves; read by who pins. Relaxed: a hint.

use super::file::MappedFile;
use super::memory::TierBlock;
use crate::lockfree::tier_state::TierWord;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// One object, or a block for one.
#[derive(Debug)]
pub(super) struct ObjectRecord {
    pub(super) word: TierWord,
    /// An address, the slabs' word, and the device's address: 0 is none.
    blocks: [[AtomicU64; 3]; 2],
    /// Where the object's block in the tier of files is, 0 if it has none: it keeps it while
    /// elsewhere.
    home: [AtomicU64; 3],
    size: AtomicUsize,
    /// The step at which a use of the object is expected, and in which tier; 0: none is.
    pub(super) due: AtomicU64,
    /// Whether managed memory was asked to be at the device.
    pub(super) near: AtomicBool,
    /// The file that `home` is a part of, for an object that was made of one. Touched by who makes,
    /// copies and frees the object.
    file: Mutex<Option<MappedFile>>,
    /// Whether there is one: its bytes are not to be written.
    is_fixed: AtomicBool,
}

impl ObjectRecord {
    pub(super) fn new() -> Self {
        Self {
            word: TierWord::vacant(),
            blocks: Default::default(),
            home: Default::default(),
            size: AtomicUsize::new(0),
            due: AtomicU64::new(0),
            near: AtomicBool::new(false),
            file: Mutex::new(None),
            is_fixed: AtomicBool::new(false),
        }
    }

    /// Notes all there is to know of a new object, in the block with number 0.
    pub(super) fn set_up(
        &self,
        size: usize,
        block: TierBlock,
        home: Option<TierBlock>,
        file: Option<MappedFile>,
    ) {
        self.size.store(size, Relaxed);
        self.set_block(0, block);
        store(&self.home, home);
        self.due.store(0, Relaxed);
        self.near.store(false, Relaxed);
        self.is_fixed.store(file.is_some(), Relaxed);
        *self.file.lock() = file;
    }

    /// Lets go of the file.
    pub(super) fn clear(&self) {
        *self.file.lock() = None;
    }

    /// How many of `len` bytes of a part of a file one copy may take.
    pub(super) fn file_piece_len(&self, address: u64, len: usize) -> usize {
        let file = self.file.lock();
        file.as_ref().map_or(len, |file| file.piece_len(address, len))
    }

    pub(super) fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    #[inline]
    pub(super) fn block(&self, number: usize) -> TierBlock {
        load(&self.blocks[number])
    }

    /// Sets a block, by who makes the object, or owns its move and the block is not current.
    pub(super) fn set_block(&self, number: usize, block: TierBlock) {
        store(&self.blocks[number], Some(block));
    }

    pub(super) fn home(&self) -> Option<TierBlock> {
        Some(load(&self.home)).filter(|block| block.address != 0)
    }

    pub(super) fn set_home(&self, block: TierBlock) {
        store(&self.home, Some(block));
    }

    /// Whether the object's file is another's, and not to be written.
    pub(super) fn is_fixed(&self) -> bool {
        self.is_fixed.load(Relaxed)
    }
}

#[inline]
fn load([address, meta, device]: &[AtomicU64; 3]) -> TierBlock {
    let device = Some(device.load(Relaxed)).filter(|device| *device != 0);
    TierBlock { address: address.load(Relaxed), meta: meta.load(Relaxed), device }
}

fn store([address, meta, device]: &[AtomicU64; 3], block: Option<TierBlock>) {
    address.store(block.map_or(0, |block| block.address), Relaxed);
    meta.store(block.map_or(0, |block| block.meta), Relaxed);
    device.store(block.and_then(|block| block.device).unwrap_or(0), Relaxed);
}
