//! NVTX: one domain, `wharf`, with ranges round slow paths and steps, marks where a drop failed,
//! and names for streams and threads.
//!
//! An engine calls [`name_thread`] and [`Stream::set_name`](crate::Stream::set_name); the rest
//! comes by itself with the feature `nvtx`.
//!
//! ```text
//! range!("memory::pinned::commit", len)
//!         │                        └── payload, in bytes
//!         └── category; the name is registered once for its call site, when a tool is attached
//! ```
//!
//! Two names have the object in them, so that a profiler's table has a line for each:
//!
//! * `pool::alloc(POOL)`: an allocation that the stream's own blocks could not serve, by
//!   [`PoolBuilder::name`](crate::pool::PoolBuilder::name); its payload is the requested size, in
//!   bytes
//! * `staging::submit(SET, TOKENS)`: a step, by
//!   [`InputBuffersBuilder::name`](crate::staging::InputBuffersBuilder::name) and the tokens of its
//!   bucket; its payload is the bytes that it copies
//!
//! A tool attaches when the process makes its first NVTX call, or never. That is asked once.
//! Without the feature `nvtx` every function here is empty and the guard is a zero-sized value; the
//! call sites have no conditions of their own. No range goes round a single allocation or free.
//!
//! # Memory checkers
//!
//! compute-sanitizer sees a pool's memory as one allocation, of which it finds neither accesses to
//! free blocks nor blocks that are never freed. Where the tool that `NVTX_INJECTION64_PATH` names
//! takes NVTX's extension for memory, it is told:
//!
//! | of device and managed memory | is |
//! |---|---|
//! | each piece that a pool commits | a heap: nothing of it may be touched but its regions |
//! | each block of a [`SlabPool`] until its free | a region, `wharf device block of 4096 bytes` |
//! | each block of a [`Pool`], until the slabs have it back | the same |
//!
//! Regions are whole blocks: what a size class adds to the size asked for counts as in bounds.
//! It is decided when a pool is made. One that is reported keeps no blocks in caches of threads, so
//! that every free is reported; others do nothing for this when they allocate and free.
//! Layouts and numbers are those of NVIDIA's headers; compute-sanitizer has not been run with them
//! yet.
//!
//! [`SlabPool`]: crate::slab::SlabPool
//! [`Pool`]: crate::pool::Pool
//!
//! # References
//!
//! [NVTX](https://nvidia.github.io/NVTX/), [NVTX for
//! compute-sanitizer](https://docs.nvidia.com/compute-sanitizer/SanitizerNvtxGuide/index.html)

#[cfg_attr(all(feature = "nvtx", not(loom)), path = "nvtx.rs")]
#[cfg_attr(not(all(feature = "nvtx", not(loom))), path = "none.rs")]
mod tool;

#[cfg(all(feature = "nvtx", not(loom)))]
mod extension;
#[cfg(all(feature = "nvtx", not(loom)))]
mod memory;

#[cfg(all(feature = "nvtx", not(loom)))]
pub(crate) use self::memory::Heaps;
#[cfg(not(all(feature = "nvtx", not(loom))))]
pub(crate) use self::tool::Heaps;

use core::ffi::CStr;
use core::fmt;
use core::marker::PhantomData;
use std::ffi::CString;

/// Whether a profiler reads what wharf tells it. Always false without the feature `nvtx`.
///
/// # Examples
///
/// ```
/// if !wharf::profile::is_attached() {
///     println!("for ranges, run this under `nsys profile --trace=nvtx`");
/// }
/// ```
pub fn is_attached() -> bool {
    tool::is_attached()
}

/// Names the calling thread in the profiler's view. Does nothing without one.
///
/// # Examples
///
/// ```
/// wharf::profile::name_thread("staging");
/// ```
pub fn name_thread(name: &str) {
    if is_attached() {
        tool::name_thread(&terminated(name));
    }
}

/// Names a stream in the profiler's view.
pub(crate) fn name_stream(raw: wharf_sys::bindings::CUstream, name: &str) {
    if is_attached() {
        tool::name_stream(raw, &terminated(name));
    }
}

