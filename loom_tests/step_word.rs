//! Steps that write one destination: the next one comes after all uses of what is staged.

use super::model;
use crate::lockfree::step_word::{Begun, StepWord};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// The word, what is noted of the last steps, and the driver's queues, each with a lock of its own.
struct Scene {
    word: StepWord,
    uses: Mutex<Vec<Use>>,
    queues: [Mutex<Vec<Launch>>; 3],
}

/// A stream whose work so far the next step waits for, and the step that has done so.
struct Use {
    stream: u64,
    behind: u64,
}

/// What a launch waits for: a stream, and how much was in it.
#[derive(Clone)]
struct Launch(Vec<(u64, usize)>);

impl Scene {
    /// One step is in stream 0, and nothing else reads it.
    fn new() -> Arc<Self> {
        let queues = [(); 3].map(|()| Mutex::new(Vec::new()));
        let scene = Self { word: StepWord::new(), uses: Mutex::new(Vec::new()), queues };
        scene.submit(0);
        Arc::new(scene)
    }

    fn queue(&self, stream: u64) -> &Mutex<Vec<Launch>> {
        &self.queues[usize::try_from(stream).unwrap()]
    }

    /// As the guard of the destination does it; which step it was.
    fn submit(&self, stream: u64) -> u64 {
        let Begun { number, in_order } = self.word.begin(stream);
        let mut waits = Vec::new();
        if !in_order {
            let mut uses = self.uses.lock().unwrap();
            self.word.hold();
            for used in &mut *uses {
                used.behind = number;
                waits.push((used.stream, self.queue(used.stream).lock().unwrap().len()));
            }
        }
        self.queue(stream).lock().unwrap().push(Launch(waits));
        if !in_order || !self.word.is_in_order(stream) {
            let mut uses = self.uses.lock().unwrap();
            if !in_order {
                uses.retain(|used| used.behind != number);
            }
            uses.retain(|used| used.stream != stream);
            uses.push(Use { stream, behind: 0 });
            if uses.len() == 1 { self.word.settle(stream) } else { self.word.hold() }
        }
        number
    }

    /// Notes that a stream reads step `number`. `false` if a later one has begun.
    fn read(&self, number: u64, stream: u64) -> bool {
        let mut uses = self.uses.lock().unwrap();
        let is_noted = self.word.note(number);
        if is_noted {
            uses.push(Use { stream, behind: 0 });
        }
        is_noted
    }

    /// How many launches of each stream a step comes after that is submitted now, to a stream of
    /// its own.
    fn covered(&self) -> [usize; 3] {
        let mut covered = [0; 3];
        let mut open: Vec<_> = {
            let uses = self.uses.lock().unwrap();
            uses.iter()
                .map(|used| (used.stream, self.queue(used.stream).lock().unwrap().len()))
                .collect()
        };
        while let Some((stream, len)) = open.pop() {
            let known = &mut covered[usize::try_from(stream).unwrap()];
            if *known < len {
                *known = len;
                let queue = self.queue(stream).lock().unwrap();
                open.extend(queue[..len].iter().flat_map(|launch| launch.0.clone()));
            }
        }
        covered
    }
}

/// Two threads submit to two streams at once, and what comes later is behind both.
#[test]
fn steps_at_once_are_both_waited_for() {
    model("steps_at_once_are_both_waited_for", || {
        let scene = Scene::new();
        let other = Arc::clone(&scene);
        let thread = thread::spawn(move || other.submit(1));
        scene.submit(0);
        thread.join().unwrap();
        assert_eq!(scene.covered(), [2, 1, 0]);
    });
}

/// One thread goes to and fro between two streams, another stays with its own.
#[test]
fn steps_to_and_fro_are_waited_for() {
    model("steps_to_and_fro_are_waited_for", || {
        let scene = Scene::new();
        let other = Arc::clone(&scene);
        let thread = thread::spawn(move || (other.submit(1), other.submit(0)));
        scene.submit(0);
        thread.join().unwrap();
        assert_eq!(scene.covered(), [3, 1, 0]);
    });
}

/// A reader is either waited for by the next step or told that it is too late.
#[test]
fn step_sees_the_reader_or_the_reader_the_step() {
    model("step_sees_the_reader_or_the_reader_the_step", || {
        let scene = Scene::new();
        let other = Arc::clone(&scene);
        let thread = thread::spawn(move || other.read(1, 2));
        scene.submit(0);
        let is_noted = thread.join().unwrap();
        let waited = scene.queues[0].lock().unwrap()[1].0.iter().any(|(stream, _)| *stream == 2);
        assert_eq!(is_noted, waited);
    });
}
