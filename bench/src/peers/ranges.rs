//! Allocators of ranges: they hand out offsets and never touch the managed memory.
//!
//! None of them may be shared between threads, so each stands behind a mutex.

#![expect(unsafe_code, reason = "most of these take blocks back by unsafe calls")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gpu_alloc::{GpuAllocator, MemoryBlock, Request, UsageFlags};
use gpu_alloc_types::{
    AllocationFlags, DeviceMapError, DeviceProperties, MappedMemoryRange, MemoryDevice, MemoryHeap,
    MemoryPropertyFlags, MemoryType, OutOfMemory,
};
use parking_lot::Mutex;
use vk_mem::{VirtualAllocationCreateFlags, VirtualAllocationCreateInfo, VirtualBlockCreateInfo};
use xalloc::{SysTlsf, SysTlsfRegion};

use crate::peer::{Kind, Shared};

/// The managed range, in bytes.
const RANGE: u64 = 4 << 30;

/// The least alignment of blocks, as wharf's.
const UNIT: u64 = 256;

/// Blocks that are live at once.
const BLOCKS: u16 = u16::MAX;

/// What a thing that must not be used by two threads becomes behind its mutex.
struct Exclusive<T>(Mutex<T>);

// SAFETY: each `T` here owns what its raw pointers lead to, and uses no thread-local state, so it
// may move between threads; the mutex lets one at a time in.
unsafe impl<T> Send for Exclusive<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Exclusive<T> {}

/// A block's handle in an allocator's own form.
#[derive(Debug)]
pub struct Handle<T>(T);

// SAFETY: the handles are indices and pointers that only their allocator follows, under its mutex.
unsafe impl<T> Send for Handle<T> {}

/// Sebastian Aaltonen's `OffsetAllocator`.
pub struct OffsetAllocator(Exclusive<offset_allocator::Allocator<u32>>);

impl Shared for OffsetAllocator {
    const NAME: &'static str = "offset-allocator";
    const KIND: Kind = Kind::Range;
    type Block = offset_allocator::Allocation<u32>;

    fn new() -> Self {
        let units = u32::try_from(RANGE / UNIT).unwrap_or(u32::MAX);
        Self(Exclusive(Mutex::new(offset_allocator::Allocator::with_max_allocs(
            units,
            BLOCKS.into(),
        ))))
    }

    #[inline]
    fn alloc(&self, size: usize) -> Option<Self::Block> {
        self.0.0.lock().allocate(units(size))
    }

    #[inline]
    fn free(&self, block: Self::Block) {
        self.0.0.lock().free(block);
    }

    fn extent(&self, block: &Self::Block, size: usize) -> Option<(usize, usize)> {
        Some((block.offset as usize, units(size) as usize))
    }
}

/// xalloc's TLSF with metadata on the heap.
pub struct Xalloc(Exclusive<SysTlsf<u32>>);

impl Shared for Xalloc {
    const NAME: &'static str = "xalloc TLSF";
    const KIND: Kind = Kind::Range;
    type Block = (Handle<SysTlsfRegion>, u32);

    fn new() -> Self {
        let units = u32::try_from(RANGE / UNIT).unwrap_or(u32::MAX);
        Self(Exclusive(Mutex::new(SysTlsf::with_capacity(units, BLOCKS.into()))))
    }

    #[inline]
    fn alloc(&self, size: usize) -> Option<Self::Block> {
        let (region, offset) = self.0.0.lock().alloc(units(size))?;
        Some((Handle(region), offset))
    }

    #[inline]
    fn free(&self, (region, _): Self::Block) {
        // SAFETY: the region is of this allocator, and moved here, so it is not freed again.
        unsafe { self.0.0.lock().dealloc_unchecked(region.0) };
    }

    fn extent(&self, block: &Self::Block, size: usize) -> Option<(usize, usize)> {
        Some((block.1 as usize, units(size) as usize))
    }
}

/// The `VirtualBlock` of the Vulkan Memory Allocator.
pub struct VirtualBlock(Exclusive<vk_mem::VirtualBlock>);

impl Shared for VirtualBlock {
    const NAME: &'static str = "VMA VirtualBlock";
    const KIND: Kind = Kind::Range;
    type Block = (vk_mem::VirtualAllocation, u64);

