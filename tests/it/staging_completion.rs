#![expect(unsafe_code, reason = "says what the device has done")]
//! What says that a ring slot's copies are done: words, events, or the engine.

use std::thread;

use wharf::graph::{GraphDefinition, NodeKind};
use wharf::staging::{
    BuildError, Completion, InputBuffers, InputBuffersBuilder, Len, OutputBuffers, StageError,
    StallCause,
};
use wharf::{Context, Driver, Stream};

use crate::backend::{machine, on_each_driver};
use crate::deadline::{LONG, SHORT};
use crate::graph_rig::Gate;
use crate::staging_rig::{context, words};

on_each_driver!(
    steps_arrive_with_every_completion,
    readers_are_guarded_with_every_completion,
    an_embedded_graph_has_the_nodes_that_were_asked_for,
    an_embedded_ring_is_completed_by_the_engine,
    a_ring_slot_is_free_when_the_engine_says_so,
    a_set_in_flight_is_dropped_behind_its_copies,
    results_arrive_with_every_completion,
);

const ALL: [Completion; 4] =
    [Completion::WordAndEvent, Completion::Word, Completion::Event, Completion::Neither];

fn small(context: &Context, completion: Completion) -> InputBuffersBuilder {
    let set = InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4, 8]);
    set.max_tokens(16).completion(completion)
}

/// By graph and above the largest bucket without one.
fn steps_arrive_with_every_completion(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for completion in ALL {
        let inputs = small(&context, completion).ring_depth(2).build().unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        for value in 0..6 {
            let mut step = inputs.begin(if value % 2 == 0 { 8 } else { 12 }, 1).unwrap();
            step.write(ids).fill(value);
            let staged = step.submit(&stream).unwrap();
            assert_eq!(words::<8>(&stream, staged.device_ptr(ids)), [value; 8], "{completion:?}");
            let is_complete = staged.is_complete().unwrap();
            assert_eq!(is_complete, completion != Completion::Neither, "{completion:?}");
            // SAFETY: the stream was synchronised.
            unsafe { staged.set_complete() }.unwrap();
            assert!(staged.is_complete().unwrap());
        }
        inputs.wait().unwrap();
    }
}

/// A copy stream, and a model that reads on its own: the machine sees no race.
fn readers_are_guarded_with_every_completion(driver: &Driver) {
    let context = context(driver);
    let [copies, model] = [(); 2].map(|()| Stream::new(&context).unwrap());
    for completion in ALL {
        let inputs = small(&context, completion).ring_depth(1).build().unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        for value in 0..4 {
            let mut step = inputs.begin(8, 1).unwrap();
            step.write(ids).fill(value);
            let gate = Gate::close(&copies);
            let staged = step.submit(&copies).unwrap();
            let reader = staged.reader(&model).unwrap();
            gate.open();
            assert_eq!(words::<8>(&model, staged.device_ptr(ids)), [value; 8]);
            reader.end().unwrap();
            // SAFETY: the model came behind the copy, and was synchronised.
            unsafe { staged.set_complete() }.unwrap();
        }
    }
}

fn an_embedded_graph_has_the_nodes_that_were_asked_for(driver: &Driver) {
    let context = context(driver);
    let inputs = small(&context, Completion::default()).build().unwrap();
    let kinds = |completion| {
        let embedded = inputs.embed_with(8, 1, completion).unwrap();
        embedded.graph().nodes().map(|node| node.kind).collect::<Vec<_>>()
    };
    let (copy, event) = (NodeKind::Memcpy, NodeKind::EventRecord);
    assert_eq!(kinds(Completion::Neither), [copy]);
    assert_eq!(kinds(Completion::Event), [copy, event]);
    // Where the device cannot write words the event stands for it.
    let can_write = kinds(Completion::WordAndEvent).len() == 3;
    let word = kinds(Completion::Word);
    assert!(word.len() == 2 && (word[1] == event) != can_write, "{word:?}");
    assert!(inputs.embed_with(9, 1, Completion::Word).is_err());
    // What the graphs kept ends on a thread of the driver's.
    driver.wait_deferred(LONG).unwrap();
}

