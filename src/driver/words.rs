#![expect(unsafe_code, reason = "maps pages; reads what the device writes")]
//! Words that the device writes and the host polls.
//!
//! ```text
//!   Context ──> Words ──> pages ──> word 0 | 56 bytes | word 1 | 56 bytes | ...   64 bytes each
//!                           ^
//!   timeline ──> Word ──────+
//! ```
//!
//! A page is pinned once and its words are used by one stream after another, so what a stream costs
//! does not depend on how many there were before it.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use wharf_sys::bindings::{
    CU_MEMHOSTREGISTER_DEVICEMAP, CU_MEMHOSTREGISTER_PORTABLE, CUcontext, CUstream,
    CUstreamWriteValue_flags,
};

use super::{Context, ContextScope, DeviceAttribute, Driver};
use crate::error::Error;
use crate::profile::range;
use crate::sync::atomic::{
    AtomicBool, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use crate::sync::{DeviceWord, Mutex, OnceLock};

/// 64-bit words in pinned host memory, 0 at first, which the device writes in stream order.
///
/// The host learns of a completion by one load. The driver knows the memory, but it is ours: a
/// word can be read even when the context is gone. In a forked child all words are 0.
///
/// * each: written by the device, behind a barrier (Driver API, cuStreamWriteValue64);
///   `reset`; read by `load`. The barrier pairs with the `Acquire` of `load`: what the device wrote
///   before is visible.
///
/// A page that is dropped while the driver knows it is leaked: its owner [closes](Self::close) it
/// first, when no device work may still write to it.
#[derive(Debug)]
pub(crate) struct WordPage {
    mapping: Arc<Mapping>,
    len: usize,
    /// Where the device sees the first word.
    device: u64,
}

/// One word of a page, by its address. The page stays mapped as long as this.
#[derive(Debug)]
pub(crate) struct SharedWord {
    word: NonNull<DeviceWord>,
    _mapping: Arc<Mapping>,
}

impl WordPage {
    /// Whether the device can write words.
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
    pub(crate) fn new(len: usize, context: &Context) -> Result<Self, Error> {
        let _range = range!("words::page");
        let mapping = Mapping::new(len * STRIDE)?;
        let device = register(context, &mapping)?;
        mapping.is_known.store(true, Relaxed);
        Ok(Self { mapping: Arc::new(mapping), len, device })
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

    /// A word by its address, for a holder that looks at it often.
    pub(crate) fn share(&self, index: usize) -> SharedWord {
        SharedWord { word: self.word(index).into(), _mapping: Arc::clone(&self.mapping) }
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
    /// * The page is closed only when the write is done.
    pub(crate) unsafe fn write(
        &self,
        index: usize,
        value: u64,
        stream: CUstream,
        driver: &Driver,
    ) -> Result<(), Error> {
        let flags = CUstreamWriteValue_flags::CU_STREAM_WRITE_VALUE_DEFAULT.0;
        let entry = &driver.api().stream_write_value_64;
        // SAFETY: the word is registered memory, and the caller vouches for the stream.
        unsafe { entry.call(stream, self.device_address(index), value, flags) }
    }

    /// Takes the page back from the driver. After an error it is leaked.
    pub(crate) fn close(&mut self, driver: &Driver, context: CUcontext) -> Result<(), Error> {
        let _scope = ContextScope::make_current(driver, context)?;
        let _relaxed = driver.relax_capture()?;
        let entry = &driver.api().mem_host_unregister;
        // SAFETY: registered by `register`; no device work writes to it, as its owner knows.
        unsafe { entry.call(self.mapping.pages.as_mut_ptr().cast()) }?;
        self.mapping.is_known.store(false, Relaxed);
        Ok(())
    }

    #[inline]
    fn word(&self, index: usize) -> &DeviceWord {
        assert!(index < self.len, "word {index} of {}", self.len);
        let word =
            self.mapping.pages.as_mut_ptr().wrapping_add(index * STRIDE).cast::<DeviceWord>();
        // SAFETY: within the mapping, which lives as long as `self`, and aligned; the device's
        // writes of 64 bits are single (Driver API, cuStreamWriteValue64), as those of an atomic.
        unsafe { &*word }
    }
}

impl SharedWord {
    /// As [`WordPage::load`].
    #[inline]
    pub(crate) fn load(&self) -> u64 {
        // Acquire: pairs with the barrier before the device's write.
        self.word().load(Acquire)
    }

    /// As [`WordPage::reset`].
    #[inline]
    pub(crate) fn reset(&self, value: u64) {
        // Release: pairs with the Acquire of `load`.
        self.word().store(value, Release);
    }

    #[inline]
    fn word(&self) -> &DeviceWord {
        // SAFETY: a word of the mapping, which lives as long as `self`; an atomic alone, see
        // `WordPage::word`.
        unsafe { self.word.as_ref() }
    }
}

// SAFETY: the word belongs to no thread, and is read and written as an atomic only.
unsafe impl Send for SharedWord {}
// SAFETY: as above.
unsafe impl Sync for SharedWord {}

/// The words of a context.
#[derive(Debug, Default)]
pub(crate) struct Words {
    is_supported: OnceLock<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pages: Vec<Arc<WordPage>>,
    /// Words that no device work is to write.
    free: Vec<Word>,
    /// Words that were given back, each with the last number that the device was told to write to
    /// it.
    pending: Vec<(Word, u64)>,
}

/// One word, for one holder.
#[derive(Debug)]
pub(crate) struct Word {
    page: Arc<WordPage>,
    index: usize,
}

impl Words {
    /// A word of value 0, or `None` where the device cannot write words. Disturbs no stream
    /// capture.
    ///
    /// # Errors
    ///
    /// * [`Error::System`]: there is no memory.
    /// * [`Error::Driver`]: the driver cannot pin it.
    pub(crate) fn take(&self, context: &Context) -> Result<Option<Word>, Error> {
        let is_supported = match self.is_supported.get() {
            Some(known) => *known,
            None => {
                let asked = WordPage::is_supported(context)?;
                *self.is_supported.get_or_init(|| asked)
            }
        };
        if !is_supported {
            return Ok(None);
        }
        let mut state = self.state.lock();
        if state.free.is_empty() {
            state.collect();
        }
        if state.free.is_empty() {
            let page = Arc::new(WordPage::new(PAGE / STRIDE, context)?);
            state.free.extend(
                (0..PAGE / STRIDE).rev().map(|index| Word { page: Arc::clone(&page), index }),
            );
            state.pages.push(page);
        }
        Ok(state.free.pop())
    }

    /// Takes a word back, which the device was told to write up to `last`.
    pub(crate) fn give(&self, word: Word, last: u64) {
        self.state.lock().pending.push((word, last));
    }

    /// Takes the pages back from the driver, at the end of the context. What the device may still
    /// write to is leaked.
    pub(super) fn close(&mut self, driver: &Driver, context: CUcontext) -> Result<(), Error> {
        let mut state = std::mem::take(self.state.get_mut());
        state.collect();
        state.free.clear();
        let mut outcome = Ok(());
        for page in state.pages {
            // Words that are pending hold their page.
            if let Some(mut page) = Arc::into_inner(page) {
                outcome = outcome.and(page.close(driver, context));
            }
        }
        outcome
    }
}

impl State {
    /// Finds out which words that were given back the device is done with.
    fn collect(&mut self) {
        let Self { free, pending, .. } = self;
        free.extend(pending.extract_if(.., |(word, last)| word.load() >= *last).map(
            |(word, _)| {
                word.page.reset(word.index, 0);
                word
            },
        ));
    }
}

impl Word {
    /// The value, and with it all that the device did before it wrote it.
    #[inline]
    pub(crate) fn load(&self) -> u64 {
        self.page.load(self.index)
    }

    /// Lets the device write `value` when it comes to this place in the stream.
    ///
    /// # Safety
    ///
    /// * `stream` is a stream of the word's context, and that context is current.
    /// * The word is given back with a number that is not below `value`.
    pub(crate) unsafe fn write(
        &self,
        value: u64,
        stream: CUstream,
        driver: &Driver,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise; a page is closed when its words are past what they were
        // given back with.
        unsafe { self.page.write(self.index, value, stream, driver) }
    }
}

/// Makes the memory known to the driver; where the device sees it.
fn register(context: &Context, mapping: &Mapping) -> Result<u64, Error> {
    let _scope = context.make_current()?;
    let _relaxed = context.driver().relax_capture()?;
    let api = context.driver().api();
    let base = mapping.pages.as_mut_ptr().cast();
    let flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
    // SAFETY: memory of ours that stays mapped until it is unregistered.
    unsafe { api.mem_host_register.call(base, mapping.pages.len(), flags) }?;
    let mut device = 0;
    // SAFETY: registered above; `device` is valid for writes for the whole call.
    let asked = unsafe { api.mem_host_get_device_pointer.call(&raw mut device, base, 0) };
    asked.map(|()| device).inspect_err(|_| {
        // SAFETY: registered above, and not yet handed out.
        let undone = unsafe { api.mem_host_unregister.call(base) };
        context.release().note(context.driver(), undone);
    })
}

/// A number that is 0 in a forked child: to check for one by a load of a number that is needed
/// anyway.
#[derive(Debug)]
pub(crate) struct HomeWord(Mapping);

impl HomeWord {
    /// # Errors
    ///
    /// [`Error::System`]: there is no memory.
    pub(crate) fn new(value: usize) -> Result<Self, Error> {
        let word = Self(Mapping::new(size_of::<AtomicUsize>())?);
        word.get().store(value, Relaxed);
        Ok(word)
    }

    /// The number, to be read only.
    #[inline]
    pub(crate) fn get(&self) -> &AtomicUsize {
        // SAFETY: the first bytes of a mapping that lives as long as `self`; only an atomic.
        unsafe { &*self.0.pages.as_ptr().cast() }
    }
}

/// Memory of ours, which a forked child sees as zeros.
#[derive(Debug)]
struct Mapping {
    pages: ManuallyDrop<MmapRaw>,
    /// Whether the driver knows it: then it is not unmapped. Relaxed: changed by the page, which
    /// comes before the drop.
    is_known: AtomicBool,
}

impl Mapping {
    fn new(len: usize) -> Result<Self, Error> {
        let pages = MmapOptions::new().len(len.next_multiple_of(PAGE)).map_anon();
        let pages = pages.map(MmapRaw::from).map_err(|error| Error::System {
            call: "mmap",
            errno: error.raw_os_error().unwrap_or(libc::ENOMEM),
        })?;
        // A page shared with a child would be copied on the next write, and one of the two would
        // keep the page that the device writes. Linux before 4.14 does not know this advice, nor
        // does memmap2.
        // SAFETY: the mapping is ours and empty.
        unsafe { libc::madvise(pages.as_mut_ptr().cast(), pages.len(), libc::MADV_WIPEONFORK) };
        Ok(Self { pages: ManuallyDrop::new(pages), is_known: AtomicBool::new(false) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.is_known.load(Relaxed) {
            // SAFETY: dropped once, here; nothing refers to the memory any more.
            unsafe { ManuallyDrop::drop(&mut self.pages) };
        }
    }
}

/// A cache line, so that the words of different waiters are apart.
const STRIDE: usize = 64;

/// As long as the longest page of the supported systems: one registration a page.
const PAGE: usize = 65_536;
