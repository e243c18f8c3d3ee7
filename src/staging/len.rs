//! How many elements a slot has in a step.

/// How many elements a slot has, as a rule from the step's counts.
///
/// # Examples
///
/// ```
/// use wharf::staging::{Counts, Len};
///
/// let counts = Counts { tokens: 7, requests: 3 };
/// assert_eq!(Len::Tokens.of(counts), Some(7));
/// assert_eq!(Len::Requests.times(100).of(counts), Some(300));
/// assert_eq!(Len::Requests.plus(1).of(counts), Some(4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Len {
    /// One a token.
    Tokens,
    /// One a request.
    Requests,
    /// Always as many.
    Fixed(usize),
    /// `times` a token or a request, and `plus` more.
    Linear {
        /// Whether requests count, rather than tokens.
        per_request: bool,
        /// How many for each.
        times: usize,
        /// How many besides.
        plus: usize,
    },
    /// `times` for each of a count that the set [has by name](super::InputBuffersBuilder::count),
    /// and `plus` more.
    Count {
        /// The count.
        name: &'static str,
        /// How many for each.
        times: usize,
        /// How many besides.
        plus: usize,
    },
}

/// The size of a step: its tokens and requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// The tokens that it computes.
    pub tokens: usize,
    /// The requests that they belong to.
    pub requests: usize,
}

impl Counts {
    /// Whether these are no more than `max`.
    #[inline]
    pub(super) fn is_within(self, max: Self) -> bool {
        self.tokens <= max.tokens && self.requests <= max.requests
    }
}

/// So many tokens, of any number of requests: it stands for the smallest bucket that holds them.
impl From<usize> for Counts {
    fn from(tokens: usize) -> Self {
        Self { tokens, requests: 0 }
    }
}

impl Len {
    /// One for each of a count that the set [has by name](super::InputBuffersBuilder::count).
    #[must_use]
    pub const fn count(name: &'static str) -> Self {
        Self::Count { name, times: 1, plus: 0 }
    }

    /// As many, each `times` as often.
    #[must_use]
    pub const fn times(self, factor: usize) -> Self {
        self.map(factor, 0)
    }

    /// As many, and `more`.
    #[must_use]
    pub const fn plus(self, more: usize) -> Self {
        self.map(1, more)
    }

    /// The number for a step; `None` if it overflows, and for a count by name.
    pub fn of(self, counts: Counts) -> Option<usize> {
        self.rule()?.checked(counts)
    }

    /// The rule that all are cases of, except for counts by name.
    pub(super) const fn rule(self) -> Option<Rule> {
        let (which, times, plus) = match self {
            Self::Tokens => (TOKENS, 1, 0),
            Self::Requests => (REQUESTS, 1, 0),
            Self::Fixed(len) => (TOKENS, 0, len),
            Self::Linear { per_request: false, times, plus } => (TOKENS, times, plus),
            Self::Linear { per_request: true, times, plus } => (REQUESTS, times, plus),
            Self::Count { .. } => return None,
        };
        Some(Rule { which, times, plus })
    }

    /// `factor` times as many, and `more`.
    const fn map(self, factor: usize, more: usize) -> Self {
        let (times, plus) = match self {
            Self::Fixed(len) => return Self::Fixed(sum(len, factor, more)),
            Self::Tokens | Self::Requests => (factor, more),
            Self::Linear { times, plus, .. } | Self::Count { times, plus, .. } => {
                (times.saturating_mul(factor), sum(plus, factor, more))
            }
        };
        match self {
            Self::Count { name, .. } => Self::Count { name, times, plus },
            Self::Requests | Self::Linear { per_request: true, .. } => {
                Self::Linear { per_request: true, times, plus }
            }
            _ => Self::Linear { per_request: false, times, plus },
        }
    }
}

const fn sum(len: usize, factor: usize, more: usize) -> usize {
    len.saturating_mul(factor).saturating_add(more)
}

/// `times` for each of a count, and `plus` more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rule {
    /// Which count, by its place in [`AllCounts`].
    which: u8,
    times: usize,
    plus: usize,
}

/// All counts of a step: tokens, requests, and those by name. The length is that of a mask.
pub(super) type AllCounts = [usize; 16];
/// Where counts by name begin.
pub(super) const BY_NAME: usize = 2;
/// How many counts by name a set may have.
pub(super) const MAX_COUNTS: usize = 8;

impl Rule {
    /// The rule for `times` of each of these, and `plus` more.
    pub(super) const fn each(self, times: usize, plus: usize) -> Self {
        let Self { which, times: own, plus: besides } = self;
        Self { which, times: own.saturating_mul(times), plus: sum(besides, times, plus) }
    }

    /// The length that has this rule, which is by tokens or requests.
    pub(super) fn length(self) -> Len {
        let Self { which, times, plus } = self;
        Len::Linear { per_request: which == REQUESTS, times, plus }
    }

    /// The rule for a count by name.
    pub(super) fn named(count: usize, times: usize, plus: usize) -> Self {
        // There are 8 at most.
        Self { which: u8::try_from(BY_NAME + count).unwrap_or(0), times, plus }
    }

    /// Which count by name it is of, if it is of one.
    pub(super) fn name(self) -> Option<usize> {
        usize::from(self.which).checked_sub(BY_NAME)
    }

    /// The number for a step of tokens and requests; `None` if it overflows. Not for counts by
    /// name.
    pub(super) fn checked(self, counts: Counts) -> Option<usize> {
        let Counts { tokens, requests } = counts;
        let count = if self.which == REQUESTS { requests } else { tokens };
        count.checked_mul(self.times)?.checked_add(self.plus)
    }

    /// The same for no more than what was checked.
    #[inline]
    pub(super) fn of_counts(self, counts: Counts) -> usize {
        let Counts { tokens, requests } = counts;
        (if self.which == REQUESTS { requests } else { tokens }) * self.times + self.plus
    }

    /// The number for all counts of a step of no more than what was checked.
    #[inline]
    pub(super) fn of(self, counts: &AllCounts) -> usize {
        counts[usize::from(self.which) % counts.len()] * self.times + self.plus
    }
}

const TOKENS: u8 = 0;
const REQUESTS: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_their_rules() {
        let counts = Counts { tokens: 10, requests: 4 };
        assert_eq!(Len::Tokens.times(3).plus(1).of(counts), Some(31));
        assert_eq!(Len::Requests.plus(1).times(2).of(counts), Some(10));
        assert_eq!(Len::Fixed(3).times(4).plus(1).of(counts), Some(13));
        assert_eq!(Len::Tokens.times(usize::MAX).of(counts), None);
        assert_eq!(Len::Requests.plus(2).of(counts), Some(6));
        let logits = Len::count("logits").times(2).plus(1).times(3);
        assert_eq!(logits, Len::Count { name: "logits", times: 6, plus: 3 });
        assert_eq!(logits.of(counts), None);
        let most = Len::Requests.plus(1).rule().map(|most| most.each(2, 3));
        assert_eq!(most.and_then(|rule| rule.checked(counts)), Some(13));
    }
}
