//! Tickets: a thread that finds one complete comes after the device's use.

use super::{Guarded, model};
use crate::lockfree::tickets::Tickets;
use loom::sync::{Arc, Mutex};
use loom::thread;

/// A stream: the driver's queue has an order, and a lock of its own.
enum Work {
    Use(usize),
    Marker(u64),
}

struct Rig {
    tickets: Tickets,
    queue: Mutex<Vec<Work>>,
    memory: Guarded,
}

impl Rig {
    fn new() -> Arc<Self> {
        let (tickets, queue) = (Tickets::new(), Mutex::new(Vec::new()));
        Arc::new(Self { tickets, queue, memory: Guarded::new(2) })
    }

    /// Hands memory to the device; the ticket of its use.
    fn submit(&self, index: usize) -> u64 {
        self.queue.lock().unwrap().push(Work::Use(index));
        self.tickets.issue()
    }

    fn mark(&self) {
        let number = self.tickets.begin_marker();
        self.queue.lock().unwrap().push(Work::Marker(number));
        self.tickets.end_marker(number);
    }

    /// What the device does with what is in the queue by now.
    fn run(&self) {
        let work = std::mem::take(&mut *self.queue.lock().unwrap());
        for work in work {
            match work {
                Work::Use(index) => self.memory.own(index),
                Work::Marker(number) => self.tickets.observe(number),
            }
        }
    }

    /// Waits for the device, and tells the tickets.
    fn synchronize(&self) {
        let number = self.tickets.begin_marker();
        self.run();
        self.tickets.end_marker(number);
        self.tickets.observe(number);
    }

    fn is_queued(&self, index: usize) -> bool {
        self.queue
            .lock()
            .unwrap()
            .iter()
            .any(|work| matches!(work, Work::Use(queued) if *queued == index))
    }

    fn reuse_if_complete(&self, index: usize, ticket: u64) -> bool {
        let complete = self.tickets.is_complete(ticket);
        if complete {
            self.memory.own(index);
        }
        complete
    }
}

/// A marker goes in just before or just after a use.
#[test]
fn tickets_marker_beside_use() {
    model("tickets_marker_beside_use", || {
        let rig = Rig::new();
        let (marking, device) = (rig.clone(), rig.clone());
        let marker = thread::spawn(move || marking.mark());
        let device = thread::spawn(move || device.run());
        let ticket = rig.submit(0);
        rig.reuse_if_complete(0, ticket);
        marker.join().unwrap();
        device.join().unwrap();
        rig.run();
        let is_marked = rig.tickets.is_marked(ticket);
        assert_eq!(
            is_marked,
            rig.reuse_if_complete(0, ticket),
            "a ticket that is marked needs no other marker"
        );
        rig.mark();
        rig.run();
        assert!(rig.tickets.is_marked(ticket));
        assert!(rig.reuse_if_complete(0, ticket), "a later marker covers every ticket before it");
    });
}

/// A thread waits until the device has done all that is in the queue, as `Stream::synchronize`
/// does, beside another's use: what that completes is what was in the queue.
#[test]
fn tickets_proof_beside_use() {
    model("tickets_proof_beside_use", || {
        let rig = Rig::new();
        let waiter = rig.clone();
        let waiter = thread::spawn(move || waiter.synchronize());
        let first = rig.submit(0);
        assert!(!rig.tickets.is_complete(first) || !rig.is_queued(0), "complete before it has run");
        waiter.join().unwrap();
        assert!(!rig.tickets.is_complete(first) || !rig.is_queued(0), "complete before it has run");
        rig.synchronize();
        assert!(rig.reuse_if_complete(0, first), "all that came before is complete");
        let second = rig.submit(1);
        assert!(!rig.tickets.is_complete(second), "what comes later is not");
    });
}

/// Two threads use a stream, and one asks for both.
#[test]
fn tickets_generic() {
    model("tickets_generic", || {
        let rig = Rig::new();
        let (user, device) = (rig.clone(), rig.clone());
        let user = thread::spawn(move || {
            let ticket = user.submit(0);
            user.reuse_if_complete(0, ticket);
        });
        let device = thread::spawn(move || device.run());
        let ticket = rig.submit(1);
        rig.mark();
        rig.reuse_if_complete(1, ticket);
        user.join().unwrap();
        device.join().unwrap();
    });
}
