#![expect(unsafe_code, reason = "loads a memory checker, calls it")]
//! A memory checker, told through NVTX's extension for memory: what the pools have committed are
//! heaps, of which nothing may be touched but its regions, and their blocks are the regions.
//!
//! ```text
//! commit of a run ──> heap      a block leaves its slab  ──> region, named after memory and size
//! decommit        ──> none      it comes back            ──> none
//! ```
//!
//! The crate nvtx does not have the extension, so this is its client: it loads the library that
//! `NVTX_INJECTION64_PATH` names, as NVTX does, and gives it a table to fill with its functions.
//! That is done when the first pool of a device's memory is made, so a context exists:
//! compute-sanitizer takes no calls before.
//!
//! Its documentation for users is in [`profile`](super).
//!
//! # References
//!
//! The layouts and numbers are those of `nvToolsExtMem.h`, `nvtxDetail/nvtxExtTypes.h` and
//! `nvtxExtInit.h` in [NVTX](https://github.com/NVIDIA/NVTX), as of its first release with the
//! extension and of the crate nvtx 2; what a checker makes of them is in the [guide of
//! compute-sanitizer](https://docs.nvidia.com/compute-sanitizer/SanitizerNvtxGuide/index.html).

use crate::address::to_usize;
use core::ffi::{c_int, c_void};
use core::ptr;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use ::nvtx::sys::ffi::nvtxDomainHandle_t;

use super::Category;
use super::extension::{
    ASCII, BY_POINTER, COMPAT, DISABLED, HeapDesc, MEMORY, Module, NameBatch, NameDesc,
    RegisterBatch, SLOTS, SUB_ALLOCATOR, Segment, UnregisterBatch, VERSION, VIRTUAL_ADDRESS,
    VirtualRange,
};
use super::tool::domain;
use crate::sync::{Mutex, MutexGuard, OnceLock};

/// The checker, where there is one.
static CHECKER: OnceLock<Option<Checker>> = OnceLock::new();

/// A checker's view of one pool's memory; nothing where no checker is attached.
#[derive(Debug)]
pub(crate) struct Heaps(Option<Box<Told>>);

#[derive(Debug)]
struct Told {
    checker: Checker,
    /// The memory's kind, for names.
    kind: &'static str,
    /// The heaps by the address of their first byte.
    heaps: Mutex<BTreeMap<u64, Heap>>,
}

impl Heaps {
    /// For a pool of memory of a `kind`, if a checker listens; with one, a context exists. `None`
    /// for memory that checkers do not watch.
    pub(crate) fn new(kind: Option<&'static str>) -> Self {
        let told =
            |kind| Some(Box::new(Told { checker: Checker::get()?, kind, heaps: Mutex::default() }));
        Self(kind.and_then(told))
    }

    /// Whether a checker hears of the pool.
    #[inline]
    pub(crate) fn are_told(&self) -> bool {
        self.0.is_some()
    }

    /// A run of memory was committed.
    pub(crate) fn commit(&self, address: u64, size: usize) {
        if let Some(told) = &self.0 {
            told.heaps().insert(address, told.checker.register_heap(told.kind, address, size));
        }
    }

    /// The run at an address is about to be decommitted.
    pub(crate) fn decommit(&self, address: u64) {
        if let Some(told) = &self.0
            && let Some(heap) = told.heaps().remove(&address)
        {
            told.checker.unregister_heap(heap);
        }
    }

    /// A block has left its slab.
    #[inline]
    pub(crate) fn take(&self, address: u64, size: usize) {
        if let Some(told) = &self.0 {
            told.take(address, size);
        }
    }

    /// A block is about to come back to its slab.
    #[inline]
    pub(crate) fn give(&self, address: u64) {
        if let Some(told) = &self.0 {
            told.checker.unregister_region(address);
        }
    }
}

