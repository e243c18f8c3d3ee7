//! A stack of indices whose links lie with what they number.
//!
//! [Treiber's stack](https://dominoweb.draco.res.ibm.com/58319a2ed2b1078985257003004617ef.html),
//! with a tag beside the head that changes with every operation: a head that went and came back is
//! another head.
//!
//! ```text
//!   head:  tag (31) | closed (1) | index (32)          links[index]: the index below, or NONE
//! ```
//!
//! * `head`: written by `push`, `pop`, `take_all`, `close` (CAS); read by the same. The
//!   `Release` of a push pairs with the `Acquire` of the load in `pop` and `take_all`: a thread
//!   that gets an index sees all that was done with it. The indices below were pushed before, by
//!   a chain of read-modify-writes of `head`, which keeps each push visible.
//! * `links[i]`: written by the thread that pushes `i`, and owns it; read by
//!   `pop`. Relaxed: read before the CAS that finds the tag changed if it was not `i`'s any more.

use crate::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// A stack, of which the links are elsewhere: the same for every call.
#[derive(Debug)]
pub(crate) struct IndexStack(AtomicU64);

/// The end of a chain.
pub(crate) const NONE: u32 = u32::MAX;

impl IndexStack {
    /// An empty stack.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(NONE.into()))
    }

    /// Puts `index`, which the caller owns, on top.
    pub(crate) fn push<'a>(&self, index: u32, links: impl Fn(u32) -> &'a AtomicU32) {
        self.push_chain(index, index, links);
    }

    /// Puts a chain that the caller owns on top, linked from `first` down to `last`.
    pub(crate) fn push_chain<'a>(
        &self,
        first: u32,
        last: u32,
        links: impl Fn(u32) -> &'a AtomicU32,
    ) {
        let mut seen = self.0.load(Relaxed);
        loop {
            links(last).store(top(seen), Relaxed);
            // Release: pairs with the Acquire of `pop` and `take_all`.
            match self.0.compare_exchange_weak(seen, next(seen, first), Release, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Puts `index`, which the caller owns, on top of a stack that is not closed. Returns whether
    /// it did: what the caller gave with it is another's then.
    #[inline]
    pub(crate) fn push_open(&self, index: u32, link: &AtomicU32) -> bool {
        let mut seen = self.0.load(Relaxed);
        while seen & CLOSED == 0 {
            link.store(top(seen), Relaxed);
            // Release: pairs with the Acquire of `pop`, `take_all` and `close`.
            match self.0.compare_exchange_weak(seen, next(seen, index), Release, Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Closes the stack for `push_open`, for ever, and takes everything: the top of a chain that is
    /// the caller's then.
    pub(crate) fn close(&self) -> Option<u32> {
        let mut seen = self.0.load(Relaxed);
        loop {
            // Acquire: pairs with the Release of `push_open`, which comes before this or finds the
            // stack closed.
            match self.0.compare_exchange_weak(seen, next(seen, NONE) | CLOSED, Acquire, Relaxed) {
                Ok(_) => return Some(top(seen)).filter(|index| *index != NONE),
                Err(now) => seen = now,
            }
        }
    }

    /// Takes the index on top; it is the caller's then.
    pub(crate) fn pop<'a>(&self, links: impl Fn(u32) -> &'a AtomicU32) -> Option<u32> {
        self.pop_found(|index| Some((links(index), ()))).map(|(index, ())| index)
    }

    /// As [`pop`](Self::pop), with what `find` has found beside the link of the index; nothing if
    /// it has not.
    #[inline]
    pub(crate) fn pop_found<'a, T>(
        &self,
        find: impl Fn(u32) -> Option<(&'a AtomicU32, T)>,
    ) -> Option<(u32, T)> {
        // Acquire: pairs with the Release of a push.
        let mut seen = self.0.load(Acquire);
        loop {
            let index = top(seen);
            if index == NONE {
                return None;
            }
            let (link, found) = find(index)?;
            let below = link.load(Relaxed);
            match self.0.compare_exchange_weak(seen, next(seen, below), Acquire, Acquire) {
                Ok(_) => return Some((index, found)),
                Err(now) => seen = now,
            }
        }
    }

    /// Takes everything: the top of a chain that is the caller's then.
    pub(crate) fn take_all(&self) -> Option<u32> {
        let mut seen = self.0.load(Relaxed);
        while top(seen) != NONE {
            // Acquire: pairs with the Release of a push.
            match self.0.compare_exchange_weak(seen, next(seen, NONE), Acquire, Relaxed) {
                Ok(_) => return Some(top(seen)),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Shows `take` every index, from the top, and keeps those for which it is `false` in their
    /// order. Those for which it is `true` are in other hands from then on.
    ///
    /// Meanwhile others find the stack empty, or with what was pushed since.
    pub(crate) fn sort<'a>(
        &self,
        links: impl Fn(u32) -> &'a AtomicU32,
        mut take: impl FnMut(u32) -> bool,
    ) {
        let mut rest: Option<(u32, u32)> = None;
        let mut next = self.take_all().unwrap_or(NONE);
        while next != NONE {
            let index = next;
            next = links(index).load(Relaxed);
            if take(index) {
                continue;
            }
            if let Some((_, last)) = rest {
                links(last).store(index, Relaxed);
            }
            rest = Some((rest.map_or(index, |(first, _)| first), index));
        }
        if let Some((first, last)) = rest {
            self.push_chain(first, last, links);
        }
    }
}

/// The index in a head.
#[inline]
fn top(head: u64) -> u32 {
    u32::try_from(head & u64::from(NONE)).unwrap_or(NONE)
}

/// The head after `head`, with `index` on top; closed if that was.
#[inline]
fn next(head: u64, index: u32) -> u64 {
    ((head >> 32).wrapping_add(TAG) << 32) | u64::from(index)
}

/// In a head: whether the stack is closed for `push_open`.
const CLOSED: u64 = 1 << 32;
/// What makes the upper half of a head another.
const TAG: u64 = 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn last_in_is_first_out() {
        let links: Vec<_> = (0..4).map(|_| AtomicU32::new(NONE)).collect();
        let links = |index: u32| &links[index as usize];
        let stack = IndexStack::new();
        assert_eq!((stack.pop(links), stack.take_all()), (None, None));
        (0..3).for_each(|index| stack.push(index, links));
        assert_eq!(stack.pop(links), Some(2));
        stack.push(3, links);
        let chain = std::iter::successors(stack.take_all(), |index| {
            Some(links(*index).load(Relaxed)).filter(|index| *index != NONE)
        });
        assert_eq!(chain.collect::<Vec<_>>(), [3, 1, 0]);
        assert_eq!(stack.take_all(), None);
        stack.push_chain(3, 0, links);
        assert!(stack.push_open(2, links(2)));
        assert_eq!((stack.close(), stack.pop(links)), (Some(2), None));
        stack.push_chain(3, 0, links);
        assert!(!stack.push_open(2, links(2)), "closed for ever");
        stack.sort(links, |index| index == 1);
        assert_eq!(
            [stack.pop(links), stack.pop(links), stack.pop(links)],
            [Some(3), Some(0), None]
        );
    }
}
