//! The operations that are not complete yet, and the choice of the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::work::Work;
use crate::config::Schedule;

/// Names an operation; grows with the order of the calls, never used twice.
pub(crate) type OpId = u64;

/// Where an operation comes from: what reports name and what a device fault takes down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) call: &'static str,
    pub(crate) context: u64,
    pub(crate) stream: u64,
}

/// Who takes an operation to run it.
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
struct Op {
    origin: Origin,
    /// Absent while it runs.
    work: Option<Work>,
    /// Operations that must complete first and have not.
    dependencies: BTreeSet<OpId>,
    dependents: Vec<OpId>,
    /// Somebody waits for this one or for one behind it.
    demanded: bool,
    /// When it runs though nobody demands it.
    deadline: Instant,
}

/// The operations of one machine that are not complete.
#[derive(Debug)]
pub(crate) struct Queue {
    schedule: Schedule,
    grace: Duration,
    random: u64,
    next: OpId,
    ops: BTreeMap<OpId, Op>,
    /// Ready for an engine.
    ready: BTreeSet<OpId>,
    /// Ready for the thread that calls host functions.
    ready_host: BTreeSet<OpId>,
    /// Started, and waiting for a value in memory.
    blocked: BTreeSet<OpId>,
    /// Taken by an engine or a caller and not back yet, host functions left out.
    running: BTreeSet<OpId>,
}

impl Queue {
    pub(crate) fn new(schedule: Schedule, grace: Duration) -> Self {
        let seed = if let Schedule::Random(seed) = schedule { seed } else { 0 };
        Self {
            schedule,
            // A deadline must be a time that the clock can tell.
            grace: grace.min(LONGEST_GRACE),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d,
            next: 1,
            ops: BTreeMap::new(),
            ready: BTreeSet::new(),
            ready_host: BTreeSet::new(),
            blocked: BTreeSet::new(),
            running: BTreeSet::new(),
        }
    }

    /// Adds an operation behind those of `after` that are not complete.
    pub(crate) fn add(&mut self, origin: Origin, work: Work, after: &[OpId]) -> OpId {
        let id = self.next;
        self.next += 1;
        let dependencies: BTreeSet<_> = after.iter().copied().filter(|op| self.is_pending(*op)).collect();
        for dependency in &dependencies {
            if let Some(op) = self.ops.get_mut(dependency) {
                op.dependents.push(id);
            }
        }
        let ready = dependencies.is_empty();
        let deadline = Instant::now() + self.grace;
        let op =
            Op { origin, work: Some(work), dependencies, dependents: Vec::new(), demanded: false, deadline };
        self.ops.insert(id, op);
        if ready {
            self.make_ready(id);
        }
        id
    }

    /// Makes `later`, which has not started, wait for `earlier` too.
    pub(crate) fn add_dependency(&mut self, later: OpId, earlier: OpId) {
        if later == earlier || !self.is_pending(earlier) {
            return;
        }
        let Some(op) = self.ops.get_mut(&later) else { return };
        let demanded = op.demanded;
        if op.dependencies.insert(earlier)
            && let Some(op) = self.ops.get_mut(&earlier)
        {
            op.dependents.push(later);
        }
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

    /// Takes the next operation for `taker`.
    pub(crate) fn take(&mut self, taker: Taker) -> Option<(OpId, Origin, Work)> {
        let id = match (self.schedule, taker) {
            (Schedule::Async | Schedule::Eager, _) => self.ready.first().copied(),
            (Schedule::Late, _) | (Schedule::Random(_), Taker::Asker) => self.due(&self.ready),
            (Schedule::Random(_), Taker::Waiter) => self.any_ready(),
            // What somebody waits for is the waiter's to draw, or two threads would decide the order.
            (Schedule::Random(_), Taker::Engine) => self.expired(&self.ready),
        }?;
        self.ready.remove(&id);
        self.start(id)
    }

    /// Takes the next host function.
    pub(crate) fn take_host(&mut self) -> Option<(OpId, Origin, Work)> {
        let id = match self.schedule {
            Schedule::Async | Schedule::Eager => self.ready_host.first().copied(),
            Schedule::Late | Schedule::Random(_) => self.due(&self.ready_host),
        }?;
        self.ready_host.remove(&id);
        self.start(id)
    }

    /// Takes one that waits for a value in memory, to look again. Each is returned once a round.
    pub(crate) fn take_blocked(&mut self, after: OpId) -> Option<(OpId, Origin, Work)> {
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
    pub(crate) fn block(&mut self, id: OpId, work: Work) {
        self.running.remove(&id);
        if let Some(op) = self.ops.get_mut(&id) {
            op.work = Some(work);
            self.blocked.insert(id);
        }
    }

    pub(crate) fn complete(&mut self, id: OpId) {
        self.running.remove(&id);
        let Some(op) = self.ops.remove(&id) else { return };
        for dependent in op.dependents {
            let ready = self.ops.get_mut(&dependent).is_some_and(|op| {
                op.dependencies.remove(&id);
                op.dependencies.is_empty()
            });
            if ready {
                self.make_ready(dependent);
            }
        }
    }

    /// Whether a random schedule lets something run now, after a call enqueued more.
    pub(crate) fn flip(&mut self) -> bool {
        matches!(self.schedule, Schedule::Random(_)) && self.draw(2) == 0
    }

    fn make_ready(&mut self, id: OpId) {
        let host = self.ops.get(&id).is_some_and(|op| op.work.as_ref().is_some_and(Work::is_host));
        if host {
            self.ready_host.insert(id)
        } else {
            self.ready.insert(id)
        };
    }

    fn start(&mut self, id: OpId) -> Option<(OpId, Origin, Work)> {
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
        set.iter().copied().find(|id| self.ops.get(id).is_some_and(|op| op.deadline <= now))
    }

    /// Any ready operation; a host function that is drawn is only let go.
    fn any_ready(&mut self) -> Option<OpId> {
        while !self.ready.is_empty() || !self.ready_host.is_empty() {
            let drawn = self.draw(self.ready.len() + self.undemanded_hosts());
            if let Some(id) = self.ready.iter().nth(drawn) {
                return Some(*id);
            }
            let index = drawn - self.ready.len();
            let host = self.ready_host.iter().copied().filter(|id| !self.is_demanded(*id)).nth(index)?;
            self.demand(&[host]);
        }
        None
    }

    fn undemanded_hosts(&self) -> usize {
        self.ready_host.iter().filter(|id| !self.is_demanded(**id)).count()
    }

    /// A number below `limit`, from xorshift64*: any fixed sequence serves.
    fn draw(&mut self, limit: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let high = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or(0) % limit.max(1)
    }
}

const LONGEST_GRACE: Duration = Duration::from_secs(1 << 32);
