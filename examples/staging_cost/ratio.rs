#![expect(unsafe_code, reason = "copies by raw address; reads the thread's clock")]
//! The calling thread's CPU time for a step, beside that of a copy a slot and an event.

use std::time::Duration;

use softcuda::{Config, Simulator};
use wharf::driver::EventKind;
use wharf::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::staging::Layout;
use wharf::{Context, Event, Stream};

use crate::{driver, twelve};

/// Steps between two waits, which do not count.
const BATCH: usize = 32;
const BATCHES: usize = 300;
const BYTES: usize = 256;

pub(crate) fn run() {
    for layout in [Layout::PerSlot, Layout::Packed] {
        let machine = Simulator::new(Config::default());
        let _bound = machine.bind();
        let context = Context::retain(&driver().device(0).unwrap()).unwrap();
        let _current = context.enter().unwrap();
        let stream = Stream::new(&context).unwrap();
        let (inputs, ids) = twelve(&context, BATCH, layout);
        let pinned =
            PinnedMemoryResource::new(&context, 1 << 20, PinnedOptions::default()).unwrap();
        // SAFETY: the first commit.
        unsafe { pinned.commit(0, pinned.granularity()) }.unwrap();
        let source: *const u8 =
            std::ptr::with_exposed_provenance(usize::try_from(pinned.base()).unwrap());
        let target = inputs.static_buffers().device_ptr(ids[0], 64).unwrap();
        let event = Event::new(&context, EventKind::Ordering).unwrap();
        let (mut ours, mut loops) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..BATCHES {
            let start = thread_time();
            for _ in 0..BATCH {
                let mut step = inputs.begin(64, 64).unwrap();
                for id in &ids {
                    std::hint::black_box(step.write(*id).as_mut_ptr());
                }
                step.submit(&stream).unwrap();
            }
            ours += thread_time() - start;
            stream.synchronize().unwrap();
            let start = thread_time();
            for _ in 0..BATCH {
                for slot in 0..ids.len() {
                    // SAFETY: pinned and device memory that outlive the copies.
                    unsafe {
                        stream.copy_htod(target, source.wrapping_add(slot * BYTES).cast(), BYTES)
                    }
                    .unwrap();
                }
                stream.record(&event).unwrap();
            }
            loops += thread_time() - start;
            stream.synchronize().unwrap();
        }
        let each = |time: Duration| time.as_nanos() / (BATCH * BATCHES) as u128;
        let ratio = ours.as_secs_f64() / loops.as_secs_f64();
        println!("{layout:?}: {} ns a step, the loop {} ns: {ratio:.2}", each(ours), each(loops));
        inputs.wait().unwrap();
    }
}

/// CPU time of the calling thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours that outlives the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}
