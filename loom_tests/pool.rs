//! Retired memory between holders, the device and other streams, as `pool` puts the pieces together.

use super::{Guarded, model};
use crate::lockfree::buffer_state::BufferWord;
use crate::lockfree::index_stack::{IndexStack, NONE};
use crate::lockfree::tickets::Tickets;
use crate::lockfree::turn::Turns;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// One block, one stream.
struct Rig {
    state: BufferWord,
    /// The ticket of the last use.
    used: AtomicU64,
    link: AtomicU32,
    list: IndexStack,
    turns: Turns,
    tickets: Tickets,
    /// What the stream has been given: the use of the block, or a marker.
    queue: Mutex<Vec<Option<u64>>>,
    memory: Guarded,
}

impl Rig {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: BufferWord::new(),
            used: AtomicU64::new(0),
            link: AtomicU32::new(NONE),
            list: IndexStack::new(),
            turns: Turns::new(),
            tickets: Tickets::new(),
            queue: Mutex::new(Vec::new()),
            memory: Guarded::new(1),
        })
    }

    /// A life: the host writes, the device reads, the last handle ends.
    fn use_and_drop(&self) {
        self.state.begin().unwrap();
        self.memory.own(0);
        self.queue.lock().unwrap().push(None);
        self.used.store(self.tickets.issue(), Relaxed);
        assert!(self.state.release().unwrap());
        self.list.push(0, |_| &self.link);
    }

    fn mark(&self) {
        let number = self.tickets.begin_marker();
        self.queue.lock().unwrap().push(Some(number));
        self.tickets.end_marker(number);
    }

    fn run(&self) {
        for work in std::mem::take(&mut *self.queue.lock().unwrap()) {
            match work {
                None => self.memory.own(0),
                Some(number) => self.tickets.observe(number),
            }
        }
    }

    /// Takes the block for anybody, if the device is past its use.
    fn drain(&self) -> bool {
        let Some(_turn) = self.turns.take() else { return false };
        let mut drained = false;
        self.list.sort(
            |_| &self.link,
            |_| {
                drained = self.tickets.is_complete(self.used.load(Relaxed));
                drained
            },
        );
        if drained {
            self.state.reclaim();
            self.memory.own(0);
        }
        drained
    }
}

/// A block is retired and drained while the device uses it, and used again by who gets it.
#[test]
fn pool_retire_and_drain() {
    model("pool_retire_and_drain", || {
        let rig = Rig::new();
        let (device, drainer) = (rig.clone(), rig.clone());
        let device = thread::spawn(move || device.run());
        let drainer = thread::spawn(move || drainer.drain());
        rig.use_and_drop();
        rig.mark();
        device.join().unwrap();
        let drained = drainer.join().unwrap();
        rig.run();
        assert!(drained || rig.drain(), "a complete block comes back");
        rig.use_and_drop();
    });
}

/// The limit is one block, and another thread has it in hand: who waits for the turn finds it.
#[test]
fn pool_limit_and_reclaim() {
    model("pool_limit_and_reclaim", || {
        let rig = Rig::new();
        rig.use_and_drop();
        let other = rig.clone();
        // Looks at the list, as for a block of another size, and puts all of it back.
        let looker = thread::spawn(move || {
            if let Some(_turn) = other.turns.take() {
                other.list.sort(|_| &other.link, |_| false);
            }
        });
        let turn = loop {
            match rig.turns.take() {
                Some(turn) => break turn,
                None => thread::yield_now(),
            }
        };
        let found = rig.list.pop(|_| &rig.link);
        assert_eq!(found, Some(0), "refused while a block is free for the stream");
        drop(turn);
        rig.state.begin().unwrap();
        looker.join().unwrap();
    });
}
