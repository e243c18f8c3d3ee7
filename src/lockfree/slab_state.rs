//! The state of one run of slices, in one word.
//!
//! The anchor of [LRMalloc](https://github.com/ricleite/lrmalloc) and of Michael's
//! [Scalable Lock-Free Dynamic Memory Allocation](https://doi.org/10.1145/996841.996848) for
//! metadata that lives outside the managed memory: the word counts the free blocks, a bitmap
//! names them. An allocation first reserves a number of blocks here, then takes as many bits; a
//! free first sets the bits, then raises the count. So there are always at least as many free bits
//! as reservations, and a count equal to the capacity proves that no block is held or about to be
//! taken. That is the only moment at which a run may change hands.
//!
//! ```text
//!   63          40 39   36 35    28 27        14 13         0
//!  +--------------+-------+--------+------------+------------+
//!  |  generation  | phase | class  |  capacity  |    free    |
//!  +--------------+-------+--------+------------+------------+
//!
//!             claim_vacant               open
//!   Vacant ----------------> Claimed -----------> Open (free = 0 ..= capacity)
//!      ^                      |   ^                 |  ^   |
//!      +----------------------+   |   claim_empty   |  +---+ reserve, put_back
//!              vacate             +-----------------+
//!                                  free = capacity
//! ```
//!
//! * state: written by `reserve`; read by allocators. Its `Acquire` pairs with the
//!   `Release` of `put_back` and `open`: a thread that reserves sees the bits that were counted.
//! * state: written by `put_back`; read by freers. Its `Release` pairs with the
//!   `Acquire` of `reserve` and `claim_empty`.
//! * state: written by `claim_empty`, `claim_vacant`; read by growth, trim. Their
//!   `Acquire` pairs with the `Release` of `put_back` and `vacate`: the claimer's plain writes to
//!   the run's metadata come after every earlier use.
//! * state: written by `open`, `vacate`; read by all. Their `Release` publishes the metadata
//!   written while claimed.

use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use crate::sync::try_update;

/// The largest capacity the word can count.
pub(crate) const MAX_CAPACITY: u32 = (1 << 14) - 1;

/// The state word of one run.
#[derive(Debug)]
pub(crate) struct SlabWord(AtomicU64);

/// The word does not allow the transition: the run is in another phase, of another class,
/// has no free block, or more blocks come back than it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl SlabWord {
    /// A run without an owner.
    pub(crate) fn vacant() -> Self {
        Self(AtomicU64::new(SlabState::VACANT.0))
    }

    /// The state at this moment; a hint unless the caller owns the run or one of its blocks.
    pub(crate) fn load(&self) -> SlabState {
        // Acquire: pairs with the Release of `open`, so the metadata of an open run is seen.
        SlabState(self.0.load(Acquire))
    }

    /// Reserves 1 to `want` blocks of a run that is open for `class`; returns how many.
    pub(crate) fn reserve(&self, class: u8, want: u32) -> Result<u32, Refused> {
        // Acquire: pairs with the Release of `put_back` and `open`.
        let old = try_update(&self.0, Acquire, |word| {
            SlabState(word).reserve(class, want).map(SlabState::word)
        })?;
        Ok(want.min(SlabState(old).free()))
    }

    /// Returns `count` blocks whose bits are set; the state before.
    pub(crate) fn put_back(&self, count: u32) -> Result<SlabState, Refused> {
        // Release: pairs with the Acquire of `reserve` and `claim_empty`.
        try_update(&self.0, Release, |word| SlabState(word).put_back(count).map(SlabState::word))
            .map(SlabState)
    }

    /// Takes an open run of which every block is free out of use; the state before.
    pub(crate) fn claim_empty(&self) -> Result<SlabState, Refused> {
        // Acquire: pairs with the Release of `put_back`.
        try_update(&self.0, Acquire, |word| SlabState(word).claim_empty().map(SlabState::word))
            .map(SlabState)
    }

    /// Takes a run without an owner; its slices are the caller's already.
    pub(crate) fn claim_vacant(&self) -> Result<(), Refused> {
        // Acquire: pairs with the Release of `vacate`.
        try_update(&self.0, Acquire, |word| SlabState(word).claim_vacant().map(SlabState::word))?;
        Ok(())
    }

    /// Opens a claimed run for `class` with `capacity` blocks, `free` of them free.
    pub(crate) fn open(&self, class: u8, capacity: u32, free: u32) -> Result<(), Refused> {
        // Release: pairs with the Acquire of `reserve` and `load`.
        try_update(&self.0, Release, |word| {
            SlabState(word).open(class, capacity, free).map(SlabState::word)
        })?;
        Ok(())
    }

    /// Lets go of a claimed run.
    pub(crate) fn vacate(&self) -> Result<(), Refused> {
        // Release: pairs with the Acquire of `claim_vacant`.
        try_update(&self.0, Release, |word| SlabState(word).vacate().map(SlabState::word))?;
        Ok(())
    }
}

/// One value of the word: pure transitions, no atomics.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlabState(u64);

/// What a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No owner, and no memory behind it.
    Vacant,
    /// Owned by one thread, which is growing, trimming or re-classing it.
    Claimed,
    /// A slab.
    Open,
}

impl SlabState {
    const VACANT: Self = Self(0);

    /// The phase of the run.
    pub(crate) fn phase(self) -> Phase {
        match (self.0 >> PHASE_SHIFT) & PHASE_MASK {
            0 => Phase::Vacant,
            1 => Phase::Claimed,
            _ => Phase::Open,
        }
    }

