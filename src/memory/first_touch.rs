//! First touch: much memory of the host is filled by several threads, near the node that it is of.
//!
//! A page gets its memory, zeroed, when it is first touched. One thread does that for a few GiB a
//! second, a thread on another node for fewer. From which node pages are taken is the policy of
//! their range (`numa`), whichever thread touches them; the threads here run on that node's
//! processors where the process may, and end with the call.

#![expect(unsafe_code, reason = "system calls for the processors of a thread")]

use std::{fs, mem};

use super::granule::GRANULARITY;
use super::host_span::{HostSpan, Pages};
use crate::error::Error;
use crate::sync::thread;

/// How a span's memory is filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstTouch {
    /// The node whose processors are preferred.
    pub(super) node: Option<u32>,
    /// Threads at a time, at most.
    pub(super) threads: usize,
}

/// Processors, by number.
#[derive(Clone, Copy)]
struct Processors(libc::cpu_set_t);

impl FirstTouch {
    /// Fills every page of a range that was just opened.
    pub(super) fn fill(self, span: &HostSpan, offset: usize, len: usize) -> Result<(), Error> {
        self.fill_in_shares(span, offset, len, SHARE)
    }

    fn fill_in_shares(
        self,
        span: &HostSpan,
        offset: usize,
        len: usize,
        share: usize,
    ) -> Result<(), Error> {
        let threads = self.threads.min(len / share);
        if threads < 2 {
            return span.populate(offset, len);
        }
        let processors = self.processors();
        let threads = threads.min(processors.map_or(1, |them| them.count()));
        self.each_part(span, offset, len, threads, move |pages| {
            if let Some(processors) = processors {
                processors.enter();
            }
            pages.populate()
        })
    }

    /// Has a thread of its own `fill` each part of a range, and waits for all. The first error.
    fn each_part(
        self,
        span: &HostSpan,
        offset: usize,
        len: usize,
        threads: usize,
        fill: impl Fn(Pages) -> Result<(), Error> + Clone + Send + 'static,
    ) -> Result<(), Error> {
        let part = len.div_ceil(threads.max(1)).next_multiple_of(GRANULARITY);
        let parts = (0..len).step_by(part);
        let parts = parts.map(|at| span.pages(offset + at, part.min(len - at)));
        let helpers: Vec<_> = parts
            .map(|pages| {
                let (thread, fill) = (thread::Builder::new(), fill.clone());
                (pages, thread.name("wharf-touch".to_owned()).spawn(move || fill(pages)))
            })
            .collect();
        // Every thread is waited for: none may touch pages that the caller closes after an error.
        let outcomes = helpers.into_iter().map(|(pages, helper)| {
            let joined = helper.ok().and_then(|helper| helper.join().ok());
            // Where there was no thread to be had, this one does it, slower.
            joined.unwrap_or_else(|| pages.populate())
        });
        outcomes.collect::<Vec<_>>().into_iter().collect()
    }

    /// Those that the calling thread may run on, as far as they are the node's: all of them, where
    /// none is. `None` if the system does not say.
    fn processors(self) -> Option<Processors> {
        let allowed = Processors::allowed()?;
        let near = self.node.and_then(of_node).map(|node| allowed.and(&node));
        Some(near.filter(|near| near.count() > 0).unwrap_or(allowed))
    }
}

impl Processors {
    fn none() -> Self {
        // SAFETY: a set of bits, of which zeros are the empty one.
        Self(unsafe { mem::zeroed() })
    }

    /// Those that the calling thread may run on; `None` on systems of more than a set has.
    fn allowed() -> Option<Self> {
        let mut set = Self::none();
        // SAFETY: `set` is of the length that is given, and 0 means the calling thread.
        let result =
            unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set.0) };
        (result == 0).then_some(set)
    }

    /// Lets the calling thread run on these alone. That it fails costs speed and nothing else.
    fn enter(&self) {
        // SAFETY: as for `sched_getaffinity`.
        _ = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
    }

    fn count(&self) -> usize {
        self.numbers().count()
    }

    fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        // SAFETY: the numbers are below the size of the set.
        (0..MOST).filter(|number| unsafe { libc::CPU_ISSET(*number, &self.0) })
    }

    fn and(&self, other: &Self) -> Self {
        let mut both = Self::none();
        let common = self.numbers().filter(|number| other.has(*number));
        common.for_each(|number| both.add(number));
        both
    }

    fn has(&self, number: usize) -> bool {
        // SAFETY: below the size of the set.
        number < MOST && unsafe { libc::CPU_ISSET(number, &self.0) }
    }

    fn add(&mut self, number: usize) {
        if number < MOST {
            // SAFETY: below the size of the set.
            unsafe { libc::CPU_SET(number, &mut self.0) };
        }
    }
}

