#![expect(unsafe_code, reason = "shares addresses of functions")]
//! Name and version to address: what `cuGetProcAddress` answers.

use core::ffi::c_void;
use core::ptr;

use wharf_sys::signature::{name, version};
use wharf_sys::{Api, LoadError, Row};

/// An exported entry point.
#[derive(Debug)]
pub(crate) struct Symbol {
    pub(crate) name: &'static str,
    /// The CUDA version whose signature this has.
    pub(crate) version: u32,
    address: *const (),
    /// The variant that takes the per-thread default stream for a null stream.
    per_thread: *const (),
}

// SAFETY: the addresses are of functions, which every thread may call.
unsafe impl Sync for Symbol {}

impl Symbol {
    pub(crate) const fn new(pfn: &'static str, address: *const ()) -> Self {
        Self { name: name(pfn), version: version(pfn), address, per_thread: ptr::null() }
    }

    pub(crate) const fn with_per_thread(self, per_thread: *const ()) -> Self {
        Self { per_thread, ..self }
    }

    /// The function; with `per_thread`, its variant for the per-thread default stream where
    /// there is one.
    pub(crate) fn address(&self, per_thread: bool) -> *mut c_void {
        let address =
            if per_thread && !self.per_thread.is_null() { self.per_thread } else { self.address };
        address.cast_mut().cast()
    }
}

/// The result of a search for a name and a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The newest signature that is not newer than asked.
    At(*mut c_void),
    /// The name exists, and came with a later version.
    TooNew,
    Unknown,
}

/// Finds the newest signature of `name` that CUDA `version` has.
pub(crate) fn find(name: &str, version: u32, per_thread: bool) -> Found {
    // Since CUDA 12 the header's plain name stands for the form with flags.
    let name = if name == "cuGraphInstantiate" && version >= 12_000 {
        "cuGraphInstantiateWithFlags"
    } else {
        name
    };
    let mut newest: Option<&Symbol> = None;
    let mut known = false;
    for symbol in tables().flatten().filter(|symbol| symbol.name == name) {
        known = true;
        if symbol.version <= version && newest.is_none_or(|other| other.version < symbol.version) {
            newest = Some(symbol);
        }
    }
    match newest {
        Some(symbol) => Found::At(symbol.address(per_thread)),
        None if known => Found::TooNew,
        None => Found::Unknown,
    }
}

/// Whether there is a call of this name, in any version.
pub(crate) fn knows(name: &str) -> bool {
    tables().flatten().any(|symbol| symbol.name == name)
}

/// The address of exactly this signature, or null.
pub(crate) fn exactly(name: &str, version: u32) -> *mut c_void {
    tables()
        .flatten()
        .find(|symbol| symbol.name == name && symbol.version == version)
        .map_or(ptr::null_mut(), |symbol| symbol.address(false))
}

/// The table of the entry points that CUDA `version` has.
pub(crate) fn api(version: u32) -> Result<Api, LoadError> {
    let find = |row: &Row| {
        if row.version > version { ptr::null_mut() } else { exactly(row.name, row.version) }
    };
    // SAFETY: the functions have the signatures of NVIDIA's header, which `exports!` checks, and
    // live for ever.
    unsafe { Api::from_fns(find) }
}

macro_rules! families {
    ($($family:ident)+) => {
        /// The lists of all files.
        fn tables() -> impl Iterator<Item = &'static [Symbol]> {
            [$(super::$family::SYMBOLS,)+].into_iter()
        }

        /// Every entry point, for the test of bad input.
        #[cfg(test)]
        pub(crate) fn probes() -> impl Iterator<Item = &'static super::bad_input::Probe> {
            [$(super::$family::PROBES,)+].into_iter().flatten()
        }
    };
}

families! {
    init
    device
    primary
    context
    context_settings
    memory
    copy
    copy_3d
    copy_batch
    array
    memset
    stream
    event
    memop
    profiler
    vmm
    shareable
    alloc_async
    pool
    managed
    managed_batch
    pointer
    module
    library
    function
    launch
    link
    ipc
    stream_attribute
    context_event
    tool
    capture
    graph
    graph_edges
    graph_event
    graph_node
    graph_exec
    graph_update
    graph_kernel
    graph_memory
    graph_any
    user_object
    absent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_signature_not_newer_than_asked_is_found() {
        assert!(matches!(find("cuInit", 13_000, false), Found::At(_)));
        assert_eq!(find("cuInit", 1000, false), Found::TooNew);
        assert_eq!(find("cuNoSuchCall", 13_000, false), Found::Unknown);
    }
}
