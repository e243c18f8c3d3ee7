//! Stream slots of a pool: streams that follow each other in one, on the real streams of a driver.

use super::machine::{Machine, model, spawn};
use crate::pool::record::Use;
use crate::pool::stream_slot::StreamSlots;
use crate::stream::Stream;
use crate::sync::atomic::AtomicU32;
use loom::sync::Arc;
use softcuda::Schedule;

struct Scene {
    slots: StreamSlots,
    machine: Machine,
}

impl Scene {
    fn new() -> Self {
        Self { slots: StreamSlots::new(1), machine: Machine::new(Schedule::Eager) }
    }

    /// A use by a stream now, which is not over: nothing marks the ticket.
    fn use_now(&self, stream: &Stream) -> Use {
        let timeline = stream.timeline().unwrap();
        self.slots.of(timeline).unwrap().use_now(timeline)
    }

    /// The use of a stream that is gone, of which the work is done.
    fn use_before(&self) -> Use {
        let stream = self.machine.stream();
        let before = self.use_now(&stream);
        stream.close().unwrap();
        before
    }
}

/// Two threads find or claim a slot for one stream: a ticket that either gets is not complete,
/// though an earlier stream has reached that number.
#[test]
fn stream_slot_goes_to_the_next_stream() {
    model("stream_slot_goes_to_the_next_stream", || {
        let scene = Arc::new(Scene::new());
        let before = scene.use_before();
        let stream = std::sync::Arc::new(scene.machine.stream());
        let other = (scene.clone(), stream.clone());
        let thread = spawn(move || {
            let (scene, stream) = other;
            let now = scene.use_now(&stream);
            assert!(!scene.slots.is_complete(now), "{now:?} is taken for an earlier stream's");
        });
        let now = scene.use_now(&stream);
        assert!(!scene.slots.is_complete(now), "{now:?} is taken for an earlier stream's");
        thread.join().unwrap();
        assert!(scene.slots.is_complete(before), "{before:?} is over for ever");
    });
}

/// Two streams claim the slot of one that is gone: it becomes the slot of one of them.
#[test]
fn stream_slot_goes_to_one_stream() {
    model("stream_slot_goes_to_one_stream", || {
        let scene = Arc::new(Scene::new());
        let before = scene.use_before();
        let streams = [scene.machine.stream(), scene.machine.stream()];
        let [one, another] = streams;
        let other = scene.clone();
        let thread = spawn(move || {
            let now = other.use_now(&another);
            (now, another)
        });
        let here = scene.use_now(&one);
        let (there, another) = thread.join().unwrap();
        assert_ne!(here.slot, there.slot, "two streams have one slot");
        for (of, stream) in [(here, &one), (there, &another)] {
            assert_eq!(scene.slots.get(of.slot).handle(), Some(stream.as_raw().addr()));
            assert!(!scene.slots.is_complete(of));
        }
        assert!(scene.slots.is_complete(before));
    });
}

/// A thread asks for the end of an earlier stream's use while the slot goes to the next stream: it
/// may be in doubt, but never gets the next stream's ticket to wait for.
#[test]
fn stream_slot_keeps_earlier_uses_complete() {
    model("stream_slot_keeps_earlier_uses_complete", || {
        let scene = Arc::new(Scene::new());
        let before = scene.use_before();
        let stream = scene.machine.stream();
        let other = scene.clone();
        let thread = spawn(move || {
            let now = other.use_now(&stream);
            (now, stream)
        });
        assert!(scene.slots.pending(before).is_none(), "{before:?} is over");
        let (now, _stream) = thread.join().unwrap();
        assert!(scene.slots.is_complete(before) && !scene.slots.is_complete(now));
    });
}

/// A stream gets a slot beside the end of the pool: what it leaves in a list of the slot is found
/// there, or it finds the list closed.
#[test]
fn stream_slot_comes_to_a_closed_pool() {
    model("stream_slot_comes_to_a_closed_pool", || {
        let scene = Arc::new(Scene::new());
        let stream = scene.machine.stream();
        let other = scene.clone();
        let thread = spawn(move || {
            let slot = other.slots.of(stream.timeline().unwrap()).unwrap().slot;
            (slot.lists[0].push_open(7, &AtomicU32::new(0)), stream)
        });
        scene.slots.close();
        let found = scene.slots.all().filter_map(|(_, slot)| slot.lists[0].close()).count();
        let (is_left, _stream) = thread.join().unwrap();
        assert_eq!(found == 1, is_left, "left in a list that nothing closes");
    });
}
