//! Allocators of the process's memory, with caches a thread: what CPU allocators reach.
//!
//! They may write into the blocks, which a device's memory does not allow. Their settings are
//! in `.cargo/config.toml`.

#![expect(unsafe_code, reason = "raw allocation is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;

use crate::peer::{Kind, Shared};

/// mimalloc.
#[derive(Debug)]
pub struct Mimalloc;

/// jemalloc.
#[derive(Debug)]
pub struct Jemalloc;

/// snmalloc.
#[derive(Debug)]
pub struct Snmalloc;

/// The C library's.
#[derive(Debug)]
pub struct Glibc;

/// A block, with its size as the allocators want it back.
#[derive(Debug)]
pub struct Pointer(NonNull<u8>, usize);

// SAFETY: it is the only pointer to its bytes, and these allocators free from any thread.
unsafe impl Send for Pointer {}

const ALIGN: usize = 16;

macro_rules! malloc {
    ($peer:ident, $name:literal, $allocator:expr) => {
        impl Shared for $peer {
            const NAME: &'static str = $name;
            const KIND: Kind = Kind::Malloc;
            type Block = Pointer;

            fn new() -> Self {
                Self
            }

            #[inline]
            fn alloc(&self, size: usize) -> Option<Pointer> {
                // SAFETY: 16 is a power of two, and no workload asks for sizes near 2^63.
                let layout = unsafe { Layout::from_size_align_unchecked(size, ALIGN) };
                // SAFETY: no workload asks for 0 bytes.
                let bytes = unsafe { $allocator.alloc(layout) };
                Some(Pointer(NonNull::new(bytes)?, size))
            }

            #[inline]
            fn free(&self, block: Pointer) {
                // SAFETY: as in `alloc`, where the size was the same.
                let layout = unsafe { Layout::from_size_align_unchecked(block.1, ALIGN) };
                // SAFETY: the block is of this allocator and layout, and moved here.
                unsafe { $allocator.dealloc(block.0.as_ptr(), layout) };
            }

            fn extent(&self, block: &Pointer, size: usize) -> Option<(usize, usize)> {
                Some((block.0.addr().get() / ALIGN, size.div_ceil(ALIGN)))
            }
        }
    };
}

malloc!(Mimalloc, "mimalloc", mimalloc::MiMalloc);
malloc!(Jemalloc, "jemalloc", tikv_jemallocator::Jemalloc);
malloc!(Snmalloc, "snmalloc", snmalloc_rs::SnMalloc);
malloc!(Glibc, "glibc malloc", System);
