//! Whether one forecast is better than another by more than chance.

/// How much better the blend has been than the last sizes, and what it has brought while it
/// counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lead {
    sum: i64,
    squares: i64,
    /// Hits that the blend has brought while it counted, less those that it has cost.
    gain: i64,
    /// The square of how many standard deviations are more than chance.
    bar: i64,
}

impl Default for Lead {
    fn default() -> Self {
        Self { sum: 0, squares: 0, gain: 0, bar: BAR }
    }
}

impl Lead {
    /// Takes note of whether the blend hit, and whether the last sizes did; `counts` says whether
    /// it was the blend that was forecast. Old differences fade. Where it has cost more than it
    /// brought, it begins anew, and has to show more.
    #[inline]
    pub(super) fn judge(&mut self, blend: bool, recent: bool, counts: bool) {
        let difference = i64::from(blend) - i64::from(recent);
        self.sum += difference;
        self.squares += difference.abs();
        self.gain += if counts { difference } else { 0 };
        if self.gain < -PATIENCE {
            *self = Self { bar: (2 * self.bar).min(MEMORY), ..Self::default() };
        }
        if self.squares > MEMORY {
            self.sum /= 2;
            self.squares /= 2;
        }
    }

    /// Whether it is more than chance gives.
    #[inline]
    pub(super) fn is_real(self) -> bool {
        self.sum > 0 && self.sum * self.sum > self.bar * self.squares
    }
}

/// When old differences fade.
const MEMORY: i64 = 1 << 12;
/// The square of how many standard deviations are more than chance: it is asked tens of thousands
/// of times.
const BAR: i64 = 25;
/// How many hits it may cost before it begins anew: what is good in the long run may begin badly.
const PATIENCE: i64 = 8;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn chance_is_not_a_lead() {
        let mut lead = Lead::default();
        for index in 0..100_000 {
            lead.judge(index % 2 == 0, index % 2 == 1, false);
            assert!(!lead.is_real());
        }
        (0..26).for_each(|_| lead.judge(true, true, false));
        assert!(!lead.is_real());
    }

    #[test]
    fn a_lead_is_won_and_lost() {
        let mut lead = Lead::default();
        (0..26).for_each(|_| lead.judge(true, false, false));
        assert!(lead.is_real());
        (0..26).for_each(|_| lead.judge(false, true, false));
        assert!(!lead.is_real());
    }

    #[test]
    fn one_that_is_right_only_while_it_does_not_count_costs_little() {
        let mut lead = Lead::default();
        let mut lost = 0;
        for _ in 0..100_000 {
            let counts = lead.is_real();
            lost += i64::from(counts);
            lead.judge(!counts, counts, counts);
        }
        assert!(lost <= 9 * (PATIENCE + 1), "{lost}");
    }
}
