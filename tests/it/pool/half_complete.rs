#![expect(unsafe_code, reason = "passes commits on")]
//! A request that waits for the device, of which a part completes while it looks.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use wharf::Error;
use wharf::memory::{DeviceMemoryResource, MemoryKind, MemoryResource};
use wharf::pool::Buffer;

use super::{SPAN, builder, context, gate, streams};
use crate::backend::{Config, Simulator, on_machine};
use crate::deadline::LONG;

const MIB: usize = 1 << 20;

/// A device's memory; each commit calls a function first.
#[derive(Debug)]
struct Watched {
    memory: DeviceMemoryResource,
    on_commit: OnCommit,
}

struct OnCommit(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for OnCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnCommit")
    }
}

// SAFETY: everything is the other resource's.
unsafe impl MemoryResource for Watched {
    fn base(&self) -> u64 {
        self.memory.base()
    }

    fn size(&self) -> usize {
        self.memory.size()
    }

    fn granularity(&self) -> usize {
        self.memory.granularity()
    }

    fn kind(&self) -> MemoryKind {
        self.memory.kind()
    }

    fn ordinal(&self) -> Option<i32> {
        self.memory.ordinal()
    }

    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        (self.on_commit.0)();
        // SAFETY: the caller's promise is that of the other resource.
        unsafe { self.memory.commit(offset, len) }
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: as above.
        unsafe { self.memory.decommit(offset, len) }
    }
}

/// What the test has to do at commits to come.
#[derive(Default)]
struct Plan {
    /// Commits until the first part completes.
    rest: usize,
    first: Option<(Sender<()>, wharf::timeline::Ticket)>,
    second: Option<Sender<()>>,
}

impl Plan {
    fn note_commit(&mut self) {
        if self.rest > 0 {
            self.rest -= 1;
        } else if let Some((gate, ticket)) = self.first.take() {
            drop(gate);
            ticket.wait(LONG).unwrap();
        } else {
            drop(self.second.take());
        }
    }
}

/// The pool has looked, and the first part of what the stream has dropped completes then. What is
/// left to wait for is the second part, which lies behind the first.
#[test]
fn a_request_waits_for_the_rest_where_a_part_completes_behind_its_look() {
    for rest in 0..2 {
        let machine = Simulator::new(Config { device_memory: 96 << 20, ..Config::default() });
        let machine = Arc::new(machine);
        on_machine(&machine, |driver| {
            let context = context(driver);
            let [stream] = streams(&context);
            let plan = Arc::new(Mutex::new(None::<Plan>));
            let at_commit = Arc::clone(&plan);
            let on_commit = OnCommit(Box::new(move || {
                if let Some(plan) = &mut *at_commit.lock().unwrap() {
                    plan.note_commit();
                }
            }));
            let memory = DeviceMemoryResource::new(&context, SPAN).unwrap();
            let pool = builder().wait(LONG).build(Watched { memory, on_commit }).unwrap();
            let alloc = |size| pool.alloc::<u8>(size, &stream).unwrap();
            // What stays in use lies behind each, so that neither serves with what is beside it.
            let [(first, behind_first), (second, behind_second)] =
                std::array::from_fn(|_| (alloc(32 * MIB), alloc(2 * MIB)));
            let use_and_drop = |buffer: Buffer<u8>| {
                let closed = gate(&stream);
                buffer.fill(1, &stream).unwrap();
                // Ahead of the marker, so that it does not wait for what comes next.
                let ticket = stream.ticket().unwrap();
                assert!(stream.mark().unwrap());
                drop(buffer);
                (closed, ticket)
            };
            let first = use_and_drop(first);
            let (second, _) = use_and_drop(second);
            let both = Plan { rest, first: Some(first), second: Some(second) };
            *plan.lock().unwrap() = Some(both);
            let all = alloc(80 * MIB);
            let plan = plan.lock().unwrap().take().unwrap();
            assert!(plan.first.is_none(), "{} commits were to come", plan.rest);
            drop((all, behind_first, behind_second, plan));
            pool.close(LONG).unwrap();
        });
        assert_eq!(machine.leaks(), Vec::<String>::new());
    }
}
