//! NVTX: one domain, named ranges round slow paths, marks where something was given up.
//!
//! Names are registered statically, one a call site, so that a range costs no allocation.
//! Without a profiler to tell, every function here is empty and the guard is a zero-sized
//! value; the call sites have no conditions of their own.

use core::marker::PhantomData;

/// The name of a range or a mark, one `static` a call site.
#[derive(Debug)]
pub(crate) struct Name(&'static str);

impl Name {
    /// A name for `static`s; `text` is unique within the domain.
    pub(crate) const fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// What the profiler shows.
    pub(crate) fn text(&self) -> &'static str {
        self.0
    }
}

/// A named span of the calling thread's time, ended by drop.
///
/// Ranges of a thread nest, so this stays on its thread.
#[must_use = "a range ends when it is dropped"]
#[derive(Debug)]
pub(crate) struct Range {
    thread_bound: PhantomData<*const ()>,
}

impl Range {
    /// Begins a range.
    pub(crate) fn enter(name: &'static Name) -> Self {
        debug_assert!(!name.text().is_empty(), "a range needs a name");
        Self { thread_bound: PhantomData }
    }
}

/// Marks a moment on the calling thread.
pub(crate) fn mark(name: &'static Name) {
    debug_assert!(!name.text().is_empty(), "a mark needs a name");
}

/// Begins a [`Range`] with a literal name, registered once for this call site.
macro_rules! range {
    ($name:literal) => {{
        static NAME: $crate::profile::Name = $crate::profile::Name::new($name);
        $crate::profile::Range::enter(&NAME)
    }};
}
pub(crate) use range;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_range_costs_nothing_without_a_profiler() {
        assert_eq!(size_of::<Range>(), 0);
        let _range = range!("wharf::test");
        static MARK: Name = Name::new("wharf::test::mark");
        mark(&MARK);
    }
}
