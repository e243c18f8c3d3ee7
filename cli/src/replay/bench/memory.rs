#![expect(unsafe_code, reason = "allocates without wharf, for comparison")]
//! Ways to have memory for a step. Each holds as many blocks as there are slots, and replaces one
//! after the other.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::PoisonError;

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::slab::{Block, PoolOptions, SizeClass, SlabPool};
use wharf::sys::bindings::CUdeviceptr;
use wharf::{Context, Driver, Stream};

use super::super::ReplayError;

/// The number of blocks that are held.
pub(super) const SLOTS: usize = 64;

/// A way to allocate memory.
pub(super) trait Source {
    /// Frees what the slot holds and puts a new block of `size` bytes there.
    fn replace(&mut self, slot: usize, size: usize) -> Result<(), ReplayError>;
}

/// `cuMemAlloc` and `cuMemFree`.
pub(super) struct Calls {
    driver: Driver,
    held: [CUdeviceptr; SLOTS],
}

impl Calls {
    pub(super) fn new(driver: &Driver) -> Self {
        Self { driver: driver.clone(), held: [0; SLOTS] }
    }
}

impl Source for Calls {
    fn replace(&mut self, slot: usize, size: usize) -> Result<(), ReplayError> {
        let api = self.driver.api();
        let held = std::mem::take(&mut self.held[slot]);
        if held != 0 {
            // SAFETY: allocated below, freed once, and never used.
            unsafe { api.mem_free.call(held) }?;
        }
        // SAFETY: the slot is valid for writes; a context is current.
        unsafe { api.mem_alloc.call(&raw mut self.held[slot], size) }?;
        Ok(())
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        for held in self.held.into_iter().filter(|held| *held != 0) {
            // SAFETY: allocated by `replace`, freed once. After an error it is leaked.
            let _ = unsafe { self.driver.api().mem_free.call(held) };
        }
    }
}

/// The driver's pool: `cuMemAllocAsync` and `cuMemFreeAsync`.
pub(super) struct DriverPool {
    stream: Stream,
    held: [CUdeviceptr; SLOTS],
}

impl DriverPool {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, held: [0; SLOTS] }
    }
}

impl Source for DriverPool {
    fn replace(&mut self, slot: usize, size: usize) -> Result<(), ReplayError> {
        let (api, stream) = (self.stream.context().driver().api(), self.stream.as_raw());
        let held = std::mem::take(&mut self.held[slot]);
        if held != 0 {
            // SAFETY: allocated below on the same stream, freed once, and never used.
            unsafe { api.mem_free_async.call(held, stream) }?;
        }
        // SAFETY: the slot is valid for writes; the stream is alive.
        unsafe { api.mem_alloc_async.call(&raw mut self.held[slot], size, stream) }?;
        Ok(())
    }
}

impl Drop for DriverPool {
    fn drop(&mut self) {
        let (api, stream) = (self.stream.context().driver().api(), self.stream.as_raw());
        for held in self.held.into_iter().filter(|held| *held != 0) {
            // SAFETY: allocated by `replace`, freed once. After an error it is leaked.
            let _ = unsafe { api.mem_free_async.call(held, stream) };
        }
    }
}

/// What engines write for themselves: a list of free blocks for each size, behind a mutex.
pub(super) struct FreeLists {
    driver: Driver,
    lists: Mutex<HashMap<usize, Vec<CUdeviceptr>>>,
    held: [(usize, CUdeviceptr); SLOTS],
}

impl FreeLists {
    pub(super) fn new(driver: &Driver) -> Self {
        Self { driver: driver.clone(), lists: Mutex::default(), held: [(0, 0); SLOTS] }
    }
}