impl Told {
    fn heaps(&self) -> MutexGuard<'_, BTreeMap<u64, Heap>> {
        self.heaps.lock()
    }

    #[cold]
    fn take(&self, address: u64, size: usize) {
        let heap = self.heaps().range(..=address).next_back().map(|(_, heap)| *heap);
        if let Some(heap) = heap {
            self.checker.register_region(heap, address, size);
            self.checker
                .name_region(address, &format!("wharf {} block of {size} bytes", self.kind));
        }
    }
}

/// A checker's handle of a heap.
#[derive(Clone, Copy, Debug)]
struct Heap(*mut c_void);

// SAFETY: the handle is a token of the checker, which takes it on any thread.
unsafe impl Send for Heap {}

/// A checker's functions, and the domain that they are called in.
#[derive(Clone, Copy, Debug)]
struct Checker {
    /// Null where the tool has no ranges: the default domain.
    domain: nvtxDomainHandle_t,
    register_heap: RegisterHeap,
    unregister_heap: UnregisterHeap,
    register_regions: RegisterRegions,
    unregister_regions: UnregisterRegions,
    /// Not every checker takes names.
    name_regions: Option<NameRegions>,
}

// SAFETY: the domain is a token of the tool, and the functions may be called on any thread.
unsafe impl Send for Checker {}
// SAFETY: as above.
unsafe impl Sync for Checker {}

impl Checker {
    fn get() -> Option<Self> {
        *CHECKER.get_or_init(Self::attach)
    }

    /// Loads the library that the environment names, and asks it for its functions.
    #[cold]
    fn attach() -> Option<Self> {
        let path = CString::new(std::env::var_os("NVTX_INJECTION64_PATH")?.as_bytes()).ok()?;
        // The tool attaches to NVTX itself first, as with NVTX's own client.
        let domain = domain();
        // SAFETY: `path` is a C string. The user names the library in the variable, and NVTX
        // loads it too.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY) };
        if library.is_null() {
            return None;
        }
        // SAFETY: the library is open, and stays so; the name is a C string.
        let address = unsafe { libc::dlsym(library, c"InitializeInjectionNvtxExtension".as_ptr()) };
        // SAFETY: null, or NVTX's function of this name, whose type this is.
        let initialize =
            unsafe { core::mem::transmute::<*mut c_void, Option<Initialize>>(address) }?;
        let slots = slots_of(initialize)?;
        let slot = |number: usize| (slots[number] > DISABLED).then_some(slots[number]);
        // SAFETY: what the tool puts into this slot is its function of this number, or nothing. So
        // below.
        let register_heap = unsafe { core::mem::transmute::<isize, RegisterHeap>(slot(0)?) };
        // SAFETY: as above.
        let unregister_heap = unsafe { core::mem::transmute::<isize, UnregisterHeap>(slot(1)?) };
        // SAFETY: as above.
        let register_regions = unsafe { core::mem::transmute::<isize, RegisterRegions>(slot(3)?) };
        // SAFETY: as above.
        let unregister_regions =
            unsafe { core::mem::transmute::<isize, UnregisterRegions>(slot(5)?) };
        // SAFETY: as above.
        let name = |slot| unsafe { core::mem::transmute::<isize, NameRegions>(slot) };
        let name_regions = slot(6).map(name);
        Some(Self {
            domain,
            register_heap,
            unregister_heap,
            register_regions,
            unregister_regions,
            name_regions,
        })
    }

    fn register_heap(&self, kind: &str, address: u64, size: usize) -> Heap {
        // A sub-allocator's heap: no byte is accessible before a region covers it.
        let range = VirtualRange { size, start: pointer(address) };
        let name = CString::new(format!("wharf {kind} memory")).unwrap_or_default();
        let heap = HeapDesc {
            compat: COMPAT,
            size: size_of_u16::<HeapDesc>(),
            reserved: 0,
            usage: SUB_ALLOCATOR,
            memory: VIRTUAL_ADDRESS,
            range_size: size_of::<VirtualRange>(),
            range: &raw const range,
            category: Category::Memory as u32,
            message_type: ASCII,
            message: name.as_ptr(),
        };
        // SAFETY: the checker reads the descriptions before it returns.
        Heap(unsafe { (self.register_heap)(self.domain, &raw const heap) })
    }

