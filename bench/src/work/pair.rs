//! W1: one block, allocated and freed.

use std::hint::black_box;
use std::time::Duration;

use super::{free_all, prime};
use crate::machine::thread_time;
use crate::peer::{Local, Peer};

/// Blocks allocated beforehand, half of them freed.
const PRIMED: usize = 64;

const SIZE: usize = 4096;

#[inline(never)]
pub(super) fn run<P: Peer>(peer: &P, count: u64) -> Option<Duration> {
    let mut local = peer.local();
    let live = prime(&mut local, std::iter::repeat_n(SIZE, PRIMED))?;
    let start = thread_time();
    for _ in 0..count {
        let block = local.alloc(black_box(SIZE))?;
        black_box(&block);
        local.free(block);
    }
    let time = thread_time() - start;
    free_all(&mut local, live);
    Some(time)
}
