//! No profiler: nothing to tell, nothing to keep.

use core::ffi::CStr;
use core::fmt;

use wharf_sys::bindings::CUstream;

use super::Category;

/// A name as a tool knows it: nothing.
#[derive(Debug)]
pub(super) struct Registered;

impl Registered {
    pub(super) const fn new(_text: &'static CStr, _category: Category) -> Self {
        Self
    }

    pub(super) fn of(
        _operation: &'static CStr,
        _category: Category,
        _object: impl fmt::Display,
    ) -> Self {
        Self
    }
}

/// A range that is open.
#[derive(Debug)]
pub(super) struct Open;

impl Open {
    pub(super) fn new(_name: &Registered, _bytes: Option<usize>) -> Self {
        Self
    }
}

pub(super) fn is_attached() -> bool {
    false
}

pub(super) fn mark(_name: &'static Registered) {}

pub(super) fn name_thread(_name: &CStr) {}

pub(super) fn name_stream(_raw: CUstream, _name: &CStr) {}

/// A memory checker's view of one pool's memory: nothing.
#[derive(Debug)]
pub(crate) struct Heaps;

impl Heaps {
    pub(crate) fn new(_kind: Option<&'static str>) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn are_told(&self) -> bool {
        false
    }

    pub(crate) fn commit(&self, _address: u64, _size: usize) {}

    pub(crate) fn decommit(&self, _address: u64) {}

    #[inline]
    pub(crate) fn take(&self, _address: u64, _size: usize) {}

    #[inline]
    pub(crate) fn give(&self, _address: u64) {}
}
