//! wharf's pool on softcuda, with the device some allocations behind the host.
//!
//! Before each free the block's stream gets a callback that returns when the device may have
//! come so far. The pool learns of the end as in an engine: by its markers behind that work.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

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
        clock.expect(until);
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

/// How many allocations there have been, and how far the device has to be for that.
#[derive(Debug, Default)]
struct Clock {
    state: Mutex<ClockState>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct ClockState {
    now: usize,
    /// How many callbacks have to return at each number of allocations.
    waiting: BTreeMap<usize, usize>,
}

impl Clock {
    /// Sets the number of allocations. Waits for the device to come as far as it may: it is so many
    /// allocations behind, and no more, however fast the machine is.
    fn advance(&self, now: usize) {
        let mut state = self.lock();
        state.now = now;
        self.moved.notify_all();
        let is_behind = |state: &mut ClockState| {
            state.waiting.first_key_value().is_some_and(|(until, _)| *until <= state.now)
        };
        drop(self.moved.wait_while(state, is_behind).unwrap_or_else(PoisonError::into_inner));
        // For what follows the callbacks in their streams.
        thread::yield_now();
    }

    /// Notes that a callback will [wait](Self::wait).
    fn expect(&self, until: usize) {
        *self.lock().waiting.entry(until).or_default() += 1;
    }

    fn wait(&self, until: usize) {
        let is_early = |state: &mut ClockState| state.now < until;
        let state = self.moved.wait_while(self.lock(), is_early);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = state.waiting.get_mut(&until) {
            *count -= 1;
            if *count == 0 {
                state.waiting.remove(&until);
            }
        }
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of the device: its pages are not touched.
const DEVICE: u64 = 1 << 38;
const SPAN: usize = 1 << 38;
