//! The queue as the check `race` sees it: clocks of operations, and what the host knows.

use std::collections::HashSet;
use std::sync::Arc;

use super::queue::Queue;
use super::work::Work;
use crate::order::{Clock, Lane, OpId, Order};
use crate::race::{Access, Done, Mode, Track};

impl<S> Queue<S> {
    /// Whether the order of operations is watched.
    pub(crate) fn watches_order(&self) -> bool {
        self.order.is_some()
    }

    pub(crate) fn new_lane(&mut self) -> Option<Arc<Lane>> {
        self.order.as_mut().map(Order::lane)
    }

    /// Sets the track of an operation that has not started.
    pub(crate) fn set_track(&mut self, op: OpId, track: Option<Track>) {
        if let Some(op) = self.ops.get_mut(&op) {
            op.track = track;
        }
    }

    /// The clock of an operation that is added now, as far as the host and what is complete go.
    pub(super) fn first_clock(&self, after: &[OpId]) -> Clock {
        let Some(order) = &self.order else { return Clock::default() };
        // What an operation adds was submitted when it was.
        let parent = self.ops.get(&self.parent).map(|parent| parent.clock.clone());
        let mut clock = parent.unwrap_or_else(|| order.now());
        for op in after.iter().filter(|op| !self.is_pending(**op)) {
            order.join_done(&mut clock, *op);
        }
        clock
    }

    /// Gives an operation that runs its point, and its clock with that point in it.
    pub(crate) fn advance(&mut self, op: OpId) -> Option<(Track, u64, Arc<Clock>)> {
        let op = self.ops.get_mut(&op)?;
        let track = op.track.clone()?;
        if op.point == 0 {
            op.point = track.lane.advance();
            op.clock.prune();
        }
        op.clock.add(&track.lane, op.point);
        Some((track, op.point, Arc::new(op.clock.clone())))
    }

    /// Whether an operation comes behind one that ran.
    pub(crate) fn is_behind(&self, op: OpId, done: &Done) -> bool {
        self.ops.get(&op).is_some_and(|op| done.is_before(&op.clock))
    }

    /// Lets an operation come behind what `clock` comes behind.
    pub(crate) fn hear(&mut self, op: OpId, clock: &Clock) {
        if let Some(op) = self.ops.get_mut(&op) {
            op.clock.join(clock);
        }
    }

    /// Lets an operation come behind what the host knows now.
    pub(crate) fn hear_host(&mut self, op: OpId) {
        if let Some(order) = &self.order {
            let now = order.now();
            self.hear(op, &now);
        }
    }

    /// Lets an operation come behind all that has run.
    pub(crate) fn hear_everything(&mut self, op: OpId) {
        if let Some(order) = &self.order {
            let all = order.everything();
            self.hear(op, &all);
        }
    }

    /// Notes that the host knows what an operation comes behind, which runs or is complete.
    pub(crate) fn learn_op(&mut self, op: OpId) {
        let Some(order) = &self.order else { return };
        let clock = match self.ops.get(&op) {
            Some(op) => op.clock.clone(),
            None => {
                let mut clock = order.now();
                order.join_done(&mut clock, op);
                clock
            }
        };
        self.learn(&clock);
    }

    /// Notes that the host knows all that has run.
    pub(crate) fn learn_everything(&mut self) {
        if let Some(order) = &self.order {
            let all = order.everything();
            self.learn(&all);
        }
    }

    fn learn(&mut self, clock: &Clock) {
        self.lessons = self.lessons.wrapping_add(1);
        if self.lessons.is_multiple_of(LESSONS) {
            self.floor();
        }
        if let Some(order) = &mut self.order {
            order.learn(clock);
        }
    }

    /// How much the host knew when the oldest operation was submitted that is not complete.
    pub(crate) fn floor(&mut self) -> u64 {
        let oldest = self.ops.values().map(|op| op.clock.growth()).min();
        let Some(order) = &mut self.order else { return 0 };
        order.set_floor(oldest);
        order.floor()
    }

    pub(crate) fn has_many_clocks(&self) -> bool {
        self.order.as_ref().is_some_and(Order::is_full)
    }

    /// Keeps the clocks of these complete operations, and of no others.
    pub(crate) fn keep_clocks(&mut self, live: &HashSet<OpId>) {
        if let Some(order) = &mut self.order {
            order.keep(live);
        }
    }
}

impl<S> Work<S> {
    /// The bytes that a copy, a fill or a change of an allocation's life touches.
    pub(crate) fn accesses(&self) -> Vec<Access> {
        let accesses = match self {
            Self::Copy(copy) => {
                let shape = [copy.width, copy.height, copy.depth];
                // A staged source was read during the call, in the order of the host.
                let src = if copy.staged.is_some() {
                    None
                } else {
                    Access::of_side(&copy.src, Mode::Read, shape)
                };
                [src, Access::of_side(&copy.dst, Mode::Write, shape)]
            }
            Self::Fill(fill) => {
                let shape = [fill.width * fill.element, fill.height, 1];
                [None, Access::of_side(&fill.dst, Mode::Write, shape)]
            }
            Self::Begin(block) | Self::End(block, _) => [None, Some(Access::of_block(block))],
            _ => [None, None],
        };
        accesses.into_iter().flatten().collect()
    }
}

/// After so many lessons of the host the oldest operation is looked for.
const LESSONS: u32 = 64;
