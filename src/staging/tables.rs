//! Persistent tables: what the device has of them, and what a step that failed has left there.
//!
//! The device has one copy of a table, and steps change it in the order of the guard. The patches
//! of a step are in its own ring slot, the list and the bytes, so no two steps share them. What
//! steps share is this: the contents that the device has once it has run every step submitted.
//!
//! ```text
//!   patch ──> ring slot ──submit──> copies, launch ──ok──> contents
//!                                        └──error──> torn: the next step sends the contents again
//! ```
//!
//! A submission can fail when some of its patches are on their way, and has not happened then. So
//! these ranges are noted as torn, and the next step, of any set with the table, begins with their
//! contents as they were.
//!
//! A step holds the tables while it is sent, launch of the engine's graph included. A step that is
//! submitted inside that launch would wait for itself, and is refused.
//!
//! * `holder`: written by `hold` and the drop of [`Held`]; read by `hold`. `Relaxed`: a thread
//!   looks for what it has written itself.
//! * `is_torn`: written by `tear` and `mend`, under the lock; read by `is_torn`. `Relaxed`: the
//!   lock guards the data, and a thread that was told of the error sees the word by that.

use super::patches::Patch;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

/// The persistent tables of a set, and of all that share its device memory.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    contents: Mutex<Box<[Table]>>,
    is_torn: AtomicBool,
    /// The thread that holds them, see [`this_thread`]; or 0.
    holder: AtomicUsize,
}

/// A table as the device has it.
#[derive(Debug)]
pub(crate) struct Table {
    bytes: Box<[u8]>,
    /// Ranges that may have what a failed step has sent: start and end.
    torn: Vec<(usize, usize)>,
}

/// The tables while a step is sent: the steps that patch are one behind the other.
pub(crate) struct Held<'a> {
    tables: MutexGuard<'a, Box<[Table]>>,
    is_torn: &'a AtomicBool,
    holder: &'a AtomicUsize,
}

impl Tables {
    /// Tables of zeros, of so many bytes.
    pub(crate) fn new(sizes: impl IntoIterator<Item = usize>) -> Self {
        let table = |size| Table { bytes: vec![0; size].into(), torn: Vec::new() };
        let contents = Mutex::new(sizes.into_iter().map(table).collect());
        Self { contents, is_torn: AtomicBool::new(false), holder: AtomicUsize::new(0) }
    }

    /// Whether the next step has to mend what a failed one has left.
    #[inline]
    pub(crate) fn is_torn(&self) -> bool {
        self.is_torn.load(Relaxed)
    }

    /// Keeps other steps from sending patches until this is dropped. `None` if this thread does so
    /// already.
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        let this = this_thread();
        if self.holder.load(Relaxed) == this {
            return None;
        }
        let tables = self.contents.lock();
        self.holder.store(this, Relaxed);
        Some(Held { tables, is_torn: &self.is_torn, holder: &self.holder })
    }
}

impl Held<'_> {
    /// The ranges of a table to be sent again, before any patch: start, and bytes.
    pub(crate) fn torn(&self, table: usize) -> impl Iterator<Item = (usize, &[u8])> {
        let table = &self.tables[table];
        table.torn.iter().map(|(start, end)| (*start, &table.bytes[*start..*end]))
    }

    /// Takes note that a step was sent which began with the torn ranges of a table.
    pub(crate) fn mend(&mut self, table: usize) {
        self.tables[table].torn.clear();
        self.is_torn.store(self.tables.iter().any(|table| !table.torn.is_empty()), Relaxed);
    }

    /// Takes note that a step with this patch was sent, which has these bytes.
    pub(crate) fn note(&mut self, table: usize, patch: &Patch, bytes: &[u8]) {
        self.tables[table].bytes[patch.start..patch.end()].copy_from_slice(bytes);
    }

    /// Takes note that these ranges of a table may have been written by a step that has not
    /// happened.
    pub(crate) fn tear(&mut self, table: usize, ranges: impl IntoIterator<Item = (usize, usize)>) {
        let torn = &mut self.tables[table].torn;
        torn.extend(ranges);
        if torn.len() > MANY {
            // One copy of all between them; the contents are known.
            let start = torn.iter().map(|range| range.0).min().unwrap_or(0);
            let end = torn.iter().map(|range| range.1).max().unwrap_or(0);
            *torn = vec![(start, end)];
        }
        self.is_torn.store(true, Relaxed);
    }

    /// The same for all that a table has.
    pub(crate) fn tear_all(&mut self, table: usize) {
        let size = self.tables[table].bytes.len();
        self.tear(table, [(0, size)]);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Under the lock still: fields go behind this.
        self.holder.store(0, Relaxed);
    }
}

/// A number of this thread, which no other has as long as it lives.
fn this_thread() -> usize {
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

crate::sync::thread_local! {
    /// Its address is the thread's number.
    static HERE: u8 = const { 0 };
}

/// As many torn ranges as are sent one by one.
const MANY: usize = 256;
