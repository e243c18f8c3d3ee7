//! PyTorch's caching host allocator, as published: a mutex for each power of two, an event for
//! each use of a freed block, one queue of events.
//!
//! Written after the description in `aten/src/ATen/core/CachingHostAllocator.h` of
//! [PyTorch](https://github.com/pytorch/pytorch): which locks are taken and which driver calls are
//! made, in which order. Here it hands out device memory, as the schemes beside it do.
//!
//! ```text
//!   alloc   pop finished events, oldest first, until one is not; then the list of the power of two
//!   free    record an event; append (event, block) to the queue
//! ```

#![expect(unsafe_code, reason = "calls the driver's allocator")]

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use wharf::driver::{EventKind, EventPool};
use wharf::sys::bindings::CUdeviceptr;
use wharf::{Context, Error, Event, Stream};

use super::Scheme;

/// The allocator.
#[derive(Debug)]
pub struct Caching {
    context: Context,
    /// Free blocks, by the logarithm of their size.
    free: [Mutex<Vec<CUdeviceptr>>; CLASSES],
    /// Every block and the logarithm of its size.
    blocks: Mutex<HashMap<CUdeviceptr, usize>>,
    /// Blocks that the device may still use, oldest first.
    pending: Mutex<VecDeque<(Event, CUdeviceptr)>>,
    events: EventPool,
}

impl Caching {
    /// An allocator without memory.
    pub fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            free: std::array::from_fn(|_| Mutex::default()),
            blocks: Mutex::default(),
            pending: Mutex::default(),
            events: EventPool::new(context, EventKind::Ordering, 4096),
        }
    }

    /// Moves blocks whose event is over to their lists, until the first that is not.
    fn process_events(&self) -> Result<(), Error> {
        loop {
            // The lock is not held during the query, as there.
            let Some((event, block)) = self.pending.lock().pop_front() else { return Ok(()) };
            if !event.query()? {
                self.pending.lock().push_front((event, block));
                return Ok(());
            }
            self.list(block).lock().push(block);
        }
    }

    fn list(&self, block: CUdeviceptr) -> &Mutex<Vec<CUdeviceptr>> {
        &self.free[self.blocks.lock()[&block]]
    }
}

impl Scheme for Caching {
    type Block = CUdeviceptr;

    fn alloc(&self, size: usize, _: &Stream) -> Result<CUdeviceptr, Error> {
        self.process_events()?;
        let rounded = size.next_power_of_two();
        let class = rounded.trailing_zeros() as usize;
        if let Some(block) = self.free[class].lock().pop() {
            return Ok(block);
        }
        let _scope = self.context.enter()?;
        let mut block = 0;
        // SAFETY: `block` is valid for writes for the whole call and the context is current.
        unsafe { self.context.driver().api().mem_alloc.call(&raw mut block, rounded) }?;
        self.blocks.lock().insert(block, class);
        Ok(block)
    }

    fn address(&self, block: &CUdeviceptr) -> CUdeviceptr {
        *block
    }

    fn free(&self, block: CUdeviceptr, stream: &Stream) -> Result<(), Error> {
        let event = self.events.event()?;
        stream.record(&event)?;
        self.pending.lock().push_back((event, block));
        Ok(())
    }
}

impl Drop for Caching {
    fn drop(&mut self) {
        let Ok(_scope) = self.context.enter() else { return };
        for block in self.blocks.lock().keys() {
            // SAFETY: of this allocator, freed once; the call waits for the device. What it says
            // no longer matters.
            let _ = unsafe { self.context.driver().api().mem_free.call(*block) };
        }
    }
}

/// Powers of two.
const CLASSES: usize = 64;
