//! What the resources have in common: a span that commits pieces, and the methods that follow.

use std::fmt::Debug;

use super::owner::Owner;
use super::report::{Backing, ResourceReport};
use crate::error::Error;

/// One way to reserve addresses and to commit pieces of them.
///
/// The ranges are as in [`MemoryResource`](super::MemoryResource), and so are its promises; but a
/// range that overlaps or was not committed is refused instead of being forbidden.
pub(super) trait Span: Debug + Send + Sync {
    fn owner(&self) -> &Owner;
    fn base(&self) -> u64;
    fn size(&self) -> usize;
    fn granularity(&self) -> usize;
    fn backing(&self) -> Backing;

    /// The NUMA node that pages are asked from.
    fn node(&self) -> Option<u32> {
        None
    }

    /// Where the device sees a range that is committed.
    fn device_address(&self, offset: usize, len: usize) -> Option<u64>;

    fn commit(&self, offset: usize, len: usize) -> Result<(), Error>;
    fn decommit(&self, offset: usize, len: usize) -> Result<(), Error>;

    /// Gives everything back, at most once; the drop does so too. After an error, what the device
    /// may still use is leaked.
    fn release(&mut self) -> Result<(), Error>;

    fn report(&self) -> ResourceReport {
        self.owner().tally.report(self.backing(), self.node())
    }
}

/// Makes a struct with a field `span: Box<dyn Span>` a memory resource.
macro_rules! resource_of_span {
    ($name:ident, $kind:ident, $commit:literal, $decommit:literal) => {
        impl $name {
            /// Where the device sees `len` bytes from `offset` of the span on.
            ///
            /// `None` if not all of them are committed and within the device's reach, or if they lie
            /// in pieces that do not follow each other in the device's addresses.
            #[doc(alias = "cuMemHostGetDevicePointer")]
            pub fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
                self.span.device_address(offset, len)
            }

            /// What was obtained so far, and what it cost.
            pub fn report(&self) -> $crate::memory::ResourceReport {
                self.span.report()
            }

            /// The context that the memory belongs to.
            pub fn context(&self) -> &$crate::driver::Context {
                self.span.owner().context()
            }

            /// Gives everything back.
            ///
            /// # Errors
            ///
            /// What the driver said; what the device may still use is leaked then.
            pub fn close(mut self) -> Result<(), $crate::error::Error> {
                self.span.release()
            }
        }

        // SAFETY: a `Span` keeps its addresses until the drop, base and size are multiples of the
        // granularity, a commit that fails is undone, and what overlaps is refused.
        unsafe impl $crate::memory::MemoryResource for $name {
            fn base(&self) -> u64 {
                self.span.base()
            }

            fn size(&self) -> usize {
                self.span.size()
            }

            fn granularity(&self) -> usize {
                self.span.granularity()
            }

            fn kind(&self) -> $crate::memory::MemoryKind {
                $crate::memory::MemoryKind::$kind
            }

            fn ordinal(&self) -> Option<i32> {
                Some(self.span.owner().ordinal())
            }

            fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
                self.span.device_address(offset, len)
            }

            unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), $crate::error::Error> {
                let _range = $crate::profile::range!($commit, len);
                self.span.commit(offset, len)
            }

            unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), $crate::error::Error> {
                let _range = $crate::profile::range!($decommit, len);
                self.span.decommit(offset, len)
            }
        }
    };
}
pub(super) use resource_of_span;
