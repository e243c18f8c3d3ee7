//! Requests, and what one after the other would give.

#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]

use crate::model::{self, CHUNK};

/// A request: its prompt, its tokens so far, and how many there are to be.
pub(crate) struct Request {
    pub(crate) prompt: Vec<i32>,
    pub(crate) tokens: Vec<i32>,
    len: usize,
    /// Tokens of the prompt that were submitted.
    pub(crate) prefilled: usize,
}

/// What a request has in a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many tokens of the prompt.
    Prefill(usize),
    /// The last token, which the device knows, and speculative ones.
    Decode,
}

impl Request {
    /// Some for a rank: the ranks run out of them at different times.
    pub(crate) fn some(rank: usize) -> Vec<Self> {
        let request = |id: usize| Self {
            prompt: (0..3 + 4 * id).map(|at| ((at * 31 + id * 7 + rank) % 997) as i32).collect(),
            tokens: Vec::new(),
            len: 12 + 5 * id + 9 * rank,
            prefilled: 0,
        };
        (0..6).map(request).collect()
    }

    /// What it has in the next step. A request in decoding has one until the host knows that it is
    /// done: the step ahead of that is in vain.
    pub(crate) fn work(&self) -> Option<Work> {
        let left = self.prompt.len() - self.prefilled;
        match left {
            0 if self.is_done() => None,
            0 => Some(Work::Decode),
            _ => Some(Work::Prefill(left.min(CHUNK))),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.tokens.len() == self.len
    }

    /// Takes tokens that the device has computed.
    pub(crate) fn accept(&mut self, tokens: &[i32]) {
        let left = self.len - self.tokens.len();
        self.tokens.extend(tokens.iter().take(left));
    }

    /// The tokens of this request alone, one after the other.
    pub(crate) fn expected(&self) -> Vec<i32> {
        let (mut state, mut tokens) = (0, Vec::new());
        let mut next = 0;
        for (position, id) in self.prompt.iter().enumerate() {
            (state, next) = model::advance(state, *id, position);
        }
        while tokens.len() < self.len {
            tokens.push(next);
            let position = self.prompt.len() + tokens.len() - 1;
            (state, next) = model::advance(state, next, position);
        }
        tokens
    }
}

impl Work {
    /// How many tokens it is.
    pub(crate) fn tokens(self) -> usize {
        match self {
            Self::Prefill(tokens) => tokens,
            Self::Decode => model::QUERY,
        }
    }
}