/// Two steps are in flight, and the engine's own event says when each has been copied.
fn an_embedded_ring_is_completed_by_the_engine(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let inputs = small(&context, Completion::default()).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let embedded = inputs.embed_with(8, 2, Completion::Neither).unwrap();
    let engine = |staging| {
        let mut engine = GraphDefinition::new(&context).unwrap();
        engine.child(staging, &[]).unwrap();
        engine.instantiate().unwrap()
    };
    let mut engines: Vec<_> = embedded.graphs().iter().map(engine).collect();
    let mut flying = Vec::new();
    for value in 0..8 {
        let mut step = embedded.begin(8, 1).unwrap();
        step.write(ids).fill(value);
        let engine = &mut engines[step.ring_slot()];
        let launch = || Ok::<_, StageError>(engine.launch(&stream)?);
        let staged = step.submit_with(&stream, launch).unwrap();
        flying.push((value, staged));
        if flying.len() == 2 {
            assert_eq!(embedded.try_begin(8, 1).unwrap_err(), StageError::WouldBlock);
            let last = flying[1].1.device_ptr(ids);
            assert_eq!(words::<8>(&stream, last), [value; 8]);
            for (_, staged) in flying.drain(..) {
                // SAFETY: the stream was synchronised.
                unsafe { staged.set_complete() }.unwrap();
            }
        }
    }
    drop(flying);
    drop((engines, embedded));
    driver.wait_deferred(LONG).unwrap();
}

/// What an old step is said to be does not free the slot of a later one.
fn a_ring_slot_is_free_when_the_engine_says_so(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let set = small(&context, Completion::Neither).ring_depth(1).deadline(SHORT);
    let inputs = set.build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let step = || {
        let mut step = inputs.begin(8, 1)?;
        step.write(ids).fill(1);
        let staged = step.submit(&stream)?;
        stream.synchronize()?;
        Ok::<_, StageError>(staged)
    };
    let first = step().unwrap();
    let StageError::Stalled(stall) = step().unwrap_err() else { panic!("no deadline") };
    assert_eq!(stall.cause, StallCause::NotSaid);
    assert!(stall.to_string().contains("set_complete"), "{stall}");
    // SAFETY: the stream was synchronised.
    unsafe { first.set_complete() }.unwrap();
    let second = step().unwrap();
    assert!(first.is_complete().unwrap() || !second.is_complete().unwrap());
    // SAFETY: the stream was synchronised, and this is of the first step.
    unsafe { first.set_complete() }.unwrap();
    assert_eq!(inputs.try_begin(8, 1).unwrap_err(), StageError::WouldBlock);
    // SAFETY: the stream was synchronised.
    unsafe { second.set_complete() }.unwrap();
    assert!(inputs.try_begin(8, 1).is_ok());
}

/// Whatever ends the copies, the memory goes behind them.
fn a_set_in_flight_is_dropped_behind_its_copies(driver: &Driver) {
    let context = context(driver);
    for completion in ALL {
        let [first, second] = [(); 2].map(|()| Stream::new(&context).unwrap());
        let inputs = small(&context, completion).build().unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        let gate = Gate::close(&first);
        for stream in [&first, &second] {
            let mut step = inputs.begin(8, 1).unwrap();
            step.write(ids).fill(1);
            step.submit(stream).unwrap();
        }
        let opens = thread::spawn(move || gate.open());
        drop(inputs);
        opens.join().unwrap();
        // Had the drop not waited, the copies would have no source.
        first.synchronize().unwrap();
        second.synchronize().unwrap();
        assert_eq!(context.drop_errors(), 0, "{completion:?}");
    }
}

/// The next writer waits for the copy, and the set goes behind it.
fn results_arrive_with_every_completion(driver: &Driver) {
    let context = context(driver);
    let [copies, writer] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let set = |completion| {
        let set = OutputBuffers::builder(&context).slot::<u32>("sampled", Len::Tokens);
        set.buckets([4, 8]).max_tokens(16).completion(completion)
    };
    assert_eq!(set(Completion::Neither).build().unwrap_err(), BuildError::ResultsNeedCompletion);
    for completion in &ALL[..3] {
        let outputs = set(*completion).build().unwrap();
        let sampled = outputs.slot_id::<u32>("sampled").unwrap();
        let address = outputs.static_buffers().device_ptr(sampled, 8).unwrap();
        for (value, tokens) in (1..7).zip([8, 12].into_iter().cycle()) {
            // SAFETY: the slot's own memory, of at least 8 elements.
            unsafe { writer.fill_d32(address, value, 8) }.unwrap();
            writer.synchronize().unwrap();
            let gate = Gate::close(&copies);
            let pending = outputs.fetch(tokens, 1, &copies).unwrap();
            pending.source_free_on(&writer).unwrap();
            gate.open();
            let results = pending.wait(LONG).unwrap();
            assert_eq!(results.read(sampled).unwrap()[..8], [value; 8], "{completion:?}");
        }
        let gate = Gate::close(&copies);
        drop(outputs.fetch(8, 1, &copies).unwrap());
        let opens = thread::spawn(move || gate.open());
        drop(outputs);
        opens.join().unwrap();
        copies.synchronize().unwrap();
        assert_eq!(context.drop_errors(), 0, "{completion:?}");
    }
    let violations = machine().map_or(0, |machine| machine.violations().len());
    assert_eq!(violations, 0);
}
