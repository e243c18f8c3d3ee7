//! Made-up requests: arrivals of a Poisson process, log-normal lengths.
//!
//! The parameters resemble the Azure trace of code completion: long prompts, short answers. The
//! same seed gives the same requests.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Exp, LogNormal};

use crate::request::Request;
use crate::trace::TOKEN_LIMIT;

/// Requests without end.
///
/// # Examples
///
/// ```
/// use wharf_cli::generate::Generator;
///
/// let requests: Vec<_> = Generator::new(7).take(100).collect();
/// assert_eq!(requests[0].arrival, 0);
/// assert!(requests.is_sorted_by_key(|request| request.arrival));
/// ```
#[derive(Clone, Debug)]
pub struct Generator {
    random: ChaCha8Rng,
    gap: Exp<f64>,
    prompt: LogNormal<f64>,
    generated: LogNormal<f64>,
    now: f64,
}

impl Generator {
    /// The requests that `seed` stands for.
    #[expect(clippy::expect_used, reason = "constants that the distributions accept")]
    #[expect(clippy::missing_panics_doc, reason = "constants that the distributions accept")]
    pub fn new(seed: u64) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            gap: Exp::new(RATE / 1e6).expect("a positive rate"),
            prompt: LogNormal::new(PROMPT.0.ln(), PROMPT.1).expect("a finite deviation"),
            generated: LogNormal::new(GENERATED.0.ln(), GENERATED.1).expect("a finite deviation"),
            now: 0.0,
        }
    }

    fn length(&mut self, lengths: LogNormal<f64>) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped, positive"
        )]
        let length = lengths.sample(&mut self.random).clamp(1.0, LONGEST.into()) as u32;
        length
    }
}

impl Iterator for Generator {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; saturates"
        )]
        let arrival = self.now as u64;
        let (prompt, generated) = (self.length(self.prompt), self.length(self.generated));
        self.now += self.gap.sample(&mut self.random);
        Some(Request { arrival, prompt, generated })
    }
}

/// Requests a second.
const RATE: f64 = 5.0;
/// Median and spread of the tokens of prompts.
const PROMPT: (f64, f64) = (1500.0, 0.9);
/// Median and spread of the tokens generated.
const GENERATED: (f64, f64) = (24.0, 0.9);
/// The longest prompt or answer.
const LONGEST: u32 = 32_768;
const _: () = assert!(LONGEST <= TOKEN_LIMIT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        let requests = |seed| Generator::new(seed).take(1000).collect::<Vec<_>>();
        assert_eq!(requests(1), requests(1));
        assert_ne!(requests(1), requests(2));
    }

    /// 10,000 requests are enough for means within 5 %.
    #[test]
    fn arrivals_and_lengths_have_their_distributions() {
        let requests: Vec<_> = Generator::new(3).take(10_001).collect();
        let seconds = requests[10_000].arrival as f64 / 1e6;
        assert!((10_000.0 / seconds - RATE).abs() < RATE / 20.0, "{seconds}");
        let mut prompts: Vec<_> = requests.iter().map(|request| request.prompt).collect();
        prompts.sort_unstable();
        assert!((f64::from(prompts[5000]) - PROMPT.0).abs() < PROMPT.0 / 20.0, "{}", prompts[5000]);
    }
}
