//! Readers of a ring slot in place, while which the host may not write it.

use std::sync::Arc;

use crate::driver::Event;
use crate::error::Error;
use crate::sync::{Mutex, MutexGuard};

/// The readers of one ring slot in one use.
///
/// They are all known when one was declared, none is open and each found its end, or when the next
/// step was submitted.
#[derive(Debug, Default)]
pub(crate) struct InPlace {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Readers that have not ended.
    open: usize,
    /// Streams with a reader that did not find its end.
    lost: usize,
    is_declared: bool,
    /// Whether the next step was submitted.
    is_finished: bool,
    /// Where reads end that may not be done.
    ends: Vec<Arc<Event>>,
}

/// The state of a ring slot's readers: what the host waits for before it may write the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Nothing.
    Done,
    /// The device, in a read that was declared.
    Pending,
    /// A reader that has not ended.
    Open,
    /// A declaration: it is not known what reads it.
    Undeclared,
}

impl State {
    /// Whether it is known where the reads end that are not open.
    fn is_known(&self) -> bool {
        self.is_finished || self.is_declared && self.lost == 0
    }
}

impl InPlace {
    /// Forgets the readers of the slot's last use.
    pub(super) fn reset(&self) {
        *self.hold() = State::default();
    }

    /// A reader begins.
    pub(super) fn open(&self) {
        self.hold().open += 1;
    }

    /// A reader of a stream did not find its end.
    pub(super) fn lose_end(&self) {
        self.hold().lost += 1;
    }

    /// The stream of such a reader has declared its reads.
    pub(super) fn find_end(&self) {
        let mut state = self.hold();
        state.lost = state.lost.saturating_sub(1);
    }

    /// A reader ends, where `end` says; without one that is not known.
    pub(super) fn close(&self, end: Option<&Arc<Event>>) {
        let mut state = self.hold();
        state.open = state.open.saturating_sub(1);
        state.is_declared |= end.is_some();
        state.ends.extend(end.cloned());
    }

    /// A read was declared that ends here.
    pub(super) fn read_until(&self, end: &Arc<Event>) {
        let mut state = self.hold();
        state.is_declared = true;
        state.ends.push(Arc::clone(end));
    }

    /// The next step was submitted: no reads but those that end at `ends`, or were declared.
    pub(super) fn finish(&self, ends: impl Iterator<Item = Arc<Event>>) {
        let mut state = self.hold();
        state.is_finished = true;
        state.ends.extend(ends);
    }

    /// The slot's launch never runs, and so nothing reads it.
    pub(super) fn give_up(&self) {
        *self.hold() = State { is_finished: true, ..State::default() };
    }

    /// How far the readers are. Queries the events of reads that were not done before.
    pub(super) fn reading(&self) -> Result<Reading, Error> {
        let mut state = self.hold();
        if state.open != 0 {
            return Ok(Reading::Open);
        }
        if !state.is_known() {
            return Ok(Reading::Undeclared);
        }
        // An end that was found is dropped, so that the driver is not asked for it again.
        while let Some(end) = state.ends.last() {
            if !end.query()? {
                return Ok(Reading::Pending);
            }
            state.ends.pop();
        }
        Ok(Reading::Done)
    }

    /// Waits for the reads whose ends are known. Returns whether these are all, `false` if more may
    /// come.
    pub(super) fn synchronize(&self) -> Result<bool, Error> {
        let state = self.hold();
        state.ends.iter().try_for_each(|end| end.synchronize())?;
        Ok(state.open == 0 && state.is_known())
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