    /// The size class of an open run.
    pub(crate) fn class(self) -> u8 {
        ((self.0 >> CLASS_SHIFT) & 0xff) as u8
    }

    /// Blocks in the run; of one that is not open, how many it had when it last was.
    pub(crate) fn capacity(self) -> u32 {
        ((self.0 >> CAPACITY_SHIFT) & COUNT_MASK) as u32
    }

    /// Free blocks of an open run that are not reserved.
    pub(crate) fn free(self) -> u32 {
        (self.0 & COUNT_MASK) as u32
    }

    /// How often the run was claimed, modulo 2^24.
    pub(crate) fn generation(self) -> u32 {
        ((self.0 >> GENERATION_SHIFT) & GENERATION_MASK) as u32
    }

    /// A slab or a large block, whatever of it is free.
    pub(crate) fn is_open(self) -> bool {
        self.phase() == Phase::Open
    }

    /// Open, and every block is free.
    pub(crate) fn is_empty(self) -> bool {
        self.is_open() && self.free() == self.capacity()
    }

    /// Open for `class`, and some block is free.
    pub(crate) fn has_room(self, class: u8) -> bool {
        self.phase() == Phase::Open && self.class() == class && self.free() > 0
    }

    fn reserve(self, class: u8, want: u32) -> Result<Self, Refused> {
        if !self.has_room(class) {
            return Err(Refused);
        }
        Ok(Self(self.0 - u64::from(want.min(self.free()))))
    }

    fn put_back(self, count: u32) -> Result<Self, Refused> {
        if self.phase() != Phase::Open || count > self.capacity() - self.free() {
            return Err(Refused);
        }
        Ok(Self(self.0 + u64::from(count)))
    }

    fn claim_empty(self) -> Result<Self, Refused> {
        if self.is_empty() { Ok(self.claimed()) } else { Err(Refused) }
    }

    fn claim_vacant(self) -> Result<Self, Refused> {
        if self.phase() == Phase::Vacant { Ok(self.claimed()) } else { Err(Refused) }
    }

    fn open(self, class: u8, capacity: u32, free: u32) -> Result<Self, Refused> {
        if self.phase() != Phase::Claimed || capacity > MAX_CAPACITY || free > capacity {
            return Err(Refused);
        }
        Ok(Self::new(self.generation(), Phase::Open, class, capacity, free))
    }

    fn vacate(self) -> Result<Self, Refused> {
        if self.phase() != Phase::Claimed {
            return Err(Refused);
        }
        Ok(Self::new(self.generation(), Phase::Vacant, 0, self.capacity(), 0))
    }

    /// The next generation, claimed.
    fn claimed(self) -> Self {
        Self::new(self.generation().wrapping_add(1), Phase::Claimed, 0, self.capacity(), 0)
    }

    fn new(generation: u32, phase: Phase, class: u8, capacity: u32, free: u32) -> Self {
        let phase = match phase {
            Phase::Vacant => 0,
            Phase::Claimed => 1,
            Phase::Open => 2,
        };
        // The shift drops what does not fit in the 24 bits of the generation.
        Self(
            u64::from(generation) << GENERATION_SHIFT
                | phase << PHASE_SHIFT
                | u64::from(class) << CLASS_SHIFT
                | u64::from(capacity) << CAPACITY_SHIFT
                | u64::from(free),
        )
    }

    fn word(self) -> u64 {
        self.0
    }
}

impl std::fmt::Debug for SlabState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlabState")
            .field("generation", &self.generation())
            .field("phase", &self.phase())
            .field("class", &self.class())
            .field("capacity", &self.capacity())
            .field("free", &self.free())
            .finish()
    }
}

const COUNT_MASK: u64 = 0x3fff;
const CAPACITY_SHIFT: u32 = 14;
const CLASS_SHIFT: u32 = 28;
const PHASE_SHIFT: u32 = 36;
const PHASE_MASK: u64 = 0xf;
const GENERATION_SHIFT: u32 = 40;
const GENERATION_MASK: u64 = 0xff_ffff;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_round() {
        let word = SlabWord::vacant();
        word.claim_vacant().unwrap();
        assert_eq!(word.claim_vacant(), Err(Refused));
        word.open(7, 3, 2).unwrap();
        assert_eq!(word.reserve(6, 1), Err(Refused));
        assert_eq!(word.reserve(7, 5), Ok(2));
        assert_eq!(word.reserve(7, 1), Err(Refused));
        assert_eq!(word.put_back(2).unwrap().free(), 0);
        assert_eq!(word.claim_empty(), Err(Refused));
        word.put_back(1).unwrap();
        assert_eq!(word.put_back(1), Err(Refused));
        assert_eq!(word.claim_empty().unwrap().class(), 7);
        assert_eq!(word.load().generation(), 2);
        word.vacate().unwrap();
        assert_eq!(word.load().phase(), Phase::Vacant);
    }

    #[test]
    fn fields_do_not_touch_each_other() {
        let all = SlabState::new(0xff_ffff, Phase::Open, 255, MAX_CAPACITY, MAX_CAPACITY - 1);
        assert_eq!((all.generation(), all.phase(), all.class()), (0xff_ffff, Phase::Open, 255));
        assert_eq!((all.capacity(), all.free()), (MAX_CAPACITY, MAX_CAPACITY - 1));
        let empty = all.put_back(1).unwrap();
        assert!(empty.is_empty());
        assert_eq!(empty.put_back(1), Err(Refused));
        // The generation wraps without spilling over.
        assert_eq!(empty.claim_empty().unwrap().generation(), 0);
    }
}