    #[expect(clippy::expect_used, reason = "without its peers there is no benchmark")]
    fn new() -> Self {
        let info = VirtualBlockCreateInfo { size: RANGE, ..Default::default() };
        Self(Exclusive(Mutex::new(
            vk_mem::VirtualBlock::new(info).expect("memory for its metadata"),
        )))
    }

    #[inline]
    fn alloc(&self, size: usize) -> Option<Self::Block> {
        let info = VirtualAllocationCreateInfo {
            size: size as u64,
            alignment: UNIT,
            user_data: 0,
            flags: VirtualAllocationCreateFlags::empty(),
        };
        // SAFETY: the size is not 0 and the alignment a power of two.
        unsafe { self.0.0.lock().allocate(info) }.ok()
    }

    #[inline]
    fn free(&self, mut block: Self::Block) {
        // SAFETY: the allocation is of this block, and moved here, so it is not freed again.
        unsafe { self.0.0.lock().free(&mut block.0) };
    }

    fn extent(&self, block: &Self::Block, size: usize) -> Option<(usize, usize)> {
        Some((usize::try_from(block.1 / UNIT).ok()?, units(size) as usize))
    }
}

/// gpu-alloc's buddy allocator, on a device that only counts.
pub struct GpuAlloc(Exclusive<GpuAllocator<u64>>);

impl Shared for GpuAlloc {
    const NAME: &'static str = "gpu-alloc buddy";
    const KIND: Kind = Kind::Range;
    type Block = Handle<MemoryBlock<u64>>;

    fn new() -> Self {
        let mut config = gpu_alloc::Config::i_am_prototyping();
        config.minimal_buddy_size = UNIT;
        config.initial_buddy_dedicated_size = 256 << 20;
        let device = DeviceProperties {
            memory_types: vec![MemoryType { heap: 0, props: MemoryPropertyFlags::DEVICE_LOCAL }]
                .into(),
            memory_heaps: vec![MemoryHeap { size: 16 * RANGE }].into(),
            max_memory_allocation_count: 4096,
            max_memory_allocation_size: RANGE,
            non_coherent_atom_size: UNIT,
            buffer_device_address: false,
        };
        Self(Exclusive(Mutex::new(GpuAllocator::new(config, device))))
    }

    #[inline]
    fn alloc(&self, size: usize) -> Option<Self::Block> {
        let request = Request {
            size: size as u64,
            align_mask: UNIT - 1,
            usage: UsageFlags::FAST_DEVICE_ACCESS,
            memory_types: 1,
        };
        // SAFETY: the device is the one whose properties the allocator was made with.
        let block = unsafe { self.0.0.lock().alloc(&Counter, request) }.ok()?;
        Some(Handle(block))
    }

    #[inline]
    fn free(&self, block: Self::Block) {
        // SAFETY: the block is of this allocator and device, and moved here.
        unsafe { self.0.0.lock().dealloc(&Counter, block.0) };
    }
}

/// A device of which every allocation succeeds.
struct Counter;

// The trait's functions are unsafe to call; these ask nothing of their callers.
impl MemoryDevice<u64> for Counter {
    unsafe fn allocate_memory(
        &self,
        _: u64,
        _: u32,
        _: AllocationFlags,
    ) -> Result<u64, OutOfMemory> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(NEXT.fetch_add(1, Relaxed))
    }

    unsafe fn deallocate_memory(&self, _: u64) {}

    unsafe fn map_memory(
        &self,
        _: &mut u64,
        _: u64,
        _: u64,
    ) -> Result<NonNull<u8>, DeviceMapError> {
        Err(DeviceMapError::MapFailed)
    }

    unsafe fn unmap_memory(&self, _: &mut u64) {}

    unsafe fn invalidate_memory_ranges(
        &self,
        _: &[MappedMemoryRange<'_, u64>],
    ) -> Result<(), OutOfMemory> {
        Ok(())
    }

    unsafe fn flush_memory_ranges(
        &self,
        _: &[MappedMemoryRange<'_, u64>],
    ) -> Result<(), OutOfMemory> {
        Ok(())
    }
}

/// A size in the units of those that count in `u32`.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "no workload asks for 1 TiB")]
fn units(size: usize) -> u32 {
    (size as u64).div_ceil(UNIT) as u32
}
