//! Distinct sizes, the last one first: the forecast that any other must beat.

/// The sizes used last.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    sizes: [u32; PLACES],
    len: usize,
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self { sizes: [0; PLACES], len: 0 }
    }

    /// Moves `size` to the front; the one that is behind all others falls out.
    pub(super) fn record(&mut self, size: u32) {
        let place = self.sizes().iter().position(|known| *known == size);
        let place = place.unwrap_or_else(|| {
            self.len = PLACES.min(self.len + 1);
            self.len - 1
        });
        self.sizes[..=place].rotate_right(1);
        self.sizes[0] = size;
    }

    pub(super) fn sizes(&self) -> &[u32] {
        &self.sizes[..self.len]
    }
}

const PLACES: usize = 16;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_is_first() {
        let mut recent = Recent::new();
        for size in [1, 2, 3, 1] {
            recent.record(size);
        }
        assert_eq!(recent.sizes(), [1, 3, 2]);
        for size in 10..30 {
            recent.record(size);
        }
        assert_eq!(recent.sizes().len(), PLACES);
        assert_eq!(recent.sizes()[0], 29);
    }
}
