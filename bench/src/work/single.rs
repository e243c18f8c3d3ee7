//! W5 by single operations: what the tail is when threads lose their core in the middle.

use std::hint::black_box;
use std::mem;

use super::window::{self, STREAM, Window, entry};
use crate::machine::ticks;
use crate::peer::{Local, Peer};

/// One of so many replacements is timed: its allocation and its free in turn.
const EVERY: usize = 8;

/// The ticks that each timed operation took, of all threads.
pub(super) fn run<P: Peer>(peer: &P, count: u64, threads: usize) -> Option<Vec<u32>> {
    let count = usize::try_from(count).ok()?;
    let times = window::on_threads(peer, threads, |local, window, stream| {
        let mut times = vec![0; count / EVERY + 1];
        let used = replace(local, window, stream, count, &mut times)?;
        times.truncate(used);
        Some(times)
    })?;
    Some(times.concat())
}

/// How many operations were timed.
fn replace<L: Local>(
    local: &mut L,
    window: &mut Window<L>,
    stream: &[u32; STREAM],
    count: usize,
    times: &mut [u32],
) -> Option<usize> {
    let mut timed = 0;
    for at in 0..count {
        let (size, slot) = entry(stream, at);
        let slot = &mut window.0[slot];
        if at % EVERY != 0 {
            let block = local.alloc(size)?;
            local.free(mem::replace(slot, block));
            continue;
        }
        let start;
        let end;
        if at % (2 * EVERY) == 0 {
            start = ticks();
            let block = black_box(local.alloc(size)?);
            end = ticks();
            local.free(mem::replace(slot, block));
        } else {
            let block = local.alloc(size)?;
            let old = mem::replace(slot, block);
            start = ticks();
            local.free(black_box(old));
            end = ticks();
        }
        times[timed] = u32::try_from(end - start).unwrap_or(u32::MAX);
        timed += 1;
    }
    Some(timed)
}
