//! Continuous batching: requests in, engine steps out.
//!
//! A step has a budget of [`TOKENS`]. Every running request whose prompt is done contributes one
//! token. The rest goes to prompts, oldest first, in chunks. Then waiting requests are admitted
//! while the step has tokens and places. Time is virtual: a step lasts [`BASE`] plus [`PER_TOKEN`]
//! for each token, in microseconds. So the same requests give the same steps on every machine.

use core::fmt;
use core::iter::Peekable;

use crate::request::Request;

/// The most tokens in a step.
pub const TOKENS: u32 = 2048;
/// The most requests that run at once.
pub const REQUESTS: usize = 256;
/// The tokens of a block of the cache of keys and values.
pub const KV_BLOCK: u32 = 64;
/// The duration of a step without tokens, in microseconds.
pub const BASE: u64 = 15_000;
/// The duration that a token adds to a step, in microseconds.
pub const PER_TOKEN: u64 = 20;

/// One step of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it begins, in microseconds of virtual time.
    pub start: u64,
    /// All its tokens.
    pub tokens: u32,
    /// The requests that run in it.
    pub requests: u32,
    /// Which of its tokens are of prompts.
    pub prefill: u32,
    /// Blocks of the cache of keys and values that its requests hold, of [`KV_BLOCK`] tokens each.
    pub kv_blocks: u32,
}

/// Turns requests, in the order of their arrival, into steps.
///
/// Requests are taken from the source when there is room for them, so what waits is not held.
///
/// # Examples
///
/// ```
/// use wharf_cli::Request;
/// use wharf_cli::schedule::Scheduler;
///
/// let request = Request { arrival: 0, prompt: 5, generated: 2 };
/// let steps = Scheduler::new([Ok::<_, ()>(request)]).collect::<Result<Vec<_>, _>>().unwrap();
/// assert_eq!(steps.iter().map(|step| step.tokens).collect::<Vec<_>>(), [5, 1, 1]);
/// ```
pub struct Scheduler<I: Iterator> {
    requests: Peekable<I>,
    running: Vec<Running>,
    now: u64,
}

/// The remainder of a request.
#[derive(Clone, Copy, Debug)]
struct Running {
    prompt: u32,
    generated: u32,
    /// Tokens whose keys and values are in the cache.
    cached: u32,
}

impl<I: Iterator<Item = Result<Request, E>>, E> Scheduler<I> {
    /// The steps that serve `requests`.
    pub fn new(requests: impl IntoIterator<IntoIter = I>) -> Self {
        Self {
            requests: requests.into_iter().peekable(),
            running: Vec::with_capacity(REQUESTS),
            now: 0,
        }
    }

    /// Takes the next request if it has arrived.
    fn arrived(&mut self) -> Option<Result<Request, E>> {
        self.requests
            .next_if(|request| request.as_ref().map_or(true, |request| request.arrival <= self.now))
    }

    /// Goes to the next arrival when nothing runs; `None` when all is done.
    fn wake(&mut self) -> Option<Result<(), E>> {
        if !self.running.is_empty() {
            return Some(Ok(()));
        }
        match self.requests.peek()? {
            Ok(request) => self.now = self.now.max(request.arrival),
            Err(_) => return Some(self.requests.next()?.map(drop)),
        }
        Some(Ok(()))
    }

    fn step(&mut self) -> Result<Step, E> {
        let mut budget = TOKENS;
        for running in self.running.iter_mut().filter(|running| running.prompt == 0) {
            running.generated -= 1;
            running.cached = running.cached.saturating_add(1);
            budget -= 1;
        }
        // Decoding comes first: a prompt in chunks must not delay running requests.
        let after_decode = budget;
        for running in &mut self.running {
            running.prefill(&mut budget);
        }
        while budget > 0
            && self.running.len() < REQUESTS
            && let Some(request) = self.arrived()
        {
            let Request { prompt, generated, .. } = request?;
            let mut running = Running { prompt, generated, cached: 0 };
            running.prefill(&mut budget);
            self.running.push(running);
        }
        let (tokens, requests) =
            (TOKENS - budget, u32::try_from(self.running.len()).unwrap_or(u32::MAX));
        let prefill = after_decode - budget;
        let blocks = self.running.iter().map(|running| running.cached.div_ceil(KV_BLOCK));
        let kv_blocks = blocks.fold(0, u32::saturating_add);
        let step = Step { start: self.now, tokens, requests, prefill, kv_blocks };
        self.running.retain(|running| running.prompt > 0 || running.generated > 0);
        self.now = self.now.saturating_add(BASE + PER_TOKEN * u64::from(tokens));
        Ok(step)
    }
}

