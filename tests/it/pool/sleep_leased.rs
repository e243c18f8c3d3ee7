#![expect(unsafe_code, reason = "passes commits on")]
//! Memory that sleeps and may not be decommitted yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use wharf::Error;
use wharf::memory::{DeviceMemoryResource, MemoryKind, MemoryResource};
use wharf::pool::{Buffer, Contents};

use super::{SPAN, builder, context, streams};
use crate::backend::{Config, Simulator, on_machine};
use crate::deadline::LONG;

const MIB: usize = 1 << 20;

/// A device's memory, all of which is leased while the switch is on.
#[derive(Debug)]
struct Leased {
    memory: DeviceMemoryResource,
    is_leased: Arc<AtomicBool>,
}

// SAFETY: everything is the other resource's, and what is refused has changed nothing.
unsafe impl MemoryResource for Leased {
    fn base(&self) -> u64 {
        self.memory.base()
    }

    fn size(&self) -> usize {
        self.memory.size()
    }

    fn granularity(&self) -> usize {
        self.memory.granularity()
    }

    fn kind(&self) -> MemoryKind {
        self.memory.kind()
    }

    fn ordinal(&self) -> Option<i32> {
        self.memory.ordinal()
    }

    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise is that of the other resource.
        unsafe { self.memory.commit(offset, len) }
    }

    unsafe fn suspend(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: as above.
        unsafe { self.memory.suspend(offset, len) }
    }

    unsafe fn resume(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: as above.
        unsafe { self.memory.resume(offset, len) }
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        if self.is_leased.load(Relaxed) {
            return Err(Error::Leased);
        }
        // SAFETY: as above.
        unsafe { self.memory.decommit(offset, len) }
    }
}

/// A piece that is free when the pool falls asleep, and leased: it comes back with the others, and
/// is used and given up as before.
#[test]
fn a_leased_piece_that_is_free_in_sleep_is_not_lost() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let is_leased = Arc::new(AtomicBool::new(false));
        let memory = DeviceMemoryResource::new(&context, SPAN).unwrap();
        let resource = Leased { memory, is_leased: Arc::clone(&is_leased) };
        let pool = builder().build(resource).unwrap();
        let held: Buffer<u8> = pool.alloc(2 * MIB, &stream).unwrap();
        drop(pool.alloc::<u8>(32 * MIB, &stream).unwrap());
        stream.synchronize().unwrap();
        let reserved = pool.slab_stats().reserved;
        is_leased.store(true, Relaxed);
        let slept = pool.sleep(Contents::Kept, &stream, LONG).unwrap();
        assert_eq!((slept.released, pool.slab_stats().asleep), (reserved, reserved));
        assert_eq!(pool.wake(&stream).unwrap(), reserved);
        let free: Buffer<u8> = pool.alloc(32 * MIB, &stream).unwrap();
        free.fill(1, &stream).unwrap();
        assert_eq!(pool.slab_stats().reserved, reserved, "what is free is used again");
        drop((free, held));
        stream.synchronize().unwrap();
        is_leased.store(false, Relaxed);
        let trimmed = pool.trim(Duration::ZERO, 0);
        assert_eq!((trimmed.released, pool.slab_stats().reserved), (reserved, 0), "{trimmed:?}");
        pool.close(LONG).unwrap();
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}
