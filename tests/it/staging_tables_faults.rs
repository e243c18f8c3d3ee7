//! Persistent tables where steps fail, are lost, or belong to an engine's graph.

use std::sync::Arc;

use wharf::graph::GraphDefinition;
use wharf::staging::{Layout, StageError, Submission};
use wharf::{CudaError, Driver, Error, Stream};

use crate::backend::{Config, Simulator, on_machine, on_softcuda};
use crate::graph_rig::Inventory;
use crate::staging_faults::RESTORING;
use crate::staging_rig::{Checker, Noise, context};
use crate::staging_tables::{COLS, Rig, WAYS, builder};

/// Each call of a patching step fails in turn. What failed is not tried again, and not seen.
#[test]
fn a_step_that_failed_has_patched_nothing() {
    const CODE: CudaError = CudaError::OPERATING_SYSTEM;
    for (way, version) in
        WAYS.into_iter().flat_map(|way| [Config::default().version, 11_040].map(|it| (way, it)))
    {
        let make = || Arc::new(Simulator::new(Config { version, ..Config::default() }));
        let mut calls = Vec::new();
        let machine = make();
        on_machine(&machine, |driver| {
            let (mut rig, stream) = faulty(driver, way);
            let context = context(driver);
            let _current = context.enter().unwrap();
            let before = machine.all_calls();
            assert_eq!(run(&mut rig, &stream), []);
            for (name, count) in machine.all_calls() {
                let known = before.iter().find(|call| call.0 == name).map_or(0, |call| call.1);
                calls.extend((1..=count - known).map(|nth| (name, nth)));
            }
        });
        let mut failed = 0;
        calls.retain(|call| !["cuStreamAddCallback", "cuStreamSynchronize"].contains(&call.0));
        for (call, nth) in calls {
            let machine = make();
            on_machine(&machine, |driver| {
                let (mut rig, stream) = faulty(driver, way);
                let context = context(driver);
                let _current = context.enter().unwrap();
                machine.fail(call, nth, CODE);
                let failures = run(&mut rig, &stream);
                let wanted = StageError::Driver(Error::Driver { call, code: CODE });
                assert!(
                    failures == [wanted] || RESTORING.contains(&call) && failures.is_empty(),
                    "{call} {nth}: {failures:?}"
                );
                failed += failures.len();
            });
        }
        assert!(failed > 5, "{failed}");
    }
}

fn faulty(driver: &Driver, way: (Layout, Submission)) -> (Rig, Stream) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    (Rig::new(builder(&context, way).ring_depth(2).build().unwrap()), stream)
}

/// Steps that may fail, and are not tried again; what they failed with.
fn run(rig: &mut Rig, stream: &Stream) -> Vec<StageError> {
    let (checker, mut noise, mut failures) = (Checker::default(), Noise(9), Vec::new());
    for (number, tokens) in [2, 2, 2, 16, 2, 2, 2].into_iter().enumerate() {
        let sent = rig.inputs.begin(tokens, 1).and_then(|mut step| {
            if number == 5 {
                // This one patches nothing, and mends what the one before may have left.
                step.write(rig.ids).fill(7);
                step.write(rig.lens).fill(8);
                return Ok((rig.model.clone(), step.submit(stream)?));
            }
            let mut model = rig.fill(&mut step, &mut noise);
            step.patch(rig.table, number, 0, &[1, 2, 3])?;
            step.patch(rig.table, number, 8, &[1, 2, 3])?;
            for at in [0, 8] {
                model.table[number * COLS + at..][..3].copy_from_slice(&[1, 2, 3]);
            }
            Ok((model, step.submit(stream)?))
        });
        match sent {
            Ok((model, staged)) => {
                rig.model = model;
                checker.compare(stream, rig.expected(&staged), number);
                stream.synchronize().unwrap();
            }
            Err(error) => failures.push(error),
        }
    }
    assert_eq!(checker.wrong(), Vec::<String>::new(), "{failures:?}");
    failures
}

/// The engine's graph has the copies of slots; patches come ahead of it.
#[test]
fn a_step_of_an_embedded_graph_patches() {
    on_softcuda(|driver| {
        let context = context(driver);
        let before = Inventory::now();
        for depth in 1..=2 {
            let mut rig = Rig::new(builder(&context, WAYS[0]).build().unwrap());
            let embedded = rig.inputs.embed_ring(8, depth).unwrap();
            let engine = |staging| {
                let mut engine = GraphDefinition::new(&context).unwrap();
                engine.child(staging, &[]).unwrap();
                engine.instantiate().unwrap()
            };
            let mut engines: Vec<_> = embedded.graphs().iter().map(engine).collect();
            let (stream, checker) = (Stream::new(&context).unwrap(), Checker::default());
            let mut noise = Noise(21);
            for number in 0..8 {
                let mut step = embedded.begin(8, 1).unwrap();
                let model = rig.fill(&mut step, &mut noise);
                step.patch(rig.table, 0, 0, &[5]).unwrap();
                if number % 3 == 1 {
                    // The patches are on their way when the launch fails.
                    let failed = step.submit_with(&stream, || Err(StageError::WouldBlock));
                    assert_eq!(failed.unwrap_err(), StageError::WouldBlock);
                    continue;
                }
                rig.model = model;
                rig.model.table[0] = 5;
                let engine = &mut engines[step.ring_slot()];
                let launch = || Ok::<_, StageError>(engine.launch(&stream)?);
                let staged = step.submit_with(&stream, launch).unwrap();
                checker.compare(&stream, rig.expected(&staged), number);
            }
            stream.synchronize().unwrap();
            assert_eq!(checker.wrong(), Vec::<String>::new());
        }
        before.restored(driver);
    });
}

/// A step that was given up in a capture sends nothing: the next one sends the tables anew.
#[test]
fn what_a_lost_step_was_to_patch_is_sent_by_the_next() {
    on_softcuda(|driver| {
        let context = context(driver);
        let before = Inventory::now();
        let mut rig = Rig::new(builder(&context, WAYS[0]).ring_depth(1).build().unwrap());
        let (embedded, stream) = (rig.inputs.embed(8).unwrap(), Stream::new(&context).unwrap());
        let (checker, mut noise) = (Checker::default(), Noise(2));
        let mut step = embedded.begin(8, 1).unwrap();
        rig.model = rig.fill(&mut step, &mut noise);
        step.patch(rig.seeds, 0, 5, &[6]).unwrap();
        rig.model.seeds[5] = 6;
        // It launches nothing, though it says so.
        step.submit_with(&stream, || Ok::<_, StageError>(())).unwrap();
        stream.synchronize().unwrap();
        // SAFETY: nothing was launched.
        #[expect(unsafe_code, reason = "nothing was launched")]
        unsafe { embedded.release_lost() }.unwrap();
        let mut step = rig.inputs.begin(8, 1).unwrap();
        step.write(rig.ids).fill(7);
        step.write(rig.lens).fill(8);
        let staged = step.submit(&stream).unwrap();
        checker.compare(&stream, rig.expected(&staged), 1);
        stream.synchronize().unwrap();
        assert_eq!(checker.wrong(), Vec::<String>::new());
        drop((embedded, rig, stream));
        before.restored(driver);
    });
}
