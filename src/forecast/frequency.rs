//! The original's rule: the commonest of the last 100 sizes.

use super::Forecast;

/// Forecasts the commonest of the last 100 sizes; of equally common ones, the one that was used
/// first.
///
/// Kept for comparison: in serving traffic it is far behind the last size itself.
///
/// # Examples
///
/// ```
/// use wharf::forecast::{Forecast, Frequency};
///
/// let mut sizes = Frequency::new(256);
/// assert_eq!(sizes.predict_next_sizes(3), [256]);
/// [8, 16, 8].into_iter().for_each(|size| sizes.record_usage(size));
/// assert_eq!(sizes.predict_next_sizes(3), [8, 16]);
/// ```
#[derive(Clone, Debug)]
pub struct Frequency {
    /// The forecast before any size was used.
    largest: u32,
    sizes: [u32; WINDOW],
    /// Where the next size goes.
    next: usize,
    len: usize,
}

impl Frequency {
    /// A window in which nothing was used yet; until something is, the forecast is `largest`.
    pub fn new(largest: u32) -> Self {
        Self { largest, sizes: [0; WINDOW], next: 0, len: 0 }
    }
}

impl Forecast for Frequency {
    fn record_usage(&mut self, size: u32) {
        self.sizes[self.next] = size;
        self.next = (self.next + 1) % WINDOW;
        self.len = WINDOW.min(self.len + 1);
    }

    fn predict(&self, sizes: &mut [u32]) -> usize {
        if self.len == 0 {
            return super::append(sizes, 0, [self.largest]);
        }
        let (newer, older) = self.sizes[..self.len].split_at(self.next % self.len);
        let mut counted = [(0_u32, 0_u32); WINDOW];
        let mut distinct = 0;
        for size in older.iter().chain(newer) {
            let place = counted[..distinct].iter().position(|(known, _)| known == size);
            let place = place.unwrap_or_else(|| {
                distinct += 1;
                distinct - 1
            });
            counted[place] = (*size, counted[place].1 + 1);
        }
        counted[..distinct].sort_by_key(|(_, count)| core::cmp::Reverse(*count));
        super::append(sizes, 0, counted[..distinct].iter().map(|(size, _)| *size))
    }
}

/// How many sizes count.
const WINDOW: usize = 100;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_window_does_not_count() {
        let mut sizes = Frequency::new(1);
        [8; 100].into_iter().chain([16; 51]).for_each(|size| sizes.record_usage(size));
        assert_eq!(sizes.predict_next_sizes(3), [16, 8]);
        [32; 49].into_iter().for_each(|size| sizes.record_usage(size));
        assert_eq!(sizes.predict_next_sizes(1), [16]);
    }

    #[test]
    fn of_equally_common_sizes_the_older_is_first() {
        let mut sizes = Frequency::new(1);
        [5, 9, 9, 5, 7].into_iter().for_each(|size| sizes.record_usage(size));
        assert_eq!(sizes.predict_next_sizes(3), [5, 9, 7]);
    }
}