impl<I: Iterator<Item = Result<Request, E>>, E> Iterator for Scheduler<I> {
    type Item = Result<Step, E>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.wake()?.and_then(|()| self.step()))
    }
}

impl<I: Iterator> fmt::Debug for Scheduler<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("running", &self.running)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Spends `budget` on what is left of the prompt.
    fn prefill(&mut self, budget: &mut u32) {
        let tokens = self.prompt.min(*budget);
        self.prompt -= tokens;
        self.cached = self.cached.saturating_add(tokens);
        *budget -= tokens;
    }
}

/// The padded sizes, in tokens, for which an engine keeps a captured graph: 1, 2, 4, then every 8th
/// up to 256 and every 16th up to 512.
pub fn sizes() -> impl Iterator<Item = u32> {
    [1, 2, 4].into_iter().chain((8..=256).step_by(8)).chain((272..=512).step_by(16))
}

/// The size that a step of `tokens` is padded to; `None` for one that is larger than any.
pub fn padded(tokens: u32) -> Option<u32> {
    sizes().find(|size| tokens <= *size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(requests: &[(u64, u32, u32)]) -> Vec<(u32, u32, u32)> {
        let requests = requests.iter().map(|&(arrival, prompt, generated)| {
            Ok::<_, ()>(Request { arrival, prompt, generated })
        });
        let steps = Scheduler::new(requests).map(Result::unwrap);
        steps.map(|step| (step.tokens, step.requests, step.prefill)).collect()
    }

    #[test]
    fn prompts_come_in_chunks_after_decoding() {
        assert_eq!(steps(&[(0, 3000, 1)]), [(2048, 1, 2048), (952, 1, 952), (1, 1, 0)]);
        // The second arrives during the first's step: it decodes beside the second's prompt.
        assert_eq!(steps(&[(0, 10, 2), (1, 5, 1)]), [(10, 1, 10), (6, 2, 5), (2, 2, 0)]);
    }

    #[test]
    fn requests_of_nothing_have_their_step() {
        assert_eq!(steps(&[(0, 0, 0)]), [(0, 1, 0)]);
        assert_eq!(steps(&[(0, 0, 1)]), [(0, 1, 0), (1, 1, 0)]);
    }

    #[test]
    fn no_more_run_at_once_than_there_are_places() {
        let steps = steps(&[(0, 1, 1); 300]);
        assert_eq!(steps, [(256, 256, 256), (256, 256, 0), (44, 44, 44), (44, 44, 0)]);
    }

    #[test]
    fn an_error_comes_in_its_place() {
        let request = Request { arrival: 0, prompt: 1, generated: 1 };
        let mut steps = Scheduler::new([
            Ok(request),
            Ok(Request { arrival: 1 << 40, ..request }),
            Err("broken"),
        ]);
        let (first, second) = (steps.next(), steps.next());
        assert!(first.is_some_and(|step| step.is_ok()) && second.is_some_and(|step| step.is_ok()));
        let third = steps.next();
        assert_eq!(third, Some(Err("broken")));
    }

    #[test]
    fn requests_hold_blocks_until_their_last_step() {
        let request = |prompt, generated| Ok::<_, ()>(Request { arrival: 0, prompt, generated });
        let blocks = |requests: Vec<_>| {
            let steps = Scheduler::new(requests).map(Result::unwrap);
            steps.map(|step| step.kv_blocks).collect::<Vec<_>>()
        };
        assert_eq!(blocks(vec![request(64, 2)]), [1, 2, 2]);
        assert_eq!(blocks(vec![request(130, 0), request(1, 1)]), [3 + 1, 1]);
        assert_eq!(blocks(vec![request(0, 0)]), [0]);
    }

    #[test]
    fn sizes_are_padded_up() {
        assert_eq!(
            [0, 1, 3, 5, 257, 512, 513].map(padded),
            [Some(1), Some(1), Some(4), Some(8), Some(272), Some(512), None]
        );
    }
}
