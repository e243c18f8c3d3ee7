//! From a call to a stream: the one way by which work reaches a stream or its capture.

use parking_lot::MutexGuard;

use wharf_sys::bindings::CUstream;

use crate::call::Call;
use crate::errors::Status;
use crate::machine::{State, Work};
use crate::order::OpId;
use crate::prepare::When;
use crate::task::Task;

/// When a call that gives work to a stream returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// At once.
    Enqueued,
    /// When the work is done.
    Complete,
    /// When it is done where it writes pageable memory or moves bytes between host ranges, at
    /// once elsewhere: the "Async" calls of the documentation's API synchronisation behaviour.
    AsDocumented,
}

impl<'a> Call<'a> {
    /// Gives `task` to `stream`.
    pub(crate) fn submit(self, stream: CUstream, task: &Task, returns: Return) -> Status {
        let mut state = self.lock();
        let stream = self.stream(&mut state, stream)?;
        if let Some(capture) = state.capture_of(stream)? {
            return self.capture(&mut state, capture, stream, task);
        }
        let context = state.streams.get(stream).map_or(0, |stream| stream.context);
        // Addresses are resolved at the call, while the allocations are known to exist.
        let work = self.machine.prepare(&state, self.name, context, task, When::Call)?;
        let waits = match returns {
            Return::Enqueued => false,
            Return::Complete => true,
            Return::AsDocumented => must_wait(&work),
        };
        let op = state.enqueue(self.name, stream, work, &[])?;
        let state = self.machine.kick(state);
        if waits { self.wait(state, &[op], stream) } else { Ok(()) }
    }

    /// Gives ready-made work to a stream that is not capturing.
    pub(crate) fn enqueue(
        self,
        mut state: MutexGuard<'a, State>,
        stream: u64,
        work: Work,
        also: &[OpId],
    ) -> Status<(MutexGuard<'a, State>, OpId)> {
        let op = state.enqueue(self.name, stream, work, also)?;
        Ok((self.machine.kick(state), op))
    }

    /// Waits for operations of `stream` and says how its context fared.
    pub(crate) fn wait(self, state: MutexGuard<'_, State>, ops: &[OpId], stream: u64) -> Status {
        let context = state.streams.get(stream).map_or(0, |stream| stream.context);
        let state = self.machine.wait(state, ops);
        state.lost(context)
    }
}

fn must_wait(work: &Work) -> bool {
    let Work::Copy(copy) = work else { return false };
    let host =
        |side: &crate::memory::transfer::Side| side.blocks.iter().all(|block| block.kind.is_host());
    copy.dst.is_pageable() || host(&copy.src) && host(&copy.dst)
}
