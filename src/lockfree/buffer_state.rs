//! What becomes of one buffer's record, in one word.
//!
//! ```text
//!   63             32 31          4   3   1   0
//!  +-----------------+-------------+---+-------+
//!  |   generation    |   handles   |raw| phase |
//!  +-----------------+-------------+---+-------+
//!
//!          begin             last handle
//!   Free ---------> Allocated ----------> Retired ---> Allocated (begin, on the stream that
//!    ^                                       |                    retired it)
//!    +---------------------------------------+
//!                     reclaim
//! ```
//!
//! A generation is one life of the record: the word of an earlier one names no buffer of a later.
//!
//! * state: written by `release`; read by `release`, `begin`. The `Release` of each handle's end
//!   pairs with the `Acquire` of the last one's, in `load`: the thread that retires the buffer sees
//!   all uses.
//!   The record changes owners through stacks, which order the rest.
//! * state: written by `make_raw`, `begin_raw`; read by `take_raw`, `share_raw`, `end_raw`.
//!   `Release` and `Acquire`: the taker of the bare handle sees what the giver did.

use crate::sync::atomic::{
    AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use crate::sync::try_update;

/// The state word of a record.
#[derive(Debug)]
pub(crate) struct BufferWord(AtomicU64);

/// Where a record is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No handle, no use by the device.
    Free,
    /// A handle; used by the device or not.
    Allocated,
    /// No handle is left; the device may still be using the memory.
    Retired,
}

/// The word at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferStateWord(u64);

/// The record is in no state for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSo(pub(crate) BufferStateWord);

impl BufferWord {
    /// A free record.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Begins a life with one handle. The caller owns the record; its generation.
    #[inline]
    pub(crate) fn begin(&self) -> Result<u32, NotSo> {
        let next = |state: BufferStateWord| {
            let is_free = state.0 & (HANDLES | RAW) == 0;
            is_free.then(|| state.with(Phase::Allocated).with_next_generation().plus_handle())
        };
        // A store: without a handle, bare or not, only the record's owner changes the word.
        let old = BufferStateWord(self.0.load(Relaxed));
        self.0.store(next(old).ok_or(NotSo(old))?.0, Relaxed);
        Ok(old.generation().wrapping_add(1))
    }

    /// Adds a handle to the one that the caller has.
    pub(crate) fn share(&self) -> Result<(), NotSo> {
        let next = |state: BufferStateWord| {
            (state.handles() > 0 && state.handles() < MOST_HANDLES).then(|| state.plus_handle())
        };
        self.update(Relaxed, next).map(drop)
    }

    /// Ends a handle. Returns whether it was the last one: the record is the caller's then.
    #[inline]
    pub(crate) fn release(&self) -> Result<bool, NotSo> {
        if self.release_last() { Ok(true) } else { self.release_shared() }
    }

    /// Ends a handle if it is the only one. Returns whether it did: the record is then the
    /// caller's.
    #[inline]
    pub(crate) fn release_last(&self) -> bool {
        let state = self.load();
        let is_last = state.handles() == 1;
        if is_last {
            // A store: the only handle is the caller's, which nothing else uses while it ends; a
            // bare one would be counted.
            let left = BufferStateWord(state.0 & !HANDLES).with(Phase::Retired);
            // Release: pairs with the Acquire of `load`.
            self.0.store(left.0, Release);
        }
        is_last
    }

    /// As `release`, where there may be other handles.
    #[cold]
    fn release_shared(&self) -> Result<bool, NotSo> {
        let next = |state: BufferStateWord| {
            let rest = state.handles().checked_sub(1)?;
            let left = BufferStateWord(state.0 - ONE_HANDLE);
            Some(if rest == 0 { left.with(Phase::Retired) } else { left })
        };
        // AcqRel: the end of one handle pairs with that of the last.
        self.update(AcqRel, next).map(|old| old.handles() == 1)
    }

    /// Notes that a retired record of the caller's is free.
    pub(crate) fn reclaim(&self) {
        let outcome = self.update(Relaxed, |state| {
            (state.phase() == Phase::Retired).then(|| state.with(Phase::Free))
        });
        debug_assert!(outcome.is_ok(), "{outcome:?}");
    }

    /// Turns the one handle of a life into a bare one.
    #[inline]
    pub(crate) fn make_raw(&self) -> Result<u32, NotSo> {
        let next = |state: BufferStateWord| {
            (state.handles() == 1 && !state.is_raw()).then_some(BufferStateWord(state.0 | RAW))
        };
        // AcqRel: pairs with that of `take_raw`.
        self.update(AcqRel, next).map(BufferStateWord::generation)
    }

    /// Turns the one handle of a life that has just begun, of which no other thread knows, into a
    /// bare one. The generation of that life.
    #[inline]
    pub(crate) fn begin_raw(&self) -> u32 {
        let state = BufferStateWord(self.0.load(Relaxed));
        debug_assert!(state.handles() == 1 && !state.is_raw(), "{state:?}");
        // A store: what others try by an old handle fails without changing the word. Release: pairs
        // with the Acquire of `take_raw`.
        self.0.store(state.0 | RAW, Release);
        state.generation()
    }

