#![expect(unsafe_code, reason = "commits memory and reads and writes it")]
//! The memory of a set: ring slots on the host, static buffers on the device.

use std::fmt;
use std::ptr;
use std::slice;
use std::sync::Arc;

use crate::address::to_usize;
use crate::driver::{Context, Event, EventKind, SharedWord};
use crate::element::Element;
use crate::error::{CudaError, Error};
use crate::memory::{
    Budget, Budgeted, DeviceMemoryResource, HostMemory, MemoryResource, PinnedMemoryResource,
    PinnedOptions,
};
use crate::stream::Stream;
use crate::timeline::CompletionPage;

use super::completion::Completion;
use super::plan::ByteRange;
use super::tables::Tables;

/// Device memory at addresses that never change.
#[derive(Debug, Default)]
pub(super) struct DeviceRegion {
    /// Absent where no slot has device memory of the set.
    resource: Option<Budgeted<DeviceMemoryResource>>,
    base: u64,
    /// The persistent tables in it.
    tables: Tables,
    /// The memory of the set that is viewed, with its tables.
    viewed: Option<Arc<Self>>,
}

impl DeviceRegion {
    /// Commits `size` bytes of zeros, which count against a budget under a name. `tables` are the
    /// sizes of the persistent tables in it.
    pub(super) fn new(
        context: &Context,
        size: usize,
        tables: impl IntoIterator<Item = usize>,
        budget: Option<(&Budget, &str)>,
    ) -> Result<Self, Error> {
        if size == 0 {
            return Ok(Self { resource: None, base: 0, tables: Tables::new(tables), viewed: None });
        }
        let resource = DeviceMemoryResource::new(context, size)?;
        let (budget, name) = budget.unzip();
        let resource = Budgeted::if_any(resource, budget, name.unwrap_or_default());
        let len = size.next_multiple_of(resource.granularity());
        // SAFETY: a new resource's first commit, within its span.
        unsafe { resource.commit(0, len) }?;
        let stream = Stream::new(context)?;
        // SAFETY: committed above, and not used by anything else yet.
        unsafe { stream.fill_d8(resource.base(), 0, len) }?;
        stream.synchronize()?;
        // Behind the device, which refuses what is too large.
        let tables: Vec<_> = tables.into_iter().collect();
        HostMemory::check(tables.iter().sum())?;
        let tables = Tables::new(tables);
        Ok(Self { base: resource.base(), resource: Some(resource), tables, viewed: None })
    }

    /// The persistent tables in it.
    pub(super) fn tables(&self) -> &Tables {
        self.viewed.as_ref().map_or(&self.tables, |viewed| viewed.tables())
    }

    /// Keeps the memory of the set that is viewed, if the set is a view.
    pub(super) fn share(&mut self, viewed: Option<Arc<Self>>) {
        self.viewed = viewed;
    }

    /// The bytes of its own.
    pub(super) fn size(&self) -> usize {
        self.resource.as_ref().map_or(0, |memory| memory.resource().report().committed)
    }

    #[inline]
    pub(super) fn address(&self) -> u64 {
        self.base
    }
}

/// Pinned memory for each ring slot, with a completion word and an event.
pub(super) struct HostRegion {
    /// Absent when it was leaked.
    resource: Option<Arc<PinnedMemoryResource>>,
    /// Where it starts, for the host.
    base: usize,
    /// Bytes from one ring slot to the next.
    stride: usize,
    /// A word for each ring slot, if the device can write it: 1 when the copy is done.
    /// Where the engine says it, the host sets it.
    page: Option<CompletionPage>,
    /// Whether the device writes the words.
    by_device: bool,
    /// Whether an event ends a ring slot's copies.
    pub(super) has_events: bool,
    /// Recorded behind each ring slot's copy.
    pub(super) events: Box<[Arc<Event>]>,
}

impl HostRegion {
    /// Commits `size` bytes for each of `depth` ring slots.
    pub(super) fn new(
        context: &Context,
        size: usize,
        depth: usize,
        completion: Completion,
    ) -> Result<Self, Error> {
        // A copy does not cross from one registration to the next, so no slot does.
        let (stride, options) = if size.saturating_mul(depth) <= PIECE {
            (size, PinnedOptions::default())
        } else {
            let stride = size.next_multiple_of(GRANULE);
            (stride, PinnedOptions::default().piece_limit(stride))
        };
        let resource = PinnedMemoryResource::new(context, stride * depth, options)?;
        let len = (stride * depth).next_multiple_of(resource.granularity());
        // SAFETY: a new resource's first commit, within its span.
        unsafe { resource.commit(0, len) }?;
        let first = host_pointer(resource.base());
        // SAFETY: committed above, and not used by anything else yet. Fresh pages are zeros
        // already, but not those of a driver that allocates itself.
        unsafe { ptr::write_bytes(first, 0, len) };
        wipe_in_children(first, len);
        let resource = Arc::new(resource);
        Self::with(context, resource, first.addr(), stride, (depth, completion))
    }