    fn unregister_heap(&self, heap: Heap) {
        // SAFETY: the checker made the handle, and this is its last use.
        unsafe { (self.unregister_heap)(self.domain, heap.0) };
    }

    fn register_region(&self, heap: Heap, address: u64, size: usize) {
        let range = VirtualRange { size, start: pointer(address) };
        let regions = RegisterBatch {
            compat: COMPAT,
            size: size_of_u16::<RegisterBatch>(),
            memory: VIRTUAL_ADDRESS,
            heap: heap.0,
            count: 1,
            element: size_of::<VirtualRange>(),
            elements: &raw const range,
            handles: ptr::null_mut(),
        };
        // SAFETY: the checker reads the descriptions before it returns.
        unsafe { (self.register_regions)(self.domain, &raw const regions) };
    }

    fn unregister_region(&self, address: u64) {
        let region = pointer(address);
        let regions = UnregisterBatch {
            compat: COMPAT,
            size: size_of_u16::<UnregisterBatch>(),
            reference: BY_POINTER,
            count: 1,
            element: size_of::<*const c_void>(),
            elements: &raw const region,
        };
        // SAFETY: the checker reads the description before it returns.
        unsafe { (self.unregister_regions)(self.domain, &raw const regions) };
    }

    /// Names a region; compute-sanitizer takes 1 to 49 printable characters.
    fn name_region(&self, address: u64, name: &str) {
        let (Some(function), Ok(name)) = (self.name_regions, CString::new(name)) else { return };
        let region = NameDesc {
            reference: BY_POINTER,
            name_type: ASCII,
            region: pointer(address),
            name: name.as_ptr(),
            category: Category::Memory as u32,
            reserved: 0,
        };
        // Without a name the checker reports the region's address alone.
        let regions = NameBatch {
            compat: COMPAT,
            size: size_of_u16::<NameBatch>(),
            reserved: 0,
            count: 1,
            element: size_of::<NameDesc>(),
            elements: &raw const region,
            more: 0,
        };
        // SAFETY: the checker reads the descriptions before it returns.
        unsafe { function(self.domain, &raw const regions) };
    }
}

/// The table that a tool has filled, for good; `None` if it does not take the memory extension.
fn slots_of(initialize: Initialize) -> Option<&'static [isize; SLOTS]> {
    let slots = Box::leak(Box::new([0_isize; SLOTS]));
    let mut segment = Segment { id: 1, count: SLOTS, slots: slots.as_mut_ptr() };
    let mut module = Module {
        version: VERSION,
        size: size_of_u16::<Module>(),
        id: MEMORY,
        compat: COMPAT,
        segments: 1,
        segment: &raw mut segment,
        export: ptr::null(),
        info: ptr::null(),
    };
    // SAFETY: the function is NVTX's, for which this is the description of the module; the slots
    // live for ever.
    let accepted = unsafe { initialize(&raw mut module) };
    (accepted != 0).then_some(slots)
}

fn pointer(address: u64) -> *const c_void {
    // Linux on 64-bit machines only: an address fits. The checker does not go through it.
    ptr::without_provenance(to_usize(address))
}

const fn size_of_u16<T>() -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "the assertions below have the sizes")]
    let size = size_of::<T>() as u16;
    size
}

type Initialize = unsafe extern "C" fn(*mut Module) -> c_int;
type RegisterHeap = unsafe extern "C" fn(nvtxDomainHandle_t, *const HeapDesc) -> *mut c_void;
type UnregisterHeap = unsafe extern "C" fn(nvtxDomainHandle_t, *mut c_void);
type RegisterRegions = unsafe extern "C" fn(nvtxDomainHandle_t, *const RegisterBatch);
type UnregisterRegions = unsafe extern "C" fn(nvtxDomainHandle_t, *const UnregisterBatch);
type NameRegions = unsafe extern "C" fn(nvtxDomainHandle_t, *const NameBatch);
