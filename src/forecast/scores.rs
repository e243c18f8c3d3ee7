//! Sizes by how likely they are.

use super::counts;

/// Sizes and how likely they are.
pub(super) struct Scores {
    sizes: [u32; CANDIDATES],
    scores: [f32; CANDIDATES],
    len: usize,
}

impl Default for Scores {
    fn default() -> Self {
        Self { sizes: [0; CANDIDATES], scores: [0.0; CANDIDATES], len: 0 }
    }
}

impl Scores {
    pub(super) fn add(&mut self, size: u32, score: f32) {
        match self.sizes[..self.len].iter().position(|known| *known == size) {
            Some(place) => self.scores[place] += score,
            None => {
                (self.sizes[self.len], self.scores[self.len]) = (size, score);
                self.len += 1;
            }
        }
    }

    /// The three likeliest of those up to `limit`, the first first.
    pub(super) fn best(&self, limit: u32) -> [(u32, f32); RANKS] {
        let [mut first, mut second, mut third] = [(0, 0.0); RANKS];
        for (size, score) in self.sizes[..self.len].iter().zip(&self.scores) {
            let this = (*size, *score);
            if this.1 <= third.1 || this.0 > limit {
                continue;
            }
            if this.1 > first.1 {
                (first, second, third) = (this, first, second);
            } else if this.1 > second.1 {
                (second, third) = (this, second);
            } else {
                third = this;
            }
        }
        [first, second, third]
    }
}

/// How many sizes a context has at most.
pub(super) const ORDERS: usize = 3;
/// How many sizes are ranked.
pub(super) const RANKS: usize = 3;
/// What the contexts and the last sizes can name.
const CANDIDATES: usize = ORDERS * counts::SIZES + RANKS;
