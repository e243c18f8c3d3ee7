//! The names of a set's ranges in a profiler's view.

use core::ffi::CStr;
use core::fmt;

use super::plan::Bucket;
use crate::profile::Name;

/// A name for the steps of each bucket. Without the feature `nvtx` it takes no memory.
#[derive(Debug)]
pub(super) struct Names {
    buckets: Box<[Name]>,
    /// Of steps above the largest bucket.
    above: Name,
}

impl Names {
    /// `call` is the function whose ranges they name.
    pub(super) fn new(call: &'static CStr, set: &str, buckets: &[Bucket]) -> Self {
        let name = |size: &dyn fmt::Display| Name::of(call, format_args!("{set}, {size}"));
        let buckets = buckets.iter().map(|bucket| name(&bucket.counts.tokens)).collect();
        Self { buckets, above: name(&"no bucket") }
    }

    #[inline]
    pub(super) fn submit(&self, bucket: Option<&Bucket>) -> &Name {
        bucket.and_then(|bucket| self.buckets.get(bucket.index)).unwrap_or(&self.above)
    }
}