impl Source for FreeLists {
    fn replace(&mut self, slot: usize, size: usize) -> Result<(), ReplayError> {
        let (size_held, held) = std::mem::take(&mut self.held[slot]);
        if held != 0 {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists.entry(size_held).or_default().push(held);
        }
        let size = SizeClass::of(size).map_or(size, SizeClass::block_size);
        let kept = self
            .lists
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(&size)
            .and_then(Vec::pop);
        let mut address = kept.unwrap_or(0);
        if address == 0 {
            // SAFETY: the address is valid for writes; a context is current.
            unsafe { self.driver.api().mem_alloc.call(&raw mut address, size) }?;
        }
        self.held[slot] = (size, address);
        Ok(())
    }
}

impl Drop for FreeLists {
    fn drop(&mut self) {
        let lists = std::mem::take(self.lists.get_mut().unwrap_or_else(PoisonError::into_inner));
        let held = self.held.iter().map(|(_, address)| *address).filter(|address| *address != 0);
        for address in lists.into_values().flatten().chain(held) {
            // SAFETY: allocated by `replace`, in a list or held, freed once. After an error it is
            // leaked.
            let _ = unsafe { self.driver.api().mem_free.call(address) };
        }
    }
}

/// The allocator of the process: ordinary memory, for scale.
pub(super) struct Heap {
    held: [Option<(NonNull<u8>, Layout)>; SLOTS],
}

impl Heap {
    pub(super) fn new() -> Self {
        Self { held: [None; SLOTS] }
    }

    fn free(held: Option<(NonNull<u8>, Layout)>) {
        if let Some((address, layout)) = held {
            // SAFETY: allocated by `replace` with this layout, freed once.
            unsafe { dealloc(address.as_ptr(), layout) };
        }
    }
}

impl Source for Heap {
    fn replace(&mut self, slot: usize, size: usize) -> Result<(), ReplayError> {
        Self::free(self.held[slot].take());
        let layout = Layout::from_size_align(size, 256).map_err(std::io::Error::other)?;
        // SAFETY: sizes are not 0.
        let address = unsafe { alloc(layout) };
        self.held[slot] = NonNull::new(address).map(|address| (address, layout));
        Ok(())
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        self.held.into_iter().for_each(Self::free);
    }
}

/// wharf's slabs, without an order of streams.
pub(super) struct Slabs {
    pool: SlabPool<DeviceMemoryResource>,
    held: [Option<Block>; SLOTS],
}

impl Slabs {
    pub(super) fn new(context: &Context) -> Result<Self, ReplayError> {
        let pool =
            SlabPool::new(DeviceMemoryResource::new(context, SPAN)?, PoolOptions::default())?;
        Ok(Self { pool, held: [const { None }; SLOTS] })
    }

    fn free(&self, held: Option<Block>) {
        let freed = held.map_or(Ok(()), |block| self.pool.dealloc(block));
        debug_assert!(freed.is_ok(), "{freed:?}");
    }
}

impl Source for Slabs {
    fn replace(&mut self, slot: usize, size: usize) -> Result<(), ReplayError> {
        let held = self.held[slot].take();
        self.free(held);
        self.held[slot] = Some(self.pool.alloc(size)?);
        Ok(())
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        for slot in 0..SLOTS {
            let held = self.held[slot].take();
            self.free(held);
        }
    }
}

/// wharf's pool, in the order of a stream.
pub(super) struct Buffers {
    pool: Pool,
    stream: Stream,
    held: [Option<Buffer<u8>>; SLOTS],
}

impl Buffers {
    pub(super) fn new(context: &Context, stream: Stream) -> Result<Self, ReplayError> {
        let pool = Pool::builder().build(DeviceMemoryResource::new(context, SPAN)?)?;
        Ok(Self { pool, stream, held: [const { None }; SLOTS] })
    }
}

impl Source for Buffers {
    fn replace(&mut self, slot: usize, size: usize) -> Result<(), ReplayError> {
        self.held[slot] = None;
        self.held[slot] = Some(self.pool.alloc(size, &self.stream)?);
        Ok(())
    }
}

/// Addresses of a pool, in bytes: enough for what is held, many times over.
const SPAN: usize = 1 << 30;
