//! Steps, readers and fetches that own their share of the set.

use std::sync::Arc;
use std::thread;

use wharf::graph::GraphDefinition;
use wharf::staging::{InputBuffers, Len, OutputBuffers, SlotId, StageError};
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator, binder, machine, on_each_driver, on_machine};
use crate::deadline::LONG;
use crate::staging_rig::{context, words};

on_each_driver!(
    a_step_owns_its_set,
    a_staged_step_owns_its_set,
    an_owned_step_is_dropped_on_another_thread,
    an_owned_step_of_an_embedded_ring_keeps_it,
    an_owned_reader_ends_on_another_thread,
    a_fetch_owns_its_set,
);

fn set(context: &Context, depth: usize) -> (InputBuffers, SlotId<u32>) {
    let set = InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4]);
    let inputs = set.ring_depth(depth).build().unwrap();
    let ids = inputs.slot_id("ids").unwrap();
    (inputs, ids)
}

/// How many objects the machine has, if the test runs on one.
fn objects() -> usize {
    machine().map_or(0, |machine| machine.leaks().len())
}

/// The set goes, and the step that is begun is filled and submitted on another thread.
fn a_step_owns_its_set(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let before = objects();
    let (inputs, ids) = set(&context, 1);
    let step = inputs.begin_owned(4, 1).unwrap();
    let with = objects();
    drop(inputs);
    assert_eq!(objects(), with, "the set has gone before its step");
    let bind = binder();
    let submit = move || {
        let _bound = bind();
        // Dropped before the thread is let go of.
        let mut step = step;
        step.write(ids).copy_from_slice(&[1, 2, 3, 4]);
        let staged = step.submit(&stream).unwrap();
        assert_eq!(words::<4>(&stream, staged.device_ptr(ids)), [1, 2, 3, 4]);
        drop(staged);
        stream
    };
    let stream = thread::spawn(submit).join().unwrap();
    assert_eq!(objects(), before);
    drop(stream);
}

/// What was submitted has the set next, and asks its words.
fn a_staged_step_owns_its_set(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (inputs, ids) = set(&context, 1);
    let with = objects();
    let mut step = inputs.begin(4, 1).unwrap().into_owned();
    step.write(ids).fill(5);
    let staged = step.submit(&stream).unwrap();
    drop(inputs);
    assert!(objects() >= with, "the set has gone before its step");
    let (bind, reader) = (binder(), Stream::new(&context).unwrap());
    let look = move || {
        let _bound = bind();
        // Dropped before the thread is let go of.
        let (staged, reader) = (staged, reader);
        staged.reader(&reader).unwrap().end().unwrap();
        reader.synchronize().unwrap();
        assert!(staged.is_complete().unwrap());
        assert_eq!(words::<4>(&reader, staged.device_ptr(ids)), [5; 4]);
    };
    thread::spawn(look).join().unwrap();
    assert!(machine().is_none() || objects() < with);
}

fn an_owned_step_is_dropped_on_another_thread(driver: &Driver) {
    let context = context(driver);
    let (inputs, _) = set(&context, 1);
    for _ in 0..3 {
        let (step, bind) = (inputs.begin_owned(4, 1).unwrap(), binder());
        assert!(matches!(inputs.try_begin(4, 1), Err(StageError::WouldBlock)));
        let end = move || {
            let _bound = bind();
            drop(step);
        };
        thread::spawn(end).join().unwrap();
    }
    assert!(inputs.try_begin(4, 1).is_ok());
}

/// The engine's graph and the embedded handle are gone before the step is submitted.
fn an_owned_step_of_an_embedded_ring_keeps_it(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (inputs, ids) = set(&context, 1);
    let embedded = inputs.embed_ring(4, 2).unwrap();
    let mut engine = GraphDefinition::new(&context).unwrap();
    embedded.as_child_of(&mut engine, &[]).unwrap();
    let mut engine = engine.instantiate().unwrap();
    let mut step = embedded.begin(4, 1).unwrap().into_owned();
    drop((embedded, inputs));
    step.write(ids).fill(6);
    let launch = || Ok::<_, StageError>(engine.launch(&stream)?);
    let staged = step.submit_with(&stream, launch).unwrap();
    assert_eq!(words::<4>(&stream, staged.device_ptr(ids)), [6; 4]);
    drop((staged, engine));
    // The graph's own share ends on a thread of the driver's.
    driver.wait_deferred(LONG).unwrap();
}

/// The next step is refused as long as the reader is open, wherever it is.
fn an_owned_reader_ends_on_another_thread(driver: &Driver) {
    let context = context(driver);
    let [copies, other] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let model = Arc::new(Stream::new(&context).unwrap());
    let (inputs, ids) = set(&context, 2);
    let write = |value| {
        let mut step = inputs.begin(4, 1).unwrap();
        step.write(ids).fill(value);
        step
    };
    let reader = write(1).submit(&copies).unwrap().reader_owned(&model).unwrap();
    assert!(matches!(write(2).submit(&other), Err(StageError::ReaderOpen { .. })));
    drop(model);
    let bind = binder();
    let end = move || {
        let _bound = bind();
        reader.end().unwrap();
    };
    thread::spawn(end).join().unwrap();
    let staged = write(3).submit(&other).unwrap();
    assert_eq!(words::<4>(&other, staged.device_ptr(ids)), [3; 4]);
}

fn a_fetch_owns_its_set(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let before = objects();
    let outputs = OutputBuffers::builder(&context).slot::<u32>("sampled", Len::Tokens);
    let outputs = outputs.buckets([4]).build().unwrap();
    let sampled = outputs.slot_id::<u32>("sampled").unwrap();
    let fetch = outputs.begin(4, 1).unwrap();
    drop(outputs);
    let bind = binder();
    let read = move || {
        let _bound = bind();
        let pending = fetch.submit(&stream).unwrap();
        assert_eq!(pending.wait(LONG).unwrap().read(sampled).unwrap(), [0; 4]);
        drop(pending);
        stream.synchronize().unwrap();
        stream
    };
    let stream = thread::spawn(read).join().unwrap();
    assert_eq!(objects(), before);
    drop(stream);
}

/// The same calls as for a borrowed step: one in steady state.
#[test]
fn an_owned_step_is_one_driver_call() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let _current = context.enter().unwrap();
        let (inputs, ids) = set(&context, 2);
        let stream = Stream::new(&context).unwrap();
        let total = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
        for number in 0..20 {
            let before = total();
            let mut step = inputs.begin_owned(4, 1).unwrap();
            step.write(ids).fill(number);
            let staged = step.submit(&stream).unwrap();
            assert!(number < 4 || total() - before == 1, "{} calls", total() - before);
            stream.synchronize().unwrap();
            drop(staged);
        }
    });
}
