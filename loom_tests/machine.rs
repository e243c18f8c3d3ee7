//! The software driver below a model, for types that call the driver: the streams, events and
//! contexts are the real ones.
//!
//! All threads of a model run on one thread of the system, and the driver runs work on the thread
//! that submits it (`Eager`) or waits for it (`Late`). So an execution is repeatable: a call of the
//! driver is one step, and what happens between two calls is `loom`'s choice.

#![expect(unsafe_code, reason = "vouches for values that change threads")]

use crate::driver::{Context, Driver};
use crate::stream::Stream;
use crate::sync::thread::{self, JoinHandle};
use softcuda::{Binding, Checks, Config, Grace, Schedule, Simulator};
use std::sync::Arc;

pub(super) struct Machine {
    pub(super) context: Context,
    // Last: what the context gives back goes to this machine.
    _bound: Binding,
    pub(super) simulator: Simulator,
}

impl Machine {
    pub(super) fn new(schedule: Schedule) -> Self {
        let simulator = Simulator::new(Config {
            schedule,
            grace: Grace::Never,
            checks: Checks::ALL,
            print_violations: false,
            ..Config::default()
        });
        let _bound = simulator.bind();
        let driver = Driver::from_api(simulator.api().unwrap()).unwrap();
        let context = Context::retain(&driver.device(0).unwrap()).unwrap();
        Self { context, _bound, simulator }
    }

    /// A stream that has issued a ticket, so that it has what tickets need.
    pub(super) fn stream(&self) -> Stream {
        let stream = Stream::new(&self.context).unwrap();
        stream.ticket().unwrap();
        stream
    }
}

/// As [`model`](super::model), with threads whose stacks have room for calls of the driver.
#[track_caller]
pub(super) fn model(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let body = Arc::new(body);
    super::model(name, move || {
        let body = Arc::clone(&body);
        spawn(move || body()).join().unwrap();
    });
}

/// A thread that may call the driver.
pub(super) struct Thread<T>(JoinHandle<Moved<T>>);

pub(super) fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> Thread<T> {
    let body = Moved(body);
    let thread = thread::Builder::new().stack_size(STACK);
    Thread(thread.spawn(move || Moved(body.take()())).unwrap())
}

impl<T> Thread<T> {
    pub(super) fn join(self) -> std::thread::Result<T> {
        self.0.join().map(Moved::take)
    }
}

/// What goes from one thread of a model to another.
struct Moved<T>(T);

// SAFETY: the threads of a model are coroutines of one thread of the system.
unsafe impl<T> Send for Moved<T> {}

impl<T> Moved<T> {
    fn take(self) -> T {
        self.0
    }
}

/// In words.
const STACK: usize = 64 << 10;
