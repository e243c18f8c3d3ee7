//! The unit in which resources of the host's memory commit.

use crate::error::Error;

/// Granularity of resources whose granularity the driver does not decide: the size of a huge
/// page on x86-64, and a multiple of every page size but the largest of aarch64.
pub(super) const GRANULARITY: usize = 2 << 20;

/// Spans of addresses begin at a multiple of this: pools may have granules larger than the
/// granularity, and blocks more aligned than a granule.
pub(super) const SPAN_ALIGNMENT: usize = 64 << 20;

/// The same for spans whose every byte is memory.
pub(super) const WHOLE_ALIGNMENT: usize = 4 << 20;

/// The error of a span whose tables there is no memory for.
pub(super) const NO_TABLE: Error = Error::System { call: "malloc", errno: libc::ENOMEM };

/// `size` in whole granules, at least one.
///
/// # Errors
///
/// [`Error::System`] as of `mmap`: no span can be so large.
pub(super) fn whole_granules(size: usize, granularity: usize) -> Result<usize, Error> {
    let rounded = size.max(1).checked_next_multiple_of(granularity);
    let fits = rounded.filter(|size| *size <= isize::MAX.unsigned_abs() - 2 * SPAN_ALIGNMENT);
    fits.ok_or(Error::System { call: "mmap", errno: libc::ENOMEM })
}
