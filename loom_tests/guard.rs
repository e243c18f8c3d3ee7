//! Staging's guard of the destination: the real guard and the real streams of a driver, which
//! reports operations on the destination that nothing orders.

#![expect(unsafe_code, reason = "allocates, fills and reads memory of the driver")]

use super::machine::{Machine, model, spawn};
use crate::driver::{Event, EventKind};
use crate::lockfree::step_word::Begun;
use crate::staging::guard::Guard;
use crate::stream::Stream;
use loom::sync::Arc;
use softcuda::Schedule;
use std::ops::Range;

const SIZE: usize = 64;

/// The destination, a place that reads of it go to, and streams.
struct Scene {
    guard: Guard,
    streams: [Stream; 3],
    destination: u64,
    copies: u64,
    machine: Machine,
}

impl Scene {
    /// One step is in stream 0, and nothing else reads it.
    fn new() -> Arc<Self> {
        // `Late`: nothing runs before it is waited for, so the driver sees all of it unordered that
        // only time would order.
        let machine = Machine::new(Schedule::Late);
        let streams = [machine.stream(), machine.stream(), machine.stream()];
        let memory = || {
            let mut address = 0;
            let entry = &machine.context.driver().api().mem_alloc;
            let _scope = machine.context.enter().unwrap();
            // SAFETY: `address` is valid for writes for the whole call.
            unsafe { entry.call(&raw mut address, SIZE) }.unwrap();
            address
        };
        let (destination, copies) = (memory(), memory());
        let guard = Guard::new(&machine.context, false);
        let scene = Self { guard, streams, destination, copies, machine };
        scene.submit(0, 0..SIZE);
        Arc::new(scene)
    }

    /// A step as `staging` submits it; the fill of a part stands for the graph. Steps that two
    /// threads submit at once have no order, and so no part in common.
    fn submit(&self, stream: usize, part: Range<usize>) -> Begun {
        let stream = &self.streams[stream];
        let begun = self.guard.begin(stream).unwrap();
        // SAFETY: device memory of that size, which is never freed.
        unsafe { stream.fill_d8(self.destination + part.start as u64, 0, part.len()) }.unwrap();
        if !self.guard.is_in_order(begun, stream) {
            self.guard.launched(begun, stream, None);
        }
        begun
    }

    /// Reads what the step staged, if it is still the last.
    fn read(&self, begun: Begun, copied: &Event, stream: usize) {
        let stream = &self.streams[stream];
        if self.guard.note(begun.number, self.streams[0].id(), stream, Some(copied), false).is_ok()
        {
            // SAFETY: device memory of that size, which is never freed.
            unsafe { stream.copy_dtod(self.copies, self.destination, SIZE) }.unwrap();
        }
    }

    /// Lets everything run; the driver has seen no two operations that nothing orders.
    fn end(&self) {
        self.streams.iter().for_each(|stream| stream.synchronize().unwrap());
        let races = self.machine.simulator.violations();
        assert!(races.is_empty(), "not ordered on the device: {races:?}");
    }
}

/// Two threads submit to two streams at once, and what comes later is behind both.
#[test]
fn guard_orders_steps_at_once() {
    model("guard_orders_steps_at_once", || {
        let scene = Scene::new();
        let other = Arc::clone(&scene);
        let thread = spawn(move || other.submit(1, SIZE / 2..SIZE));
        scene.submit(0, 0..SIZE / 2);
        thread.join().unwrap();
        scene.submit(2, 0..SIZE);
        scene.end();
    });
}

/// A reader is either waited for by the next step or told that it is too late.
#[test]
fn guard_orders_steps_behind_readers() {
    model("guard_orders_steps_behind_readers", || {
        let scene = Scene::new();
        let begun = scene.submit(0, 0..SIZE);
        let copied = Event::new(&scene.machine.context, EventKind::Ordering).unwrap();
        scene.streams[0].record(&copied).unwrap();
        let other = Arc::clone(&scene);
        let thread = spawn(move || other.read(begun, &copied, 2));
        scene.submit(0, 0..SIZE);
        thread.join().unwrap();
        scene.end();
    });
}

/// One thread goes to and fro between two streams, another stays with its own.
#[test]
fn guard_orders_steps_to_and_fro() {
    model("guard_orders_steps_to_and_fro", || {
        let scene = Scene::new();
        let other = Arc::clone(&scene);
        let thread = spawn(move || {
            other.submit(1, SIZE / 2..SIZE);
            other.submit(0, SIZE / 2..SIZE);
        });
        scene.submit(0, 0..SIZE / 2);
        thread.join().unwrap();
        scene.submit(2, 0..SIZE);
        scene.end();
    });
}
