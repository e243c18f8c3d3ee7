#![expect(unsafe_code, reason = "reads device memory by raw address")]
//! Staging as a part of the engine's own graphs, and graphs that outlive the set.

use wharf::graph::{CaptureMode, CaptureScope, Copy1d, GraphDefinition};
use wharf::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::staging::{Forgotten, InputBuffers, Layout, Len, SlotFault, StageError};
use wharf::{Driver, Stream};

use crate::backend::on_each_driver;
use crate::graph_rig::{Cells, Inventory};
use crate::staging_guard::small;
use crate::staging_rig::context;

on_each_driver!(
    the_engines_graph_outlives_the_set,
    steps_of_an_embedded_ring_are_written_ahead,
    an_embedded_graph_needs_no_launch_of_its_own,
    an_embedded_graph_is_captured,
    an_embedded_step_names_the_slot_that_it_cannot_leave_out,
);

/// It reads the static buffers long after set, context handle and everything are gone.
fn the_engines_graph_outlives_the_set(driver: &Driver) {
    let context = context(driver);
    let pinned = PinnedMemoryResource::new(&context, 1, PinnedOptions::default()).unwrap();
    // SAFETY: the first commit.
    unsafe { pinned.commit(0, pinned.granularity()) }.unwrap();
    let out: *mut u32 =
        std::ptr::with_exposed_provenance_mut(usize::try_from(pinned.base()).unwrap());
    let (stream, before) = (Stream::new(&context).unwrap(), Inventory::now());
    let inputs = small(&context).build().unwrap();
    let (ids, buffers) = (inputs.slot_id::<u32>("ids").unwrap(), inputs.static_buffers());
    assert_eq!((buffers.len(ids, 3), buffers.len(ids, 9)), (Some(4), None));
    let graph = CaptureScope::capture(&stream, CaptureMode::default(), |stream| {
        buffers.keep_alive_in_capture(stream).unwrap();
        // SAFETY: the buffers are kept alive, and `pinned` outlives the launches.
        unsafe { stream.copy_dtoh(out.cast(), buffers.device_ptr(ids, 4).unwrap(), 16) }
    })
    .unwrap();
    let (mut exec, mut copy) =
        (graph.duplicate().unwrap().instantiate().unwrap(), graph.instantiate().unwrap());
    let mut step = inputs.begin(4, 1).unwrap();
    step.write(ids).copy_from_slice(&[1, 2, 3, 4]);
    step.submit(&stream).unwrap();
    drop((inputs, buffers, context));
    for exec in [&mut exec, &mut copy] {
        // SAFETY: no launch is in flight.
        unsafe { out.write_bytes(0, 4) };
        exec.launch(&stream).unwrap();
        stream.synchronize().unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { std::slice::from_raw_parts(out, 4) }, [1, 2, 3, 4]);
    }
    drop((exec, copy));
    before.restored(driver);
}

/// Two steps are in flight, each in a graph of the engine's of its own, and a third has to wait.
fn steps_of_an_embedded_ring_are_written_ahead(driver: &Driver) {
    let (cells, before) = (Cells::new(driver), Inventory::now());
    let inputs = small(&cells.context).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    for depth in [0, 65] {
        assert_eq!(inputs.embed_ring(4, depth).unwrap_err(), StageError::RingDepth(depth));
    }
    let embedded = inputs.embed_ring(4, 2).unwrap();
    let from = inputs.static_buffers().device_ptr(ids, 4).unwrap();
    let engine = |staging| {
        let mut engine = GraphDefinition::new(&cells.context).unwrap();
        let staged = engine.child(staging, &[]).unwrap();
        let copy = Copy1d::dtoh(cells.host_at(0), from, 16);
        // SAFETY: the cells and the set outlive the launches.
        unsafe { engine.memcpy(copy, &[staged.into()]) }.unwrap();
        engine.instantiate().unwrap()
    };
    let mut engines: Vec<_> = embedded.graphs().iter().map(engine).collect();
    for round in 0..3 {
        let gate = cells.close_gate();
        for value in [10 * round, 10 * round + 1] {
            let mut step = embedded.try_begin(4, 1).unwrap();
            step.write(ids).fill(value);
            let engine = &mut engines[step.ring_slot()];
            let launch = || Ok::<_, StageError>(engine.launch(&cells.stream)?);
            step.submit_with(&cells.stream, launch).unwrap();
        }
        assert_eq!(embedded.try_begin(4, 1).unwrap_err(), StageError::WouldBlock);
        gate.open();
        cells.stream.synchronize().unwrap();
        let last = u64::from(10 * round + 1);
        assert_eq!(cells.get(0), last << 32 | last);
    }
    assert!(matches!(embedded.try_begin(5, 1), Err(StageError::TooLarge { max: 4, .. })));
    drop((engines, embedded, inputs));
    before.restored(driver);
}

