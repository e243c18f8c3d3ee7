//! Tables that are made chunk by chunk and never move.
//!
//! Lengths are constants, so that finding an entry checks no bound and loads no length: every
//! allocation and every drop finds a record and a stream slot.

use crate::sync::OnceLock;

/// Up to `CHUNKS` chunks of `LEN` entries each.
#[derive(Debug)]
pub(super) struct Chunks<T, const LEN: usize, const CHUNKS: usize> {
    chunks: Box<[OnceLock<Box<[T; LEN]>>; CHUNKS]>,
}

impl<T, const LEN: usize, const CHUNKS: usize> Chunks<T, LEN, CHUNKS> {
    pub(super) fn new() -> Self {
        Self { chunks: boxed(OnceLock::new) }
    }

    /// The entry with a number below `LEN * CHUNKS`, if this thread sees that its chunk is made.
    #[inline]
    pub(super) fn find(&self, number: usize) -> Option<&T> {
        // The remainder is the quotient, and spares the check of it.
        Some(&self.chunks[number / LEN % CHUNKS].get()?[number % LEN])
    }

    /// The entry with a number below `LEN * CHUNKS`. Its chunk is made if this is the first of it.
    #[inline]
    pub(super) fn get(&self, number: usize, make: fn() -> T) -> &T {
        match self.find(number) {
            Some(entry) => entry,
            None => self.make(number, make),
        }
    }

    #[cold]
    fn make(&self, number: usize, make: fn() -> T) -> &T {
        &self.chunks[number / LEN % CHUNKS].get_or_init(|| boxed(make))[number % LEN]
    }
}

/// An array that is made where it stays: some are too large for a stack.
fn boxed<T, const LEN: usize>(make: impl Fn() -> T) -> Box<[T; LEN]> {
    let made: Box<[T]> = (0..LEN).map(|_| make()).collect();
    let Ok(all) = made.try_into() else { unreachable!("that many were made") };
    all
}
