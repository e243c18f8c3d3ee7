#![expect(unsafe_code, reason = "copies device memory by raw address")]
//! The guard of the destination where a step is read in place, or by a graph of the engine's own.

use wharf::graph::{CaptureMode, CaptureScope, GraphDefinition};
use wharf::staging::{Layout, Len, Pad, StageError, StallCause};
use wharf::{Driver, Stream};

use crate::backend::on_each_driver;
use crate::deadline::SHORT;
use crate::graph_rig::{Cells, Gate, Inventory};
use crate::staging_readers::{Rig, builder, streams};
use crate::staging_rig::{context, words};

on_each_driver!(
    the_end_of_a_reader_does_not_free_a_zero_copy_slot_of_a_reader_whose_end_was_refused,
    an_embedded_graph_and_its_set_guard_each_other,
    zero_copy_readers_are_all_waited_for,
    a_launch_that_was_never_made_does_not_lose_the_slot,
);

fn the_end_of_a_reader_does_not_free_a_zero_copy_slot_of_a_reader_whose_end_was_refused(
    driver: &Driver,
) {
    let context = context(driver);
    let set = builder(&context).slot_zero_copy::<u32>("flags", Len::Fixed(4), Pad::Zero);
    let rig = Rig::with(&context, set.ring_depth(1).deadline(SHORT));
    let flags = rig.inputs.slot_id::<u32>("flags").unwrap();
    let [copies, first, second] = streams(&context);
    for refused in 1..3 {
        let mut step = rig.inputs.begin(4, 1).unwrap();
        step.write(rig.ids).fill(1);
        step.write(flags).fill(1);
        let staged = step.submit(&copies).unwrap();
        for _ in 0..refused {
            let read = staged.reader(&second).unwrap();
            let capture = CaptureScope::begin(&second, CaptureMode::default()).unwrap();
            assert!(read.end().is_err());
            capture.end().unwrap();
        }
        staged.reader(&first).unwrap().end().unwrap();
        context.synchronize().unwrap();
        match rig.inputs.begin(4, 1).map(drop) {
            Err(StageError::Stalled(stall)) => {
                assert_eq!(stall.cause, StallCause::ReaderUndeclared);
            }
            outcome => panic!("the second stream may still read: {outcome:?}"),
        }
        staged.consumed_by(&second).unwrap();
        context.synchronize().unwrap();
    }
}

/// Both write one place.
fn an_embedded_graph_and_its_set_guard_each_other(driver: &Driver) {
    let before = Inventory::now();
    let rig = Rig::new(&context(driver));
    let [first, second] = streams(&rig.context);
    let embedded = rig.inputs.embed(4).unwrap();
    let mut engine = GraphDefinition::new(&rig.context).unwrap();
    embedded.as_child_of(&mut engine, &[]).unwrap();
    let mut engine = engine.instantiate().unwrap();
    let ids = rig.ids;
    let mut embed = |value, stream: &Stream| {
        let mut step = embedded.begin(4, 1).unwrap();
        step.write(ids).fill(value);
        step.submit_with::<StageError>(stream, || Ok(engine.launch(stream)?)).unwrap();
    };
    for embedded_first in [true, false] {
        let gate = Gate::close(&first);
        if embedded_first {
            embed(1, &first);
            rig.read(0, &first);
            rig.stage(2, &second).unwrap();
        } else {
            rig.stage(1, &first).unwrap();
            rig.read(0, &first);
            embed(2, &second);
        }
        gate.open();
        second.synchronize().unwrap();
        assert_eq!((rig.found(0), rig.last(&second)), ([1; 4], [2; 4]));
    }
    drop((engine, embedded, rig, first, second));
    before.restored(driver);
}

/// The host writes a ring slot that was read in place only when no reader is left.
fn zero_copy_readers_are_all_waited_for(driver: &Driver) {
    let (context, cells) = (context(driver), Cells::new(driver));
    for layout in [Layout::PerSlot, Layout::Packed] {
        let set = builder(&context)
            .slot_zero_copy::<u32>("flags", Len::Fixed(4), Pad::Zero)
            .layout(layout);
        let rig = Rig::with(&context, set.ring_depth(1).deadline(SHORT));
        let flags = rig.inputs.slot_id::<u32>("flags").unwrap();
        let [copies, first, second] = streams(&context);
        let submit = |value: u32| {
            let mut step = rig.inputs.begin(4, 1)?;
            step.write(rig.ids).fill(value);
            step.write(flags).fill(value);
            step.submit(&copies)
        };
        let cause = || match submit(9).unwrap_err() {
            StageError::Stalled(stall) => (stall.cause, StageError::Stalled(stall).to_string()),
            error => panic!("{error}"),
        };
        for value in [1, 2] {
            let staged = submit(value).unwrap();
            copies.synchronize().unwrap();
            let (undeclared, text) = cause();
            assert_eq!(undeclared, StallCause::ReaderUndeclared);
            assert!(text.contains("`consumed_by`"), "{text}");
            let readers = [&first, &second].map(|stream| staged.reader(stream).unwrap());
            let gate = Gate::close(&second);
            let from = std::ptr::with_exposed_provenance(
                usize::try_from(staged.device_ptr(flags)).unwrap(),
            );
            // SAFETY: the cells are this read's alone; the set outlives the copy.
            unsafe { second.copy_htod(cells.device(), from, 16) }.unwrap();
            let [read, late] = readers;
            read.end().unwrap();
            first.synchronize().unwrap();
            assert_eq!(cause().0, StallCause::ReaderOpen);
            late.end().unwrap();
            assert_eq!(cause().0, StallCause::Read);
            gate.open();
            second.synchronize().unwrap();
            assert_eq!(words(&second, cells.device()), [value; 4]);
        }
    }
}

fn a_launch_that_was_never_made_does_not_lose_the_slot(driver: &Driver) {
    let before = Inventory::now();
    let context = context(driver);
    let rig = Rig::with(&context, builder(&context).deadline(SHORT));
    let ([stream], ids) = (streams(&context), rig.ids);
    let embedded = rig.inputs.embed(4).unwrap();
    let mut engine = GraphDefinition::new(&context).unwrap();
    embedded.as_child_of(&mut engine, &[]).unwrap();
    let mut engine = engine.instantiate().unwrap();
    let submit = |launch: &mut dyn FnMut() -> Result<(), StageError>| {
        let mut step = embedded.begin(4, 1)?;
        step.write(ids).fill(5);
        step.submit_with(&stream, launch).map(drop)
    };
    submit(&mut || Ok(())).unwrap();
    // Where the device cannot write words, the ring slot's event says that nothing is pending.
    if let Err(error) = submit(&mut || Ok(())) {
        assert!(error.to_string().contains("`release_lost`"), "{error}");
        // SAFETY: nothing was launched.
        unsafe { embedded.release_lost() }.unwrap();
    }
    submit(&mut || Ok(engine.launch(&stream)?)).unwrap();
    assert_eq!(rig.last(&stream), [5; 4]);
    drop((engine, embedded, rig, stream, context));
    before.restored(driver);
}
