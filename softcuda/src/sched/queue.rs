//! The operations that are not complete yet, and the choice of the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::work::Work;
use crate::config::{Grace, Schedule};
use crate::memory::transfer::Landing;
use crate::order::{Clock, OpId, Order};
use crate::race::Track;

/// Where an operation comes from: what reports name and what a device fault takes down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) call: &'static str,
    pub(crate) context: u64,
    pub(crate) stream: u64,
}

/// The kind of thread that takes an operation to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taker {
    /// An engine thread.
    Engine,
    /// A caller that cannot go on before something completes.
    Waiter,
    /// A caller that asked whether something is complete.
    Asker,
}

#[derive(Debug)]
pub(super) struct Op<S> {
    origin: Origin,
    /// Absent while it runs.
    work: Option<Work<S>>,
    /// Operations that must complete first and have not.
    dependencies: BTreeSet<OpId>,
    dependents: Vec<OpId>,
    /// A call waits for this operation or for a later one.
    demanded: bool,
    /// When it runs without a demand.
    deadline: Option<Instant>,
    /// Where order is watched: what it comes behind as far as that is complete, its lane, and its
    /// point there once it touches something.
    pub(super) clock: Clock,
    pub(super) track: Option<Track>,
    pub(super) point: u64,
}

/// The operations of one machine, whose state is an `S`, that are not complete.
#[derive(Debug)]
pub(crate) struct Queue<S> {
    schedule: Schedule,
    grace: Grace,
    random: u64,
    next: OpId,
    pub(super) ops: BTreeMap<OpId, Op<S>>,
    /// Ready for an engine.
    ready: BTreeSet<OpId>,
    /// Ready for the thread that calls host functions.
    ready_host: BTreeSet<OpId>,
    /// Started, and waiting for a value in memory.
    blocked: BTreeSet<OpId>,
    /// Taken by an engine or a caller and not back yet, host functions left out.
    running: BTreeSet<OpId>,
    /// Where order is watched.
    pub(super) order: Option<Order>,
    /// The operation that adds others now: they come behind it.
    pub(super) parent: OpId,
    /// The number of times that the host has learned something.
    pub(super) lessons: u32,
}

impl<S> Queue<S> {
    pub(crate) fn new(schedule: Schedule, grace: Grace, watches_order: bool) -> Self {
        let seed = if let Schedule::Random(seed) = schedule { seed } else { 0 };
        Self {
            schedule,
            grace,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d,
            next: 1,
            ops: BTreeMap::new(),
            ready: BTreeSet::new(),
            ready_host: BTreeSet::new(),
            blocked: BTreeSet::new(),
            running: BTreeSet::new(),
            order: watches_order.then(Order::default),
            parent: 0,
            lessons: 0,
        }
    }

    /// Adds an operation behind those of `after` that are not complete.
    pub(crate) fn add(&mut self, origin: Origin, work: Work<S>, after: &[OpId]) -> OpId {
        let id = self.next;
        self.next += 1;
        let dependencies: BTreeSet<_> =
            after.iter().copied().filter(|op| self.is_pending(*op)).collect();
        for dependency in &dependencies {
            if let Some(op) = self.ops.get_mut(dependency) {
                op.dependents.push(id);
            }
        }
        let ready = dependencies.is_empty();
        let deadline = match self.grace {
            // One that the clock cannot tell does not come.
            Grace::After(grace) => Instant::now().checked_add(grace),
            Grace::Never => None,
        };
        let clock = self.first_clock(after);
        let op = Op {
            origin,
            work: Some(work),
            dependencies,
            dependents: Vec::new(),
            demanded: false,
            deadline,
            clock,
            track: None,
            point: 0,
        };
        self.ops.insert(id, op);
        if ready {
            self.make_ready(id);
        }
        id
    }

    /// Makes `later`, which has not started, wait for `earlier` too.
    pub(crate) fn add_dependency(&mut self, later: OpId, earlier: OpId) {
        if later == earlier {
            return;
        }
        if !self.is_pending(earlier) {
            if let (Some(order), Some(op)) = (&self.order, self.ops.get_mut(&later)) {
                order.join_done(&mut op.clock, earlier);
            }
            return;
        }
        let Some(op) = self.ops.get_mut(&later) else { return };
        let demanded = op.demanded;
        if op.dependencies.insert(earlier)
            && let Some(op) = self.ops.get_mut(&earlier)
        {
            op.dependents.push(later);
        }
        // It may have been ready until now.
        self.ready.remove(&later);
        self.ready_host.remove(&later);
        if demanded {
            self.demand(&[earlier]);
        }
    }