fn an_embedded_graph_needs_no_launch_of_its_own(driver: &Driver) {
    let (cells, before) = (Cells::new(driver), Inventory::now());
    let inputs = small(&cells.context).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let embedded = inputs.embed(3).unwrap();
    assert!(embedded.graph().to_dot().contains("ids"));
    let mut engine = GraphDefinition::new(&cells.context).unwrap();
    let staged = embedded.as_child_of(&mut engine, &[]).unwrap();
    let from = inputs.static_buffers().device_ptr(ids, 4).unwrap();
    // SAFETY: the cells and the set outlive the launches.
    unsafe { engine.memcpy(Copy1d::dtoh(cells.host_at(0), from, 16), &[staged.into()]) }.unwrap();
    let mut engine = engine.instantiate().unwrap();
    for value in 1..6_u32 {
        let mut step = embedded.begin(2, 1).unwrap();
        step.write(ids).fill(value);
        step.submit_with::<StageError>(&cells.stream, || Ok(engine.launch(&cells.stream)?))
            .unwrap();
        cells.stream.synchronize().unwrap();
        let pair = u64::from(value) << 32 | u64::from(value);
        assert_eq!((cells.get(0), cells.get(1)), (pair, 0));
    }
    // Steps of the set itself go between.
    let mut step = inputs.begin(4, 1).unwrap();
    step.write(ids).fill(7);
    step.submit(&cells.stream).unwrap();
    let mut step = embedded.begin(2, 1).unwrap();
    step.write(ids).fill(8);
    let refused = step.submit_with::<StageError>(&cells.stream, || Err(StageError::WouldBlock));
    assert_eq!(refused.unwrap_err(), StageError::WouldBlock);
    drop(embedded.begin(4, 1).unwrap());
    assert!(matches!(embedded.begin(5, 1), Err(StageError::TooLarge { wanted: 5, max: 4, .. })));
    assert!(matches!(inputs.embed(9), Err(StageError::TooLarge { wanted: 9, max: 8, .. })));
    // The engine's graph needs neither.
    drop((embedded, inputs));
    engine.launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
    drop(engine);
    before.restored(driver);
}

fn an_embedded_graph_is_captured(driver: &Driver) {
    let (cells, before) = (Cells::new(driver), Inventory::now());
    let inputs = small(&cells.context).layout(Layout::Packed).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let (embedded, from) =
        (inputs.embed(4).unwrap(), inputs.static_buffers().device_ptr(ids, 4).unwrap());
    let graph = CaptureScope::capture(&cells.stream, CaptureMode::default(), |stream| {
        embedded.append_to_capture(stream).unwrap();
        // SAFETY: the cells and the set outlive the launches.
        unsafe { stream.copy_dtoh(cells.host_at(0), from, 16) }
    });
    let mut engine = graph.unwrap().instantiate().unwrap();
    let mut step = embedded.begin(4, 1).unwrap();
    step.write(ids).copy_from_slice(&[1, 0, 2, 0]);
    step.submit_with::<StageError>(&cells.stream, || Ok(engine.launch(&cells.stream)?)).unwrap();
    cells.stream.synchronize().unwrap();
    assert_eq!((cells.get(0), cells.get(1)), (1, 2));
    drop((engine, embedded, inputs));
    before.restored(driver);
}

/// A slot that was not written and is padding is no fault, nor is a dynamic one: they come first
/// here.
fn an_embedded_step_names_the_slot_that_it_cannot_leave_out(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let inputs = InputBuffers::builder(&context)
        .slot::<u32>("padded", Len::Tokens)
        .when_forgotten(Forgotten::Pad)
        .dynamic::<u32>("hidden")
        .when_forgotten(Forgotten::Pad)
        .slot::<u32>("kept", Len::Tokens)
        .when_forgotten(Forgotten::Keep)
        .buckets([4])
        .build()
        .unwrap();
    let embedded = inputs.embed(4).unwrap();
    let mut engine = GraphDefinition::new(&context).unwrap();
    embedded.as_child_of(&mut engine, &[]).unwrap();
    let mut engine = engine.instantiate().unwrap();
    let step = embedded.begin(3, 1).unwrap();
    let never = || -> Result<(), StageError> { panic!("it is not launched") };
    let refused = step.submit_with(&stream, never).unwrap_err();
    let fault = SlotFault::Forgotten;
    assert_eq!(refused, StageError::Slot { slot: "kept".into(), fault });
    let mut step = embedded.begin(3, 1).unwrap();
    step.write(inputs.slot_id::<u32>("kept").unwrap()).fill(1);
    step.submit_with::<StageError>(&stream, || Ok(engine.launch(&stream)?)).unwrap();
    stream.synchronize().unwrap();
    // What the graphs kept ends on a thread of the driver's.
    drop((engine, embedded, inputs));
    driver.wait_deferred(crate::deadline::LONG).unwrap();
}
