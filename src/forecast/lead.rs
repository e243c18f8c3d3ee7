//! Whether one forecast is better than another by more than chance.

/// How much better the blend has been than the last sizes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lead {
    sum: i64,
    squares: i64,
}

impl Lead {
    /// Takes note of whether the blend hit, and whether the last sizes did. Old differences fade.
    pub(super) fn judge(&mut self, blend: bool, recent: bool) {
        self.sum += i64::from(blend) - i64::from(recent);
        self.squares += i64::from(blend != recent);
        if self.squares > MEMORY {
            self.sum /= 2;
            self.squares /= 2;
        }
    }

    /// Whether it is more than chance gives: four standard deviations.
    pub(super) fn is_real(self) -> bool {
        self.sum > 0 && self.sum * self.sum > 16 * self.squares
    }
}

/// When old differences fade.
const MEMORY: i64 = 1 << 12;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn chance_is_not_a_lead() {
        let mut lead = Lead::default();
        for index in 0..100_000 {
            lead.judge(index % 2 == 0, index % 2 == 1);
            assert!(!lead.is_real());
        }
        (0..17).for_each(|_| lead.judge(true, true));
        assert!(!lead.is_real());
    }

    #[test]
    fn a_lead_is_won_and_lost() {
        let mut lead = Lead::default();
        (0..17).for_each(|_| lead.judge(true, false));
        assert!(lead.is_real());
        (0..17).for_each(|_| lead.judge(false, true));
        assert!(!lead.is_real());
    }
}
