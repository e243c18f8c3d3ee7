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

    /// The entry with a number below `LEN * CHUNKS`. Its chunk is made if this is the first of it.
    #[inline]
    pub(super) fn get(&self, number: usize, make: fn() -> T) -> &T {
        // The remainder is the quotient, and spares the check of it.
        let chunk = &self.chunks[number / LEN % CHUNKS];
        let entries = match chunk.get() {
            Some(entries) => entries,
            None => Self::make(chunk, make),
        };
        &entries[number % LEN]
    }

    #[cold]
    fn make(chunk: &OnceLock<Box<[T; LEN]>>, make: fn() -> T) -> &[T; LEN] {
        chunk.get_or_init(|| boxed(make))
    }
}

/// An array that is made where it stays: some are too large for a stack.
fn boxed<T, const LEN: usize>(make: impl Fn() -> T) -> Box<[T; LEN]> {
    let made: Box<[T]> = (0..LEN).map(|_| make()).collect();
    let Ok(all) = made.try_into() else { unreachable!("that many were made") };
    all
}
