//! Words that the device writes and the host polls.

#![expect(unsafe_code, reason = "maps a page; reads what the device writes")]

use std::io;
use std::process;
use std::ptr::{self, NonNull};

use wharf_sys::bindings::{
    CU_MEMHOSTREGISTER_DEVICEMAP, CU_MEMHOSTREGISTER_PORTABLE, CUstream, CUstreamWriteValue_flags,
};

use crate::driver::{Context, DeviceAttribute};
use crate::error::Error;
use crate::profile::range;
use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

/// 64-bit words in pinned host memory, 0 at first, which the device writes in stream order.
///
/// The host learns of a completion by one load. The driver knows the memory, but it is ours: a
/// word can be read even when the context is gone. In a forked child all words are 0.
///
/// ```text
///   word 0 | 56 bytes | word 1 | 56 bytes | ...        a cache line each
/// ```
///
/// | word | written by | read by | orderings |
/// |---|---|---|---|
/// | each | the device, behind a barrier (Driver API, cuStreamWriteValue64); `reset` | `load` | the barrier pairs with the `Acquire` of `load`: what the device wrote before is visible |
///
/// When it is dropped the driver lets go of the memory, so no device work may still write to it;
/// who cannot know that [leaks](Self::leak) it.
#[derive(Debug)]
pub(crate) struct CompletionPage {
    mapping: Mapping,
    len: usize,
    /// Where the device sees the first word; 0 if the driver does not know the page any more.
    device: u64,
    context: Context,
}

impl CompletionPage {
    /// Whether the device can write completion words.
    pub(crate) fn is_supported(context: &Context) -> Result<bool, Error> {
        let device = context.device();
        let entry = &context.driver().api().stream_write_value_64;
        Ok(entry.is_available()
            && device.supports(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS)?
            && device.supports(DeviceAttribute::HOST_REGISTER_SUPPORTED)?)
    }

    /// Makes `len` words, not disturbing any stream capture.
    ///
    /// # Errors
    ///
    /// * [`Error::System`]: there is no memory.
    /// * [`Error::Driver`]: the driver cannot pin it.
    pub(crate) fn new(context: &Context, len: usize) -> Result<Self, Error> {
        let _range = range!("wharf::timeline::page");
        let mapping = Mapping::new(len * STRIDE)?;
        let device = register(context, &mapping)?;
        Ok(Self { mapping, len, device, context: context.clone() })
    }

    /// The value of a word, and with it all that the device did before it wrote it.
    #[inline]
    pub(crate) fn load(&self, index: usize) -> u64 {
        // Acquire: pairs with the barrier before the device's write.
        self.word(index).load(Acquire)
    }

    /// Sets a word that no device work is to write.
    #[inline]
    pub(crate) fn reset(&self, index: usize, value: u64) {
        // Release: pairs with the Acquire of `load`.
        self.word(index).store(value, Release);
    }

    /// Where the device sees a word.
    pub(crate) fn device_address(&self, index: usize) -> u64 {
        assert!(index < self.len, "word {index} of {}", self.len);
        self.device + (index * STRIDE) as u64
    }

    /// Lets the device write `value` to a word when it comes to this place in the stream.
    ///
    /// # Safety
    ///
    /// * `stream` is a stream of the page's context, and that context is current.
    /// * The page is dropped only when the write is done, or leaked.
    pub(crate) unsafe fn write(&self, index: usize, value: u64, stream: CUstream) -> Result<(), Error> {
        let flags = CUstreamWriteValue_flags::CU_STREAM_WRITE_VALUE_DEFAULT.0;
        let entry = &self.context.driver().api().stream_write_value_64;
        // SAFETY: the word is registered memory, and the caller vouches for the stream.
        unsafe { entry.call(stream, self.device_address(index), value, flags) }
    }

    /// Whether this process is a fork of the one that made the page.
    pub(crate) fn is_forked(&self) -> bool {
        self.mapping.process != process::id()
    }

    /// Gives the page up while the device may still write to it.
    pub(crate) fn leak(mut self) {
        self.device = 0;
        self.mapping.leaked = true;
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len, "word {index} of {}", self.len);
        let word = self.mapping.base.as_ptr().wrapping_add(index * STRIDE).cast::<AtomicU64>();
        // SAFETY: within the mapping, which lives as long as `self`, and aligned; the device's
        // writes of 64 bits are single (Driver API, cuStreamWriteValue64), as those of an atomic.
        unsafe { &*word }
    }
}

impl Drop for CompletionPage {
    fn drop(&mut self) {
        if self.device == 0 || self.is_forked() {
            return;
        }
        let outcome = unregister(&self.context, &self.mapping);
        self.mapping.leaked = outcome.is_err();
        self.context.release().note(self.context.driver(), outcome);
    }
}

/// Makes the memory known to the driver; where the device sees it.
fn register(context: &Context, mapping: &Mapping) -> Result<u64, Error> {
    let _scope = context.enter()?;
    let _relaxed = context.driver().relax_capture()?;
    let api = context.driver().api();
    let base = mapping.base.as_ptr().cast();
    let flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
    // SAFETY: memory of ours that stays mapped until it is unregistered.
    unsafe { api.mem_host_register.call(base, mapping.len, flags) }?;
    let mut device = 0;
    // SAFETY: registered above; `device` is valid for writes for the whole call.
    let asked = unsafe { api.mem_host_get_device_pointer.call(&raw mut device, base, 0) };
    asked.map(|()| device).inspect_err(|_| {
        // SAFETY: registered above, and nobody knows of it.
        let undone = unsafe { api.mem_host_unregister.call(base) };
        context.release().note(context.driver(), undone);
    })
}

fn unregister(context: &Context, mapping: &Mapping) -> Result<(), Error> {
    let _scope = context.enter()?;
    let _relaxed = context.driver().relax_capture()?;
    let entry = &context.driver().api().mem_host_unregister;
    // SAFETY: registered by `register`; that no device work uses it is what who drops it promises.
    unsafe { entry.call(mapping.base.as_ptr().cast()) }
}

/// Memory of ours, which a forked child sees as zeros.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
    process: u32,
    leaked: bool,
}

// SAFETY: the memory belongs to no thread, and is read and written as atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize) -> Result<Self, Error> {
        let len = len.next_multiple_of(PAGE);
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the system's choice touches no other.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
        let base = NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED);
        let base = base.ok_or_else(|| Error::System {
            call: "mmap",
            errno: io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM),
        })?;
        // A page shared with a child would be copied on the next write, and one of the two would
        // keep the page that the device writes. Linux before 4.14 does not know it.
        // SAFETY: the mapping is ours and empty.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_WIPEONFORK) };
        Ok(Self { base, len, process: process::id(), leaked: false })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: mapped by `new`, in this process or its parent; nobody uses it any more.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}

/// A cache line, so that the words of different waiters are apart.
const STRIDE: usize = 64;

/// As long as the longest page of the supported systems: one registration a page.
const PAGE: usize = 65_536;