/// The processors of a node, if the system has such a node.
fn of_node(node: u32) -> Option<Processors> {
    let path = format!("/sys/devices/system/node/node{node}/cpulist");
    parse(&fs::read_to_string(path).ok()?)
}

/// From a list as `0-3,8`.
fn parse(list: &str) -> Option<Processors> {
    let mut processors = Processors::none();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (first..=last.min(MOST)).for_each(|number| processors.add(number));
    }
    Some(processors)
}

/// Processors in a set.
const MOST: usize = 8 * size_of::<libc::cpu_set_t>();

/// A thread fills at least so many bytes: it takes a hundred times as long as its start.
const SHARE: usize = 32 << 20;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::host_span::page_size;
    use crate::sync::Mutex;
    use std::collections::HashSet;
    use std::sync::Arc;

    fn numbers(list: &str) -> Option<Vec<usize>> {
        Some(parse(list)?.numbers().collect())
    }

    /// Which pages of the usual size of a range have memory.
    fn resident(span: &HostSpan, offset: usize, len: usize) -> Vec<bool> {
        let mut pages = vec![0_u8; len / page_size()];
        // SAFETY: a range of a mapping, and a byte for each of its pages.
        let result = unsafe { libc::mincore(span.at(offset).cast(), len, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.into_iter().map(|page| page & 1 == 1).collect()
    }

    #[test]
    fn processors_of_a_node_are_read_as_the_system_lists_them() {
        assert_eq!(numbers("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(numbers("\n"), Some(Vec::new()), "a node of memory alone");
        assert_eq!(numbers("0-5000").map(|all| all.len()), Some(MOST));
        assert!(numbers("1-").is_none() && numbers("all").is_none());
        assert!(of_node(1 << 20).is_none());
        let both = parse("0-3").unwrap().and(&parse("2-9").unwrap());
        assert_eq!(both.numbers().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn several_threads_fill_all_pages_of_a_range_and_no_others() {
        let (part, len) = (4 * GRANULARITY, 13 * GRANULARITY);
        let span = HostSpan::reserve(2 * len, GRANULARITY).unwrap();
        span.open(0, 2 * len).unwrap();
        let touch = FirstTouch { node: Some(0), threads: 3 };
        touch.fill_in_shares(&span, GRANULARITY, len, part).unwrap();
        assert!(resident(&span, GRANULARITY, len).into_iter().all(|is_there| is_there));
        let others = [(0, GRANULARITY), (GRANULARITY + len, len - GRANULARITY)];
        for (offset, len) in others {
            assert!(!resident(&span, offset, len).into_iter().any(|is_there| is_there));
        }
    }

    #[test]
    fn each_part_has_a_thread_on_processors_of_the_node() {
        let span = HostSpan::reserve(6 * GRANULARITY, GRANULARITY).unwrap();
        span.open(0, 6 * GRANULARITY).unwrap();
        let touch = FirstTouch { node: None, threads: 3 };
        let processors = touch.processors().unwrap();
        let mut one = Processors::none();
        one.add(processors.numbers().last().unwrap());
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let note = Arc::clone(&seen);
        touch
            .each_part(&span, 0, 6 * GRANULARITY, 3, move |pages| {
                one.enter();
                let runs_on: Vec<_> = Processors::allowed().unwrap().numbers().collect();
                note.lock().insert((thread::current().id(), runs_on));
                pages.populate()
            })
            .unwrap();
        let seen = seen.lock();
        assert_eq!(seen.len(), 3, "{seen:?}");
        let expected: Vec<_> = one.numbers().collect();
        assert!(
            seen.iter().all(|(thread, on)| *on == expected && *thread != thread::current().id())
        );
        let after: Vec<_> = Processors::allowed().unwrap().numbers().collect();
        assert_eq!(after, processors.numbers().collect::<Vec<_>>(), "the caller's are as before");
    }

    #[test]
    fn a_part_that_cannot_be_filled_is_an_error_and_one_whose_thread_ends_early_is_filled() {
        let len = 8 * GRANULARITY;
        let span = HostSpan::reserve(len, GRANULARITY).unwrap();
        span.open(0, len).unwrap();
        let touch = FirstTouch { node: None, threads: 4 };
        let refused = Error::System { call: "madvise", errno: libc::ENOMEM };
        assert_eq!(touch.each_part(&span, 0, len, 4, move |_| Err(refused)), Err(refused));
        let ends = |_| panic!("a helper that ends early");
        assert_eq!(touch.each_part(&span, 0, len, 4, ends), Ok(()));
        assert!(resident(&span, 0, len).into_iter().all(|is_there| is_there));
    }
}
