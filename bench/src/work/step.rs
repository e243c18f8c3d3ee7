//! W6 and W6b: the inputs of steps of inference.

use std::hint::black_box;
use std::time::Duration;

use super::{free_all, prime};
use crate::machine::thread_time;
use crate::peer::{Local, Peer, STEP_INPUTS};

/// Steps until the sizes repeat.
const STEPS: usize = 64;

/// Steps allocated beforehand; every other input of them stays live.
const PRIMED: usize = 4;

/// The sizes of a step's inputs, in bytes.
type Inputs = [u32; STEP_INPUTS];

/// Steps of 1 to 512 sequences; one in four also has the prompt of a new one.
fn steps() -> [Inputs; STEPS] {
    let mut random = fastrand::Rng::with_seed(5);
    std::array::from_fn(|_| {
        let batch = random.u32(1..=512);
        let prompt = if random.u8(..4) == 0 { random.u32(512..8192) } else { 0 };
        inputs(batch, batch + prompt)
    })
}

/// The inputs for `batch` sequences and `tokens` tokens.
fn inputs(batch: u32, tokens: u32) -> Inputs {
    [
        4 * tokens,      // token ids
        8 * tokens,      // positions
        8 * tokens,      // slots of the cache to write to
        4 * batch * 512, // block tables: 8192 tokens, 16 a block
        4 * batch,       // sequence lengths
        4 * (batch + 1), // where each sequence's queries start
        4 * (batch + 1), // where its keys start
        4 * batch,       // temperatures
        4 * batch,       // top p
        4 * batch,       // top k
        4 * batch,       // which logits
        8 * batch,       // sampled ids
    ]
}

#[inline(never)]
pub(super) fn run<P: Peer>(peer: &P, count: u64) -> Option<Duration> {
    let mut local = peer.local();
    let steps = steps();
    let primed = steps.iter().rev().take(PRIMED).flatten().map(|size| *size as usize);
    let live = prime(&mut local, primed)?;
    let start = thread_time();
    for at in 0..count {
        let inputs = steps[(at % STEPS as u64) as usize];
        #[expect(clippy::expect_used, reason = "an array cannot be made with `?`")]
        let blocks = inputs.map(|size| local.alloc(size as usize).expect("room for 1 MiB blocks"));
        black_box(&blocks);
        free_all(&mut local, blocks);
    }
    let time = thread_time() - start;
    free_all(&mut local, live);
    Some(time)
}

#[inline(never)]
pub(super) fn run_bundled<P: Peer>(peer: &P, count: u64) -> Option<Duration> {
    let mut local = peer.local();
    let steps = steps();
    let whole =
        |inputs: &Inputs| inputs.iter().map(|size| (*size as usize).next_multiple_of(256)).sum();
    let live = prime(&mut local, steps.iter().rev().take(PRIMED * STEP_INPUTS).map(whole))?;
    let start = thread_time();
    for at in 0..count {
        local.bundle(&steps[(at % STEPS as u64) as usize])?;
    }
    let time = thread_time() - start;
    free_all(&mut local, live);
    Some(time)
}