    /// Turns the bare handle of a life back; the error says that there is none.
    #[inline]
    pub(crate) fn take_raw(&self, generation: u32) -> Result<(), NotSo> {
        let next = |state: BufferStateWord| {
            (state.is_raw() && state.generation() == generation)
                .then_some(BufferStateWord(state.0 & !RAW))
        };
        // AcqRel: pairs with that of `make_raw`.
        self.update(AcqRel, next).map(drop)
    }

    /// Ends the bare handle of a life if it is the only handle. Returns whether it did: the record
    /// is then the caller's.
    #[inline]
    pub(crate) fn end_raw(&self, generation: u32) -> bool {
        let life = BufferStateWord(u64::from(generation) << 32);
        let (only, none) =
            (life.with(Phase::Allocated).plus_handle().0 | RAW, life.with(Phase::Retired).0);
        // AcqRel: pairs with that of `make_raw`, and of the handles that have ended.
        self.0.compare_exchange(only, none, AcqRel, Relaxed).is_ok()
    }

    /// Adds a handle to the bare one of a life; the error says that there is none.
    pub(crate) fn share_raw(&self, generation: u32) -> Result<(), NotSo> {
        let next = |state: BufferStateWord| {
            let fits = state.is_raw() && state.generation() == generation;
            (fits && state.handles() < MOST_HANDLES).then(|| state.plus_handle())
        };
        // AcqRel: pairs with that of `make_raw`.
        self.update(AcqRel, next).map(drop)
    }

    /// The state at this moment.
    #[inline]
    pub(crate) fn load(&self) -> BufferStateWord {
        // Acquire: pairs with the AcqRel of `release`.
        BufferStateWord(self.0.load(Acquire))
    }

    #[inline]
    fn update(
        &self,
        order: crate::sync::atomic::Ordering,
        next: impl Fn(BufferStateWord) -> Option<BufferStateWord>,
    ) -> Result<BufferStateWord, NotSo> {
        let step = |word| {
            let state = BufferStateWord(word);
            next(state).map(|next| next.0).ok_or(NotSo(state))
        };
        try_update(&self.0, order, step).map(BufferStateWord)
    }
}

impl BufferStateWord {
    pub(crate) fn phase(self) -> Phase {
        match self.0 & PHASE {
            0 => Phase::Free,
            1 => Phase::Allocated,
            _ => Phase::Retired,
        }
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn handles(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(0) >> HANDLES_SHIFT
    }

    pub(crate) fn is_raw(self) -> bool {
        self.0 & RAW != 0
    }

    fn with(self, phase: Phase) -> Self {
        let bits = match phase {
            Phase::Free => 0,
            Phase::Allocated => 1,
            Phase::Retired => 2,
        };
        Self(self.0 & !PHASE | bits)
    }

    fn with_next_generation(self) -> Self {
        Self(self.0.wrapping_add(1 << 32))
    }

    fn plus_handle(self) -> Self {
        Self(self.0 + ONE_HANDLE)
    }
}

const PHASE: u64 = 3;
const RAW: u64 = 1 << 3;
const HANDLES_SHIFT: u32 = 4;
const HANDLES: u64 = (MOST_HANDLES as u64) << HANDLES_SHIFT;
const ONE_HANDLE: u64 = 1 << HANDLES_SHIFT;
const MOST_HANDLES: u32 = (1 << 28) - 1;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_phase_is_reached_and_a_life_ends_once() {
        let word = BufferWord::new();
        assert_eq!(word.load().phase(), Phase::Free);
        assert!(word.release().is_err() && word.share().is_err() && word.make_raw().is_err());
        assert_eq!(word.begin(), Ok(1));
        assert!(word.begin().is_err());
        assert_eq!(word.load().phase(), Phase::Allocated);
        word.share().unwrap();
        assert!(word.make_raw().is_err(), "two handles");
        assert_eq!((word.release(), word.release()), (Ok(false), Ok(true)));
        assert_eq!(word.load().phase(), Phase::Retired);
        assert!(word.release().is_err());
        assert_eq!(word.begin(), Ok(2));
        assert_eq!(word.release(), Ok(true));
        word.reclaim();
        assert_eq!(word.load().phase(), Phase::Free);
    }

    #[test]
    fn a_bare_handle_is_taken_back_once_and_in_its_life() {
        let word = BufferWord::new();
        word.begin().unwrap();
        let generation = word.make_raw().unwrap();
        assert!(word.make_raw().is_err() && word.take_raw(generation + 1).is_err());
        word.share_raw(generation).unwrap();
        assert_eq!(word.release(), Ok(false));
        word.take_raw(generation).unwrap();
        assert!(word.take_raw(generation).is_err() && word.share_raw(generation).is_err());
        word.release().unwrap();
        word.begin().unwrap();
        let later = word.begin_raw();
        assert!(word.take_raw(generation).is_err() && later != generation);
        word.share_raw(later).unwrap();
        assert!(!word.end_raw(later), "two handles");
        assert_eq!(word.release(), Ok(false));
        assert!(!word.end_raw(generation) && word.end_raw(later) && !word.end_raw(later));
        assert_eq!((word.load().phase(), word.load().handles()), (Phase::Retired, 0));
        word.begin().unwrap();
    }
}
