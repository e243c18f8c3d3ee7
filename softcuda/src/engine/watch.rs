//! The check `race` at work: what operations touch when they run, and what they race with.

use std::collections::HashSet;
use std::sync::Arc;

use crate::event::EventState;
use crate::machine::{Machine, State, Work};
use crate::memory::Block;
use crate::order::OpId;
use crate::race::{Access, Done, Mode, Track};
use crate::report::{Check, Violation};
use crate::sched::Origin;
use crate::sched::work::MemOp;

impl Machine {
    /// Notes what an operation that is about to run touches, and reports what it races with.
    pub(crate) fn watch_begin(&self, state: &mut State, id: OpId, origin: Origin, work: &Work) {
        if work.is_host() {
            state.queue.learn_op(id);
        }
        for access in work.accesses() {
            self.watch(state, id, origin, &access);
        }
    }

    /// Notes one access of an operation, and reports what it races with.
    pub(crate) fn watch(&self, state: &mut State, id: OpId, origin: Origin, access: &Access) {
        let Some((track, point, clock)) = state.queue.advance(id) else { return };
        let Track { lane, place } = track;
        let (call, mode, shown, value) = (origin.call, access.mode, access.shown, access.value);
        let done = Arc::new(Done { call, mode, shown, place, lane, point, clock, value });
        for other in state.history.touch(access, &done) {
            self.violate(Check::Race, || violation(origin, &done, &other));
        }
        if state.history.is_full() {
            let floor = state.queue.floor();
            state.history.forget(floor);
        }
    }

    /// Notes what one of several stream memory operations does: before a word is written, or when
    /// the value that was waited for is there.
    pub(crate) fn watch_word(&self, state: &mut State, id: OpId, origin: Origin, op: &MemOp) {
        match op {
            MemOp::Write { address, value, wide, block } => {
                self.watch(state, id, origin, &Access::of_word(block, *address, *wide, *value));
                // The host may poll the word, and then knows of all work before it.
                state.queue.learn_op(id);
            }
            MemOp::Wait { address, value, wide, condition, block } => {
                let satisfies = |writer: &Done| {
                    writer.value.is_none_or(|word| condition.holds(word, *value, *wide))
                };
                for writer in
                    state.hear(id, block, *address, *wide).iter().filter(|it| satisfies(it))
                {
                    self.violate(Check::ValueOrder, || unseen_order(origin, *address, writer));
                }
            }
            MemOp::Barrier => {}
        }
    }

    /// Notes what an operation did that ran the program's code.
    pub(crate) fn watch_end(
        &self,
        state: &mut State,
        id: OpId,
        origin: Origin,
        declared: &[(u64, usize, Mode)],
    ) {
        let mut tells = declared.is_empty();
        for (address, size, mode) in declared {
            let Some(access) = Access::declared(&state.memory, *address, *size, *mode) else {
                continue;
            };
            tells |=
                *mode != Mode::Read && access.ranges.iter().any(|(block, ..)| block.kind.is_host());
            self.watch(state, id, origin, &access);
        }
        // It may have written a word that the host looks at.
        if tells {
            state.queue.learn_op(id);
        }
    }
}

/// "Synchronization ordering established through this API is not visible to CUDA. CUDA tasks that
/// are (even indirectly) ordered by this API should also have that order expressed with
/// CUDA-visible dependencies such as events" (cuStreamWaitValue32).
fn unseen_order(origin: Origin, address: u64, writer: &Done) -> Violation {
    let what = format!(
        "waits for the value at {address:#x} that {} on {} wrote, with no event or other \
         dependency between the two, so they may deadlock: record an event after the write and \
         wait for it",
        writer.call, writer.place
    );
    Violation { check: Check::ValueOrder, call: origin.call, what, stream: origin.stream }
}

fn violation(origin: Origin, this: &Done, other: &Done) -> Violation {
    let does = |mode: Mode| if mode == Mode::Read { "reads" } else { "writes" };
    let what = format!(
        "{} [{:#x}, {:#x}) on {}, and nothing orders it with {} on {}, which {} [{:#x}, {:#x})",
        does(this.mode),
        this.shown.0,
        this.shown.1,
        this.place,
        other.call,
        other.place,
        does(other.mode),
        other.shown.0,
        other.shown.1,
    );
    Violation { check: Check::Race, call: this.call, what, stream: origin.stream }
}

impl State {
    /// Lets an operation whose value in memory has come come behind what wrote it. Returns those of
    /// the writers that nothing else orders it behind.
    fn hear(&mut self, id: OpId, block: &Block, address: u64, wide: bool) -> Vec<Arc<Done>> {
        let writers = self.history.writers(block, address, address + if wide { 8 } else { 4 });
        let mut unseen = writers.clone();
        unseen.retain(|writer| !self.queue.is_behind(id, writer));
        // The host may have written it, and knew what it knows now.
        self.queue.hear_host(id);
        // It could not know what is no word, so no host wrote after that.
        unseen.retain(|writer| writer.value.is_some() || !self.queue.is_behind(id, writer));
        for writer in writers {
            self.queue.hear(id, &writer.clock);
        }
        unseen
    }

    /// Lets go of clocks that nothing will come behind any more, when there are many.
    pub(crate) fn collect_clocks(&mut self) {
        if !self.queue.has_many_clocks() {
            return;
        }
        let streams = self.streams.values().map(|stream| stream.tail);
        let contexts = self.contexts.values().map(|context| context.barrier);
        let execs = self.graphs.execs.values().map(|exec| exec.last);
        let events = self.events.values().filter_map(|event| match event.state {
            EventState::Recorded { op, .. } => Some(op),
            _ => None,
        });
        let live: HashSet<_> = streams.chain(contexts).chain(execs).chain(events).collect();
        self.queue.keep_clocks(&live);
    }
}
