//! A piece of memory that a transport has registered: which generation it is, and how many leases
//! hold it.
//!
//! ```text
//!   63               32 31               2 1       0
//!  +-------------------+------------------+---------+
//!  | generation        | leases           | state   |
//!  +-------------------+------------------+---------+
//!
//!   vacant --begin--> changing --open--> attached --retire, no lease--> changing --close--> vacant
//!     ^                  |                  |  ^                           |
//!     +-----close--------+                lease, end                     lose --> lost
//! ```
//!
//! The generation is counted with each `begin`, and never is 0: what names an earlier life of the
//! place, in this process or in another, is refused.
//!
//! * the word: written by the thread that attaches or detaches, and by leases; read by all. The
//!   `Release` of `open` pairs with the `Acquire` of a lease, which sees the piece's memory and
//!   length; the `Release` of a lease's end pairs with the `Acquire` of `retire`, which comes after
//!   every use under a lease; the `Release` of `close` pairs with the `Acquire` of `begin`.

use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use crate::sync::try_update;

/// The word of one place at which a piece may begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PieceWord<'a>(&'a AtomicU64);

/// Why a change of a piece's word was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PieceFault {
    /// The piece is not in the state that the change begins from.
    State,
    /// Leases hold it.
    Leased,
    /// The generation is another one: this one, or 0 if no piece is attached.
    Stale(u32),
    /// As many leases hold it as the word counts.
    Full,
}

impl<'a> PieceWord<'a> {
    pub(crate) fn new(word: &'a AtomicU64) -> Self {
        Self(word)
    }

    /// Claims a vacant place for a piece of the next generation, which is returned.
    pub(crate) fn begin(self) -> Result<u32, PieceFault> {
        // Acquire: pairs with the Release of `close`.
        let old = try_update(self.0, Acquire, |word| match state(word) {
            VACANT => Ok(pack(next_generation(word), 0, CHANGING)),
            _ => Err(PieceFault::State),
        })?;
        Ok(next_generation(old))
    }

    /// The caller's piece is attached, and may be leased.
    pub(crate) fn open(self) {
        self.change(|word| pack(generation(word), 0, ATTACHED));
    }

    /// The caller's piece is gone: its place is vacant.
    pub(crate) fn close(self) {
        self.change(|word| pack(generation(word), 0, VACANT));
    }

    /// The caller's piece is lost: its place is never used again.
    pub(crate) fn lose(self) {
        self.change(|word| pack(generation(word), 0, LOST));
    }

    /// Claims an attached piece that no lease holds, to detach it.
    pub(crate) fn retire(self) -> Result<(), PieceFault> {
        // Acquire: pairs with the Release of `end`.
        try_update(self.0, Acquire, |word| match (state(word), leases(word)) {
            (ATTACHED, 0) => Ok(pack(generation(word), 0, CHANGING)),
            (ATTACHED, _) => Err(PieceFault::Leased),
            _ => Err(PieceFault::State),
        })?;
        Ok(())
    }

    /// Takes a lease on the piece of a generation.
    pub(crate) fn lease(self, of: u32) -> Result<(), PieceFault> {
        // Acquire: pairs with the Release of `open`.
        try_update(self.0, Acquire, |word| match attached(word) {
            current if current != of || of == 0 => Err(PieceFault::Stale(current)),
            _ if leases(word) == MOST => Err(PieceFault::Full),
            _ => Ok(word + ONE),
        })?;
        Ok(())
    }

    /// Ends a lease of the caller's.
    pub(crate) fn end(self) {
        // Release: pairs with the Acquire of `retire`.
        let ended = try_update(self.0, Release, |word| match leases(word) {
            0 => Err(PieceFault::State),
            _ => Ok(word - ONE),
        });
        debug_assert!(ended.is_ok(), "a lease that was not taken: {ended:?}");
    }

    /// The generation of the piece that is attached here; 0 if none is.
    pub(crate) fn generation(self) -> u32 {
        // Acquire: pairs with the Release of `open`.
        attached(self.0.load(Acquire))
    }

    /// How many leases hold the piece.
    pub(crate) fn leases(self) -> u32 {
        leases(self.0.load(Acquire))
    }

    /// A change of a word that only the caller changes now.
    fn change(self, next: impl Fn(u64) -> u64) {
        // Release: pairs with the Acquire of `lease`, `generation` and `begin`.
        let changed = try_update(self.0, Release, |word| match state(word) {
            CHANGING => Ok(next(word)),
            _ => Err(PieceFault::State),
        });
        debug_assert!(changed.is_ok(), "a piece that was not claimed: {changed:?}");
    }
}

fn pack(generation: u32, leases: u32, state: u64) -> u64 {
    u64::from(generation) << 32 | u64::from(leases) << LEASES | state
}

fn state(word: u64) -> u64 {
    word & 3
}

fn leases(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32 >> LEASES
}

fn generation(word: u64) -> u32 {
    (word >> 32) as u32
}

fn attached(word: u64) -> u32 {
    if state(word) == ATTACHED { generation(word) } else { 0 }
}

fn next_generation(word: u64) -> u32 {
    generation(word).wrapping_add(1).max(1)
}

const VACANT: u64 = 0;
const CHANGING: u64 = 1;
const ATTACHED: u64 = 2;
const LOST: u64 = 3;
const LEASES: u32 = 2;
const ONE: u64 = 1 << LEASES;
const MOST: u32 = u32::MAX >> LEASES;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_leased_piece_is_not_retired_and_an_old_generation_not_leased() {
        let word = AtomicU64::new(0);
        let piece = PieceWord::new(&word);
        assert_eq!(
            (piece.lease(0), piece.retire()),
            (Err(PieceFault::Stale(0)), Err(PieceFault::State))
        );
        assert_eq!(piece.begin(), Ok(1));
        assert_eq!(
            (piece.begin(), piece.lease(1)),
            (Err(PieceFault::State), Err(PieceFault::Stale(0)))
        );
        piece.open();
        assert_eq!((piece.lease(1), piece.lease(1), piece.leases()), (Ok(()), Ok(()), 2));
        piece.end();
        assert_eq!(piece.retire(), Err(PieceFault::Leased));
        piece.end();
        assert_eq!((piece.retire(), piece.lease(1)), (Ok(()), Err(PieceFault::Stale(0))));
        piece.close();
        assert_eq!(piece.begin(), Ok(2));
        piece.open();
        assert_eq!((piece.lease(1), piece.generation()), (Err(PieceFault::Stale(2)), 2));
        assert_eq!(piece.retire(), Ok(()));
        piece.lose();
        assert_eq!((piece.begin(), piece.generation()), (Err(PieceFault::State), 0));
    }

    #[test]
    fn counts_and_generations_end_where_the_word_does() {
        let word = AtomicU64::new(pack(u32::MAX, 0, VACANT));
        let piece = PieceWord::new(&word);
        assert_eq!(piece.begin(), Ok(1), "0 is no generation");
        let word = AtomicU64::new(pack(7, MOST, ATTACHED));
        let piece = PieceWord::new(&word);
        assert_eq!((piece.lease(7), piece.leases()), (Err(PieceFault::Full), MOST));
    }
}
