//! The order of operations, for the check `race`: vector clocks.
//!
//! ```text
//!   lane of stream 1   1 ---- 2 ---- 3              a lane: operations that run one by one
//!                               \                   a point: an operation's number on its lane
//!   lane of stream 2   1 --------> 2   clock of this: {1: 2, 2: 2}
//! ```
//!
//! A [`Lane`] is a stream, or one node of an executable graph, whose launches never overlap. The
//! [`Clock`] of an operation names for each lane the last point that it comes behind. Points that
//! the host knew when the operation was submitted are not in it: the host's knowledge only grows,
//! so each growth has a number, lanes keep what was known at which, and a clock the number.

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

/// Names an operation; grows with the order of the calls, never used twice.
pub(crate) type OpId = u64;

/// Operations of which each comes behind the one before.
#[derive(Debug)]
pub(crate) struct Lane {
    number: u64,
    points: Mutex<Points>,
}

#[derive(Debug, Default)]
struct Points {
    /// The last point, of an operation that runs or has run.
    last: u64,
    /// From which growth of the host's knowledge on it knew up to which point; both grow.
    known: Vec<(u64, u64)>,
}

impl Lane {
    /// The next operation's point.
    pub(crate) fn advance(&self) -> u64 {
        let mut points = self.points.lock();
        points.last += 1;
        points.last
    }

    /// Up to which point the host knew the lane after its knowledge had grown `growth` times.
    pub(crate) fn known_at(&self, growth: u64) -> u64 {
        let points = self.points.lock();
        let later = points.known.partition_point(|(since, _)| *since <= growth);
        later.checked_sub(1).map_or(0, |index| points.known[index].1)
    }

    /// Notes that the host knows up to `point` since `growth`; what it knew before `floor` will not
    /// be asked for.
    fn learn(&self, growth: u64, point: u64, floor: u64) {
        let mut points = self.points.lock();
        if points.known.last().is_some_and(|(_, known)| *known >= point) {
            return;
        }
        points.known.push((growth, point));
        let old = points.known.partition_point(|(since, _)| *since <= floor).saturating_sub(1);
        if old >= MOST_OLD {
            points.known.drain(..old);
        }
    }
}

/// The number of outdated entries that are kept.
const MOST_OLD: usize = 16;

/// The operations that an operation follows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// The number of times that the host's knowledge had grown.
    growth: u64,
    /// The last point of each lane that the host did not know, by the lanes' numbers.
    beyond: Vec<(Arc<Lane>, u64)>,
}

impl Clock {
    /// Whether the operation at a point of `lane` comes before.
    pub(crate) fn covers(&self, lane: &Lane, point: u64) -> bool {
        let known = self.beyond.binary_search_by_key(&lane.number, |(lane, _)| lane.number);
        known.is_ok_and(|index| self.beyond[index].1 >= point)
            || lane.known_at(self.growth) >= point
    }

    /// Comes behind all that `other` comes behind, too.
    pub(crate) fn join(&mut self, other: &Self) {
        self.growth = self.growth.max(other.growth);
        for (lane, point) in &other.beyond {
            self.add(lane, *point);
        }
    }

    /// Comes behind a point, or is at it.
    pub(crate) fn add(&mut self, lane: &Arc<Lane>, point: u64) {
        match self.beyond.binary_search_by_key(&lane.number, |(lane, _)| lane.number) {
            Ok(index) => self.beyond[index].1 = self.beyond[index].1.max(point),
            Err(index) => self.beyond.insert(index, (Arc::clone(lane), point)),
        }
    }

    /// Drops the points that the host knew.
    pub(crate) fn prune(&mut self) {
        let growth = self.growth;
        self.beyond.retain(|(lane, point)| lane.known_at(growth) < *point);
    }
}

/// The host's knowledge, and the clocks of complete operations.
#[derive(Debug, Default)]
pub(crate) struct Order {
    growth: u64,
    /// No operation that is not complete was submitted before this growth.
    floor: u64,
    last_lane: u64,
    lanes: Vec<Weak<Lane>>,
    most_lanes: usize,
    done: HashMap<OpId, Arc<Clock>>,
    most_done: usize,
}

impl Order {
    pub(crate) fn lane(&mut self) -> Arc<Lane> {
        self.last_lane += 1;
        let lane = Arc::new(Lane { number: self.last_lane, points: Mutex::default() });
        if self.lanes.len() >= self.most_lanes {
            self.lanes.retain(|lane| lane.strong_count() > 0);
            self.most_lanes = 2 * self.lanes.len() + FEW;
        }
        self.lanes.push(Arc::downgrade(&lane));
        lane
    }

