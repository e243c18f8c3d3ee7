//! W2, W3 and W5: blocks of many sizes in a window, replaced in random order.

use std::mem;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use super::free_all;
use crate::machine::{Start, pin, thread_time};
use crate::peer::{Local, Peer};

/// Blocks that a thread has live.
const WINDOW: usize = 256;

/// Replacements until the stream repeats.
pub(super) const STREAM: usize = 1 << 14;

/// A stream's entry is a size above a slot.
pub(super) const SLOT_BITS: u32 = WINDOW.ilog2();

/// Replacements before the clock starts.
const WARM_UP: usize = 4000;

/// Sizes of 256 B to 1 MiB, and the slots they go to.
pub(super) fn stream(seed: u64) -> [u32; STREAM] {
    let mut random = fastrand::Rng::with_seed(seed);
    std::array::from_fn(|_| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 2^20")]
        let size = (256.0 * 4096_f64.powf(random.f64())) as u32;
        size << SLOT_BITS | random.u32(..1 << SLOT_BITS)
    })
}

/// The size and the slot of a replacement.
#[inline]
pub(super) fn entry(stream: &[u32; STREAM], index: usize) -> (usize, usize) {
    let entry = stream[index % STREAM];
    ((entry >> SLOT_BITS) as usize, entry as usize % WINDOW)
}

/// A thread's live blocks.
pub(super) struct Window<L: Local>(pub(super) Box<[L::Block; WINDOW]>);

impl<L: Local> Window<L> {
    /// A full window, warmed up.
    pub(super) fn new(local: &mut L, stream: &[u32; STREAM]) -> Option<Self> {
        let blocks: Option<Box<[_]>> =
            (0..WINDOW).map(|at| local.alloc(entry(stream, at).0)).collect();
        let mut window = Self(blocks?.try_into().ok()?);
        window.replace(local, stream, 0..WARM_UP)?;
        Some(window)
    }

    /// Replaces the blocks that a part of the stream names.
    #[inline]
    fn replace(&mut self, local: &mut L, stream: &[u32; STREAM], part: Range<usize>) -> Option<()> {
        for at in part {
            let (size, slot) = entry(stream, at);
            let block = local.alloc(size)?;
            local.free(mem::replace(&mut self.0[slot], block));
        }
        Some(())
    }

    pub(super) fn free(self, local: &mut L) {
        let blocks: Box<[L::Block]> = self.0;
        free_all(local, blocks);
    }
}

#[inline(never)]
pub(super) fn run<P: Peer>(peer: &P, count: u64) -> Option<Duration> {
    let mut local = peer.local();
    let stream = stream(1);
    let mut window = Window::new(&mut local, &stream)?;
    let part = WARM_UP..WARM_UP + usize::try_from(count).ok()?;
    let start = thread_time();
    window.replace(&mut local, &stream, part)?;
    let time = thread_time() - start;
    window.free(&mut local);
    Some(time)
}

/// From the first thread's start to the last one's end.
pub(super) fn run_threads<P: Peer>(peer: &P, count: u64, threads: usize) -> Option<Duration> {
    let part = WARM_UP..WARM_UP + usize::try_from(count).ok()?;
    let spans = on_threads(peer, threads, |local, window, stream| {
        let start = Instant::now();
        window.replace(local, stream, part.clone())?;
        Some((start, Instant::now()))
    })?;
    let start = spans.iter().map(|span| span.0).min()?;
    let end = spans.iter().map(|span| span.1).max()?;
    Some(end - start)
}

/// Runs `work` at the same time on threads that have a window each.
pub(super) fn on_threads<P: Peer, T: Send>(
    peer: &P,
    threads: usize,
    work: impl for<'a> Fn(&mut P::Local<'a>, &mut Window<P::Local<'a>>, &[u32; STREAM]) -> Option<T>
    + Sync,
) -> Option<Vec<T>> {
    let start = Start::new(threads);
    let run = |number: usize| {
        pin(number);
        let mut local = peer.local();
        let stream = stream(number as u64 + 1);
        let window = Window::new(&mut local, &stream);
        start.wait();
        let mut window = window?;
        let result = work(&mut local, &mut window, &stream);
        window.free(&mut local);
        result
    };
    thread::scope(|scope| {
        let run = &run;
        let spawned: Vec<_> = (0..threads).map(|number| scope.spawn(move || run(number))).collect();
        spawned.into_iter().map(|handle| handle.join().ok().flatten()).collect()
    })
}