    /// Ring slots in the memory of another region, with words and events of this context.
    pub(super) fn sharing(
        context: &Context,
        other: &Self,
        completion: Completion,
    ) -> Result<Self, Error> {
        let missing = Error::Driver { call: "HostRegion::sharing", code: CudaError::INVALID_VALUE };
        let resource = other.resource.clone().ok_or(missing)?;
        Self::with(context, resource, other.base, other.stride, (other.events.len(), completion))
    }

    fn with(
        context: &Context,
        resource: Arc<PinnedMemoryResource>,
        base: usize,
        stride: usize,
        (depth, completion): (usize, Completion),
    ) -> Result<Self, Error> {
        let can_write = CompletionPage::is_supported(context)?
            && context.driver().api().graph_add_batch_mem_op_node.is_available();
        let by_device = can_write && completion.has_word();
        let by_host = completion == Completion::Neither;
        let has_events = !by_host && (completion != Completion::Word || !by_device);
        let has_page = by_device || by_host;
        let page = has_page.then(|| CompletionPage::new(context, depth)).transpose()?;
        let event = |_| Event::new(context, EventKind::Ordering).map(Arc::new);
        let events = (0..depth).map(event).collect::<Result<_, _>>()?;
        Ok(Self { base, resource: Some(resource), stride, page, by_device, has_events, events })
    }

    /// Whether the device has read what was submitted in a ring slot.
    #[inline]
    pub(super) fn is_done(&self, index: usize) -> Result<bool, Error> {
        match &self.page {
            Some(page) => Ok(page.load(index) != 0),
            None => self.events[index].query(),
        }
    }

    /// The completion word of a ring slot, where there is one.
    pub(super) fn completion(&self, index: usize) -> Option<SharedWord> {
        self.page.as_ref().map(|page| page.share(index))
    }

    /// Whether the device writes completion words.
    pub(super) fn has_words(&self) -> bool {
        self.by_device
    }

    /// Sets the word of a ring slot where the device does not.
    pub(super) fn set_read(&self, index: usize) {
        if let Some(page) = self.page.as_ref().filter(|_| !self.by_device) {
            page.reset(index, 1);
        }
    }

    /// Waits until the device is done with a ring slot that is in flight. Memory that was leaked is
    /// not waited for.
    pub(super) fn settle(&self, index: usize) -> Result<(), Error> {
        match self.events.get(index) {
            Some(event) if self.has_events && !self.is_done(index)? => event.synchronize(),
            _ => Ok(()),
        }
    }

    /// The address of the word of a ring slot, to be set to 1 by the device.
    pub(super) fn word(&self, index: usize) -> Option<u64> {
        let page = self.page.as_ref().filter(|_| self.by_device);
        page.map(|page| page.device_address(index))
    }

    /// Enqueues the completion of a ring slot on `stream`: the word and the event; the word alone
    /// where there is one and `only_word`.
    pub(super) fn mark(&self, index: usize, stream: &Stream, only_word: bool) -> Result<(), Error> {
        if let Some(page) = self.page.as_ref().filter(|_| self.by_device) {
            // SAFETY: the stream is the caller's, whose context was entered; the region is dropped
            // only after a wait for the event below, or for the ends of the streams.
            unsafe { page.write(index, 1, stream.as_raw()) }?;
            if only_word {
                return Ok(());
            }
        }
        if self.has_events { stream.record(&self.events[index]) } else { Ok(()) }
    }

    /// Marks a ring slot as read, by the word and by the event, although nothing read it.
    pub(super) fn mark_lost(&self, index: usize, context: &Context) -> Result<(), Error> {
        // Captured, the event would answer with an error; a stream of ours is not.
        Stream::new(context)?.record(&self.events[index])?;
        if let Some(page) = &self.page {
            page.reset(index, 1);
        }
        Ok(())
    }

    /// The memory of a ring slot.
    #[inline]
    pub(super) fn slot(&self, index: usize) -> SlotMemory {
        SlotMemory { start: self.base + index * self.stride }
    }