    /// The clock of an operation that the host submits now and that waits for nothing.
    pub(crate) fn now(&self) -> Clock {
        Clock { growth: self.growth, beyond: Vec::new() }
    }

    /// The clock of what comes behind everything that runs or has run.
    pub(crate) fn everything(&self) -> Clock {
        let mut clock = self.now();
        for lane in self.lanes.iter().filter_map(Weak::upgrade) {
            let last = lane.points.lock().last;
            if lane.known_at(self.growth) < last {
                clock.add(&lane, last);
            }
        }
        clock
    }

    /// Lets `clock` come behind a complete operation. One whose clock is not kept any more counts
    /// as behind everything.
    pub(crate) fn join_done(&self, clock: &mut Clock, op: OpId) {
        match self.done.get(&op) {
            Some(done) => clock.join(done),
            None if op == 0 => {}
            None => clock.join(&self.everything()),
        }
    }

    /// Keeps the clock of an operation that has completed.
    pub(crate) fn complete(&mut self, op: OpId, clock: Clock) {
        self.done.insert(op, Arc::new(clock));
    }

    /// Whether so many clocks are kept that some should go.
    pub(crate) fn is_full(&self) -> bool {
        self.done.len() > self.most_done.max(FEW)
    }

    /// Keeps the clocks of `live` operations only.
    pub(crate) fn keep(&mut self, live: &HashSet<OpId>) {
        self.done.retain(|op, _| live.contains(op));
        self.most_done = 2 * self.done.len() + FEW;
    }

    /// Notes that the host knows what `clock` comes behind.
    pub(crate) fn learn(&mut self, clock: &Clock) {
        let news = |(lane, point): &&(Arc<Lane>, u64)| lane.known_at(self.growth) < *point;
        if !clock.beyond.iter().any(|point| news(&point)) {
            return;
        }
        self.growth += 1;
        for (lane, point) in &clock.beyond {
            lane.learn(self.growth, *point, self.floor);
        }
    }

    /// Notes what the oldest operation that is not complete knew of the host, if there is one.
    pub(crate) fn set_floor(&mut self, oldest: Option<u64>) {
        self.floor = oldest.unwrap_or(self.growth);
    }

    /// What all operations that are not complete, and all later ones, come behind of a lane.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }
}

impl Clock {
    pub(crate) fn growth(&self) -> u64 {
        self.growth
    }
}

/// Fewer lanes and clocks than this are not searched for outdated ones.
const FEW: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_covers_what_it_joined_and_what_the_host_knew() {
        let mut order = Order::default();
        let (one, two) = (order.lane(), order.lane());
        let mut first = order.now();
        let point = one.advance();
        first.add(&one, point);
        let before = order.now();
        assert!(!before.covers(&one, point));
        let mut joined = before.clone();
        joined.join(&first);
        assert!(joined.covers(&one, point) && !joined.covers(&one, point + 1));
        order.learn(&first);
        assert!(order.now().covers(&one, point));
        assert!(!before.covers(&one, point), "it was submitted before the host knew");
        assert!(!order.now().covers(&two, 1));
        joined.join(&order.now());
        joined.prune();
        assert!(joined.beyond.is_empty() && joined.covers(&one, point));
    }

    #[test]
    fn what_is_not_asked_for_any_more_is_forgotten_and_the_rest_is_not() {
        let mut order = Order::default();
        let lane = order.lane();
        for _ in 0..100 {
            let mut clock = order.now();
            clock.add(&lane, lane.advance());
            order.learn(&clock);
            order.set_floor(Some(order.growth.saturating_sub(3)));
        }
        assert!(lane.points.lock().known.len() < 3 * MOST_OLD);
        for back in 0..3 {
            assert_eq!(lane.known_at(order.growth - back), 100 - back);
        }
    }

    #[test]
    fn an_operation_whose_clock_is_gone_counts_as_behind_everything() {
        let mut order = Order::default();
        let lane = order.lane();
        let point = lane.advance();
        let mut clock = order.now();
        order.join_done(&mut clock, 0);
        assert!(!clock.covers(&lane, point));
        order.join_done(&mut clock, 7);
        assert!(clock.covers(&lane, point));
    }
}
