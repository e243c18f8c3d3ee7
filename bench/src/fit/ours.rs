//! wharf's pool on softcuda, with the device some allocations behind the host.
//!
//! Before each free the block's stream gets a callback that returns when the device may have
//! come so far. The pool learns of the end as in an engine: by its markers behind that work.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use softcuda::{Config, Simulator};
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{AllocError, Buffer, Pool};
use wharf::slab::PoolOptions;
use wharf::{Context, Driver, Stream};

use super::Allocator;
use crate::stream_order::Failure;

/// A pool, its streams and its machine.
pub(super) struct Ours {
    clock: Arc<Clock>,
    behind: usize,
    live: Vec<Option<(Buffer<u8>, usize)>>,
    pool: Pool,
    streams: Vec<Stream>,
    // Last: the others are of it.
    machine: Simulator,
}

impl Ours {
    pub(super) fn new(streams: usize, limit: usize, behind: usize) -> Result<Self, Failure> {
        let config = Config { device_memory: DEVICE, ..Config::default() };
        let machine = Simulator::new(config);
        let _bound = machine.bind();
        let driver = Driver::from_api(machine.api()?)?;
        let context = Context::retain(&driver.device(0)?)?;
        // What a thread keeps is the slow path's business, and this is about the pool.
        let slabs = PoolOptions::default().thread_cache_bytes(0);
        let pool = Pool::builder()
            .slabs(slabs)
            .max_bytes(limit)
            .build(DeviceMemoryResource::new(&context, SPAN)?)?;
        let streams = (0..streams).map(|_| Stream::new(&context)).collect::<Result<_, _>>()?;
        let clock = Arc::new(Clock::default());
        Ok(Self { clock, behind, live: Vec::new(), pool, streams, machine })
    }
}

impl Allocator for Ours {
    fn alloc(&mut self, block: usize, size: usize, stream: usize) -> Result<bool, Failure> {
        let _bound = self.machine.bind();
        self.clock.advance(block);
        self.live.resize_with(block + 1, || None);
        if block % 3000 == 2999 && std::env::var_os("FITDBG").is_some() {
            let s = self.pool.slab_stats();
            eprintln!("{block}: res {} live {} ret {} empty {} unused {} kept {} {:?}", s.reserved>>20, s.live>>20, s.retired>>20, s.empty>>20, s.unused>>20, self.pool.retired()>>20, self.pool.stats());
        }
        match self.pool.alloc(size, &self.streams[stream]) {
            Ok(buffer) => self.live[block] = Some((buffer, stream)),
            Err(AllocError::Upstream(error)) => return Err(error.into()),
            Err(_) => {}
        }
        Ok(self.live[block].is_some())
    }

    fn free(&mut self, block: usize) -> Result<(), Failure> {
        let _bound = self.machine.bind();
        let Some((buffer, stream)) = self.live[block].take() else { return Ok(()) };
        let (clock, until) = (self.clock.clone(), self.live.len() + self.behind);
        self.streams[stream].add_callback(move |_| clock.wait(until))?;
        buffer.record_use(&self.streams[stream])?;
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.pool.slab_stats().reserved
    }

    fn calls(&self) -> (usize, usize) {
        let calls = |name| usize::try_from(self.machine.calls(name)).unwrap_or(usize::MAX);
        (calls("cuMemMap"), calls("cuMemUnmap"))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Nothing is left waiting, so that the pool's end does not wait either.
        self.clock.advance(usize::MAX);
        let _bound = self.machine.bind();
        self.live.clear();
        for stream in &self.streams {
            // A lost device has been reported by the call that met it.
            let _ = stream.synchronize();
        }
    }
}

/// How many allocations there have been.
#[derive(Debug, Default)]
struct Clock {
    now: Mutex<usize>,
    moved: Condvar,
}

impl Clock {
    fn advance(&self, now: usize) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.moved.notify_all();
    }

    fn wait(&self, until: usize) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.moved.wait_while(now, |now| *now < until).unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// Memory of the device: its pages are not touched.
const DEVICE: u64 = 1 << 38;
const SPAN: usize = 1 << 38;
