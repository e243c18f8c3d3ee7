//! W4: one thread allocates, another frees.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::window::{STREAM, entry};
use crate::machine::{Start, pin};
use crate::peer::{Local, Peer};

/// Blocks on their way at most.
const RING: usize = 256;

pub(super) fn run<P: Peer>(peer: &P, count: u64, stream: &[u32; STREAM]) -> Option<Duration> {
    let count = usize::try_from(count).ok()?;
    let both = &Start::new(2);
    let (producer, consumer) = RingBuffer::new(RING);
    let (start, end) = thread::scope(|scope| {
        let start = scope.spawn(move || {
            pin(0);
            both.wait();
            let start = Instant::now();
            produce(peer, producer, count, stream)?;
            Some(start)
        });
        let end = scope.spawn(move || {
            pin(1);
            both.wait();
            consume(peer, consumer, count);
            Instant::now()
        });
        (start.join().ok().flatten(), end.join().ok())
    });
    Some(end? - start?)
}

fn produce<P: Peer>(
    peer: &P,
    mut ring: Producer<P::Block>,
    count: usize,
    stream: &[u32; STREAM],
) -> Option<()> {
    let mut local = peer.local();
    for at in 0..count {
        let mut block = local.alloc(hint::black_box(entry(stream, at).0))?;
        while let Err(PushError::Full(back)) = ring.push(block) {
            block = back;
            hint::spin_loop();
        }
    }
    Some(())
}

fn consume<P: Peer>(peer: &P, mut ring: Consumer<P::Block>, count: usize) {
    let mut local = peer.local();
    let mut freed = 0;
    while freed < count {
        match ring.pop() {
            Ok(block) => {
                local.free(block);
                freed += 1;
            }
            // The producer ends early only when its allocator has no room.
            Err(_) if ring.is_abandoned() && ring.is_empty() => return,
            Err(_) => hint::spin_loop(),
        }
    }
}
