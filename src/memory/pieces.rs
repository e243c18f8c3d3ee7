//! Ranges of a span, cut where the driver's copies have to end.

use std::iter::FusedIterator;
use std::ops::Range;

use super::MemoryResource;
use crate::stream::parts;

/// The pieces of a range, as ranges of offsets into the span; see [`MemoryResource::pieces`].
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions};
///
/// let options = PinnedOptions::default().piece_limit(2 << 20);
/// let resource = PinnedMemoryResource::new(&context, 8 << 20, options)?;
/// // SAFETY: the range is not committed, and nothing else uses this resource.
/// unsafe { resource.commit(0, 8 << 20) }?;
/// // One copy each.
/// let pieces: Vec<_> = resource.pieces(1 << 20, 4 << 20).collect();
/// assert_eq!(pieces, [1 << 20..2 << 20, 2 << 20..4 << 20, 4 << 20..5 << 20]);
/// assert!(resource.device_address(1 << 20, 4 << 20).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pieces<'a, R: ?Sized> {
    pub(super) resource: &'a R,
    pub(super) left: Range<usize>,
}

impl<R: MemoryResource + ?Sized> Iterator for Pieces<'_, R> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let Range { start, .. } = self.left;
        let piece =
            parts(self.left.len(), |_, left| self.resource.piece_len(start, left)).next()?;
        self.left.start += piece.len();
        Some(start..self.left.start)
    }
}

impl<R: MemoryResource + ?Sized> FusedIterator for Pieces<'_, R> {}

/// Where the device sees a range, in one piece or in pieces that follow each other in its
/// addresses.
pub(crate) fn joined_device_address<R: MemoryResource + ?Sized>(
    resource: &R,
    offset: usize,
    len: usize,
) -> Option<u64> {
    let mut pieces = Pieces { resource, left: offset..offset.saturating_add(len.max(1)) };
    let first = pieces.next()?;
    let address = resource.device_address(offset, first.len().min(len))?;
    let follows = |piece: Range<usize>| {
        let seen = resource.device_address(piece.start, piece.len());
        seen == address.checked_add((piece.start - offset) as u64)
    };
    pieces.all(follows).then_some(address)
}
