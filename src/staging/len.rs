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
    /// As many, each `times` as often.
    #[must_use]
    pub const fn times(self, factor: usize) -> Self {
        match self.linear() {
            Some((per_request, times, plus)) => Self::Linear {
                per_request,
                times: times.saturating_mul(factor),
                plus: plus.saturating_mul(factor),
            },
            None => Self::Fixed(self.fixed().saturating_mul(factor)),
        }
    }

    /// As many, and `more`.
    #[must_use]
    pub const fn plus(self, more: usize) -> Self {
        match self.linear() {
            Some((per_request, times, plus)) => {
                Self::Linear { per_request, times, plus: plus.saturating_add(more) }
            }
            None => Self::Fixed(self.fixed().saturating_add(more)),
        }
    }

    /// The number for a step; `None` if it overflows.
    pub fn of(self, counts: Counts) -> Option<usize> {
        self.rule().checked(counts)
    }

    /// The rule that all are cases of.
    pub(super) const fn rule(self) -> Rule {
        match self.linear() {
            Some((per_request, times, plus)) => Rule { per_request, times, plus },
            None => Rule { per_request: false, times: 0, plus: self.fixed() },
        }
    }

    const fn linear(self) -> Option<(bool, usize, usize)> {
        match self {
            Self::Tokens => Some((false, 1, 0)),
            Self::Requests => Some((true, 1, 0)),
            Self::Fixed(_) => None,
            Self::Linear { per_request, times, plus } => Some((per_request, times, plus)),
        }
    }

    const fn fixed(self) -> usize {
        match self {
            Self::Fixed(len) => len,
            _ => 0,
        }
    }
}

/// `times` a token or a request, and `plus` more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    per_request: bool,
    times: usize,
    plus: usize,
}

impl Rule {
    /// The rule in the words of the builder.
    pub(super) const fn named(self) -> Len {
        match self {
            Self { times: 0, plus, .. } => Len::Fixed(plus),
            Self { per_request: false, times: 1, plus: 0 } => Len::Tokens,
            Self { per_request: true, times: 1, plus: 0 } => Len::Requests,
            Self { per_request, times, plus } => Len::Linear { per_request, times, plus },
        }
    }

    /// The number for a step; `None` if it overflows.
    pub(super) fn checked(self, counts: Counts) -> Option<usize> {
        self.count(counts).checked_mul(self.times)?.checked_add(self.plus)
    }

    /// The number for a step of no more than what was [`checked`](Self::checked).
    #[inline]
    pub(super) fn of(self, counts: Counts) -> usize {
        self.count(counts) * self.times + self.plus
    }

    #[inline]
    fn count(self, counts: Counts) -> usize {
        if self.per_request { counts.requests } else { counts.tokens }
    }
}

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
    }
}