    /// Where the device finds a span of a ring slot.
    pub(super) fn device_address(&self, index: usize, span: ByteRange) -> Option<u64> {
        let resource = self.resource.as_ref()?;
        resource.device_address(index * self.stride + span.offset, span.size.max(1))
    }

    /// The bytes of pinned memory.
    pub(super) fn size(&self) -> usize {
        self.resource.as_ref().map_or(0, |resource| resource.report().registered)
    }

    /// Gives the memory back, unless it was leaked.
    pub(super) fn give_back(&mut self) {
        drop((self.resource.take(), self.page.take(), std::mem::take(&mut self.events)));
    }

    /// Leaks the memory, since the device may still use it.
    pub(super) fn leak(&mut self) {
        if let Some(page) = self.page.take() {
            page.leak();
        }
        #[expect(clippy::mem_forget, reason = "the device may use it: leak rather than dangle")]
        std::mem::forget((self.resource.take(), std::mem::take(&mut self.events)));
    }
}

/// Where the host finds a ring slot; good as long as its region.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotMemory {
    start: usize,
}

impl SlotMemory {
    /// Where a span starts.
    #[inline]
    pub(super) fn pointer(self, span: ByteRange) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.start + span.offset)
    }

    /// The first `len` elements of a span, for `Run::elements`.
    pub(super) fn run(self, span: ByteRange, len: usize) -> Run {
        Run { start: self.start + span.offset, len }
    }

    /// The first `len` elements of a span.
    ///
    /// # Safety
    ///
    /// * The region lives as long as `'a`.
    /// * They lie in the span, whose offset is a multiple of an element's alignment.
    /// * The ring slot is claimed, and the claim borrowed alone for `'a`.
    #[inline]
    pub(super) unsafe fn elements<'a, T: Element>(
        self,
        span: ByteRange,
        len: usize,
    ) -> &'a mut [T] {
        let is_aligned = (self.start + span.offset).is_multiple_of(align_of::<T>());
        debug_assert!(len * size_of::<T>() <= span.size && is_aligned);
        // SAFETY: committed memory of the span, initialised when it was made, and any bytes are
        // elements; alone, by the caller's promise.
        unsafe { slice::from_raw_parts_mut(self.pointer(span).cast(), len) }
    }

    /// The first `len` elements of a span, to be read.
    ///
    /// # Safety
    ///
    /// * The region lives as long as `'a`.
    /// * They lie in the span, whose offset is a multiple of 8.
    /// * The ring slot is held for `'a`, and the device is done with it.
    #[inline]
    pub(super) unsafe fn results<'a, T: Element>(self, span: ByteRange, len: usize) -> &'a [T] {
        debug_assert!(len * size_of::<T>() <= span.size && span.offset.is_multiple_of(8));
        // SAFETY: as above; nothing writes it, by the caller's promise.
        unsafe { slice::from_raw_parts(self.pointer(span).cast(), len) }
    }
}

/// Where the host finds a slot's elements, and how many a step has; good as long as the region.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    start: usize,
    len: usize,
}

impl Run {
    /// How many elements.
    pub(super) fn len(self) -> usize {
        self.len
    }

    /// The elements.
    ///
    /// # Safety
    ///
    /// As for [`SlotMemory::elements`], of whose span and length the run was made.
    #[inline]
    pub(super) unsafe fn elements<'a, T: Element>(self) -> &'a mut [T] {
        debug_assert!(self.start.is_multiple_of(align_of::<T>()));
        let start = ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: as in `SlotMemory::elements`.
        unsafe { slice::from_raw_parts_mut(start, self.len) }
    }
}

impl fmt::Debug for HostRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("HostRegion");
        out.field("stride", &self.stride).field("depth", &self.events.len()).finish_non_exhaustive()
    }
}

/// Lets a forked child have zeroed pages of its own in this range, where the system can, instead of
/// none: the child may hold a step of its parent's and write to it.
fn wipe_in_children(first: *mut u8, len: usize) {
    // SAFETY: committed memory, whose contents here do not change.
    if unsafe { libc::madvise(first.cast(), len, libc::MADV_WIPEONFORK) } == 0 {
        // SAFETY: as above.
        unsafe { libc::madvise(first.cast(), len, libc::MADV_DOFORK) };
    }
}

fn host_pointer(address: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut(to_usize(address))
}

/// The longest registration, in bytes.
const PIECE: usize = 256 << 20;
const GRANULE: usize = 2 << 20;