    pub(crate) fn is_pending(&self, op: OpId) -> bool {
        self.ops.contains_key(&op)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The pending operations of one context.
    pub(crate) fn of_context(&self, context: u64) -> Vec<OpId> {
        self.ops.iter().filter(|(_, op)| op.origin.context == context).map(|(id, _)| *id).collect()
    }

    pub(crate) fn is_demanded(&self, op: OpId) -> bool {
        self.ops.get(&op).is_some_and(|op| op.demanded)
    }

    /// Marks `targets`, and everything they depend on, as waited for.
    pub(crate) fn demand(&mut self, targets: &[OpId]) {
        let mut stack = targets.to_vec();
        while let Some(id) = stack.pop() {
            if let Some(op) = self.ops.get_mut(&id)
                && !op.demanded
            {
                op.demanded = true;
                stack.extend(&op.dependencies);
            }
        }
    }

    /// Marks as waited for the first ready operation that `targets` depend on.
    pub(crate) fn demand_first(&mut self, targets: &[OpId]) {
        let mut stack = targets.to_vec();
        while let Some(id) = stack.pop() {
            let Some(op) = self.ops.get_mut(&id) else { continue };
            if op.dependencies.is_empty() {
                op.demanded = true;
                return;
            }
            stack.extend(&op.dependencies);
        }
    }

    /// Marks as waited for an operation that may write the value which a waiter waits for, if there
    /// is one: nothing else can let it go on.
    pub(crate) fn demand_a_writer(&mut self) -> bool {
        let is_stuck = !self.blocked.is_empty() && self.running.is_empty();
        let mut ready = self.ready.iter().chain(&self.ready_host).copied();
        let writer = if is_stuck { ready.find(|id| !self.is_demanded(*id)) } else { None };
        writer.is_some_and(|id| {
            self.demand(&[id]);
            true
        })
    }

    /// Takes the next operation for `taker`.
    pub(crate) fn take(&mut self, taker: Taker) -> Option<(OpId, Origin, Work<S>)> {
        let id = match (self.schedule, taker) {
            (Schedule::Async | Schedule::Eager, _) => self.ready.first().copied(),
            (Schedule::Late, _) | (Schedule::Random(_), Taker::Asker) => self.due(&self.ready),
            (Schedule::Random(_), Taker::Waiter) => self.any_ready(),
            // The waiting thread draws the operations that it waits for: two threads that draw
            // would make the order depend on time.
            (Schedule::Random(_), Taker::Engine) => self.expired(&self.ready),
        }?;
        self.ready.remove(&id);
        self.start(id)
    }

    /// Takes the next host function.
    pub(crate) fn take_host(&mut self) -> Option<(OpId, Origin, Work<S>)> {
        let id = match self.schedule {
            Schedule::Async | Schedule::Eager => self.ready_host.first().copied(),
            Schedule::Late | Schedule::Random(_) => self.due(&self.ready_host),
        }?;
        self.ready_host.remove(&id);
        self.start(id)
    }

    /// Takes one that waits for a value in memory, to look again. Each is returned once a round.
    pub(crate) fn take_blocked(&mut self, after: OpId) -> Option<(OpId, Origin, Work<S>)> {
        let id = self.blocked.range(after + 1..).next().copied()?;
        self.blocked.remove(&id);
        self.start(id)
    }

    pub(crate) fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    pub(crate) fn has_ready_host(&self) -> bool {
        !self.ready_host.is_empty()
    }

    /// Whether an engine is at work.
    pub(crate) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Puts back an operation whose value in memory has not come.
    pub(crate) fn block(&mut self, id: OpId, work: Work<S>) {
        self.running.remove(&id);
        if let Some(op) = self.ops.get_mut(&id) {
            op.work = Some(work);
            self.blocked.insert(id);
        }
    }

    pub(crate) fn complete(&mut self, id: OpId) {
        self.running.remove(&id);
        let Some(mut done) = self.ops.remove(&id) else { return };
        // Points that the host knows are implied, and clocks are copied to all dependents.
        done.clock.prune();
        for dependent in done.dependents {
            let ready = self.ops.get_mut(&dependent).is_some_and(|op| {
                op.clock.join(&done.clock);
                op.dependencies.remove(&id);
                op.dependencies.is_empty()
            });
            if ready {
                self.make_ready(dependent);
            }
        }
        if let Some(order) = &mut self.order {
            order.complete(id, done.clock);
        }
    }

    /// Whether a random schedule lets something run now, after a call enqueued more.
    pub(crate) fn flip(&mut self) -> bool {
        matches!(self.schedule, Schedule::Random(_)) && self.draw(2) == 0
    }

    /// In which order the bytes of a copy arrive that is prepared now.
    pub(crate) fn landing(&self) -> Landing {
        match self.schedule {
            Schedule::Async | Schedule::Eager => Landing::Rising,
            Schedule::Late => Landing::Falling,
            // Not drawn from the sequence that orders the operations, which copies would change.
            Schedule::Random(_) => {
                Landing::Drawn(shifted(self.random ^ self.next).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            }
        }
    }

    /// Whether a copy that is prepared now reads its source before its stream gets there, where it
    /// may.
    pub(crate) fn reads_early(&self) -> bool {
        match self.schedule {
            Schedule::Async | Schedule::Eager => false,
            Schedule::Late => true,
            Schedule::Random(_) => shifted(self.random ^ self.next) & 1 == 0,
        }
    }

    /// Lets operations that are added until [`end_parent`](Self::end_parent) come behind `id`.
    pub(crate) fn begin_parent(&mut self, id: OpId) {
        self.parent = id;
    }

    pub(crate) fn end_parent(&mut self) {
        self.parent = 0;
    }

    fn make_ready(&mut self, id: OpId) {
        let host = self.ops.get(&id).is_some_and(|op| op.work.as_ref().is_some_and(Work::is_host));
        if host {
            self.ready_host.insert(id)
        } else {
            self.ready.insert(id)
        };
    }

    fn start(&mut self, id: OpId) -> Option<(OpId, Origin, Work<S>)> {
        let op = self.ops.get_mut(&id)?;
        let work = op.work.take()?;
        let origin = op.origin;
        if !work.is_host() {
            self.running.insert(id);
        }
        Some((id, origin, work))
    }

    /// The first of `set` that is demanded or has waited out its grace.
    fn due(&self, set: &BTreeSet<OpId>) -> Option<OpId> {
        let demanded = set.iter().copied().find(|id| self.is_demanded(*id));
        demanded.or_else(|| self.expired(set))
    }

    fn expired(&self, set: &BTreeSet<OpId>) -> Option<OpId> {
        let now = Instant::now();
        let has_passed = |op: &Op<S>| op.deadline.is_some_and(|deadline| deadline <= now);
        set.iter().copied().find(|id| self.ops.get(id).is_some_and(has_passed))
    }

    /// Any ready operation; a host function that is drawn is only let go.
    fn any_ready(&mut self) -> Option<OpId> {
        while !self.ready.is_empty() || !self.ready_host.is_empty() {
            let drawn = self.draw(self.ready.len() + self.undemanded_hosts());
            if let Some(id) = self.ready.iter().nth(drawn) {
                return Some(*id);
            }
            let index = drawn - self.ready.len();
            let host =
                self.ready_host.iter().copied().filter(|id| !self.is_demanded(*id)).nth(index)?;
            self.demand(&[host]);
        }
        None
    }

    fn undemanded_hosts(&self) -> usize {
        self.ready_host.iter().filter(|id| !self.is_demanded(**id)).count()
    }

    /// A number below `limit`, from xorshift64*: any fixed sequence serves.
    fn draw(&mut self, limit: usize) -> usize {
        self.random = shifted(self.random);
        let high = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or(0) % limit.max(1)
    }
}

/// The step of xorshift64*.
fn shifted(mut number: u64) -> u64 {
    number ^= number >> 12;
    number ^= number << 25;
    number ^ number >> 27
}