/// The name of a range or a mark: a `static` of the call site, or a part of the object that it
/// names.
#[derive(Debug)]
pub(crate) struct Name(tool::Registered);

impl Name {
    /// Makes a name for `static`s. `text` is unique within the domain; its first part says what
    /// category it is of.
    pub(crate) const fn new(text: &'static CStr) -> Self {
        Self(tool::Registered::new(text, Category::of(text)))
    }

    /// Makes the name `OPERATION(OBJECT)` for the ranges of one object.
    pub(crate) fn of(operation: &'static CStr, object: impl fmt::Display) -> Self {
        Self(tool::Registered::of(operation, Category::of(operation), object))
    }
}

/// The category of a range, by which a profiler can filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    Driver = 1,
    Memory,
    Staging,
    Graph,
    Tier,
}

impl Category {
    const fn of(text: &CStr) -> Self {
        let text = text.to_bytes();
        if starts(text, b"memory") || starts(text, b"slab") || starts(text, b"pool") {
            Self::Memory
        } else if starts(text, b"staging") {
            Self::Staging
        } else if starts(text, b"graph") {
            Self::Graph
        } else if starts(text, b"tier") {
            Self::Tier
        } else {
            Self::Driver
        }
    }
}

/// A named span of the calling thread's time, ended by drop.
///
/// Ranges of a thread nest, so this stays on its thread.
#[must_use = "a range ends when it is dropped"]
#[derive(Debug)]
pub(crate) struct Range {
    _open: tool::Open,
    thread_bound: PhantomData<*const ()>,
}

impl Range {
    /// Begins a range; `bytes` is what it moves or obtains.
    pub(crate) fn enter(name: &Name, bytes: Option<usize>) -> Self {
        Self { _open: tool::Open::new(&name.0, bytes), thread_bound: PhantomData }
    }
}

/// Marks a moment on the calling thread.
pub(crate) fn mark(name: &'static Name) {
    tool::mark(&name.0);
}

/// Begins a [`Range`] with a literal name, registered once for this call site, and a number of
/// bytes if it has one.
macro_rules! range {
    ($name:literal) => {
        $crate::profile::range!(@ $name, None)
    };
    ($name:literal, $bytes:expr) => {
        $crate::profile::range!(@ $name, Some($bytes))
    };
    (@ $name:literal, $bytes:expr) => {{
        static NAME: $crate::profile::Name =
            $crate::profile::Name::new($crate::profile::literal(concat!($name, "\0")));
        $crate::profile::Range::enter(&NAME, $bytes)
    }};
}
pub(crate) use range;

/// The C string in `text`, which ends in zero.
pub(crate) const fn literal(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_until_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    }
}

const fn starts(text: &[u8], start: &[u8]) -> bool {
    match text.split_at_checked(start.len()) {
        Some((mut head, _)) => {
            let mut start = start;
            while let ([a, rest @ ..], [b, others @ ..]) = (head, start) {
                if *a != *b {
                    return false;
                }
                (head, start) = (rest, others);
            }
            true
        }
        None => false,
    }
}

/// `name` for C, up to its first zero.
fn terminated(name: &str) -> CString {
    let name = name.split('\0').next().unwrap_or_default();
    CString::new(name).unwrap_or_default()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(feature = "nvtx"))]
    fn a_range_costs_nothing_without_a_profiler() {
        assert_eq!(size_of::<Range>(), 0);
        assert_eq!(size_of_val(&range!("test", 7)), 0);
        assert!(!is_attached());
    }

    #[test]
    fn the_name_says_the_category() {
        for (text, category) in [
            (c"memory::pinned", Category::Memory),
            (c"pool::drain", Category::Memory),
            (c"slab::grow", Category::Memory),
            (c"staging::submit", Category::Staging),
            (c"graph::instantiate", Category::Graph),
            (c"tier::promote", Category::Tier),
            (c"driver::load", Category::Driver),
            (c"wharf", Category::Driver),
        ] {
            assert_eq!(Category::of(text), category, "{text:?}");
        }
    }

    #[test]
    fn a_name_ends_at_its_first_zero() {
        assert_eq!(terminated("a\0b").as_c_str(), c"a");
        assert_eq!(literal("a\0"), c"a");
    }
}
