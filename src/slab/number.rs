//! Positions and lengths in a span, as types of their own: a slice's number is no length.

use std::ops::Add;

/// A slice, by its position in the span. A run is named by its first slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SliceId(u32);

/// A length in slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SliceCount(u32);

impl SliceId {
    /// The slice at an index of the span's slices.
    #[inline]
    pub(crate) const fn new(index: usize) -> Self {
        Self(narrow(index))
    }

    /// The slice in a word of [`NO_SLICE`] or [`word`](Self::word).
    #[inline]
    pub(super) fn from_word(word: u32) -> Option<Self> {
        (word != NO_SLICE).then_some(Self(word))
    }

    #[inline]
    pub(crate) const fn word(self) -> u32 {
        self.0
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Add<SliceCount> for SliceId {
    type Output = Self;

    /// The slice behind `len` slices from this one on.
    fn add(self, len: SliceCount) -> Self {
        Self(self.0 + len.0)
    }
}

impl SliceCount {
    pub(crate) const fn new(slices: usize) -> Self {
        Self(narrow(slices))
    }

    pub(super) const fn from_word(word: u32) -> Self {
        Self(word)
    }

    pub(super) const fn word(self) -> u32 {
        self.0
    }

    #[inline]
    pub(crate) const fn get(self) -> usize {
        self.0 as usize
    }
}

/// The word of no slice.
pub(super) const NO_SLICE: u32 = u32::MAX;

/// Spans of more slices than that are refused when a pool is made.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a span has fewer slices than u32::MAX")]
const fn narrow(number: usize) -> u32 {
    debug_assert!(number < NO_SLICE as usize, "more slices than a span may have");
    number as u32
}
