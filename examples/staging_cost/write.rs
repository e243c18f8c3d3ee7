#![expect(unsafe_code, reason = "stores past the caches")]
//! Bandwidth of `Step::write_from`, beside what the machine does with memcpy and with non-temporal
//! stores, on memory of the same kind and size, in the same run.

use std::time::Instant;

use softcuda::{Config, Simulator};
use wharf::Context;
use wharf::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::staging::{InputBuffers, Len};

use crate::driver;

/// Slots that the writes go round, as a ring's do.
const DEPTH: usize = 3;
const ROUNDS: usize = 15;

pub(crate) fn run() {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let context = Context::retain(&driver().device(0).unwrap()).unwrap();
    println!("bytes, write_from, memcpy, non-temporal (GB/s), share of the better");
    for size in [4 << 10, 64 << 10, 1 << 20] {
        let from: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
        let set =
            InputBuffers::builder(&context).slot::<u8>("field", Len::Fixed(size)).buckets([1]);
        let inputs = set.ring_depth(DEPTH).build().unwrap();
        let field = inputs.slot_id::<u8>("field").unwrap();
        let pinned =
            PinnedMemoryResource::new(&context, DEPTH * size, PinnedOptions::default()).unwrap();
        let whole = pinned.size();
        // SAFETY: the first commit, of the whole span.
        unsafe { pinned.commit(0, whole) }.unwrap();
        let base: *mut u8 =
            std::ptr::with_exposed_provenance_mut(usize::try_from(pinned.base()).unwrap());
        let times = (256 << 20) / size / 4;
        let mut best = [0.0_f64; 3];
        for _ in 0..ROUNDS {
            let mut steps: Vec<_> = (0..DEPTH).map(|_| inputs.begin(1, 1).unwrap()).collect();
            let rate = |write: &mut dyn FnMut(usize)| {
                // What ran before has left the caches in its own state.
                (0..DEPTH).for_each(&mut *write);
                let start = Instant::now();
                (0..times).for_each(|time| write(time % DEPTH));
                (times * size) as f64 / start.elapsed().as_secs_f64() / 1e9
            };
            let ours = rate(&mut |slot| steps[slot].write_from(field, &from).unwrap());
            let ordinary = rate(&mut |slot| {
                // SAFETY: committed memory, apart from the source.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        from.as_ptr(),
                        base.wrapping_add(slot * size),
                        size,
                    );
                };
                std::hint::black_box(base);
            });
            let streamed = rate(&mut |slot| stream(base.wrapping_add(slot * size), &from));
            for (best, rate) in best.iter_mut().zip([ours, ordinary, streamed]) {
                *best = best.max(rate);
            }
        }
        let [ours, ordinary, streamed] = best;
        let share = ours / ordinary.max(streamed);
        println!("{size}, {ours:.1}, {ordinary:.1}, {streamed:.1}, {share:.2}");
    }
}

#[cfg(target_arch = "x86_64")]
fn stream(to: *mut u8, from: &[u8]) {
    use core::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    for at in (0..from.len()).step_by(16) {
        // SAFETY: within the source, whose length is a multiple of 16.
        let value = unsafe { _mm_loadu_si128(from.as_ptr().wrapping_add(at).cast()) };
        // SAFETY: committed memory of as many bytes, from a multiple of 16 on.
        unsafe { _mm_stream_si128(to.wrapping_add(at).cast(), value) };
    }
    // SAFETY: every x86-64 has it.
    unsafe { _mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
fn stream(to: *mut u8, from: &[u8]) {
    // SAFETY: committed memory of as many bytes.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
}
