//! Slots and steps.

use wharf::staging::{InputBuffers, InputBuffersBuilder, Len, SlotError, SlotFault, StageError};
use wharf::{Context, Driver};

use super::context_and_stream;
use crate::backend::{machine, on_each_driver};
use crate::deadline::{LONG, SHORT};
use crate::graph_rig::Gate;
use crate::memory_kinds::read;

on_each_driver!(
    input_slot_checks_length_type_and_capacity,
    input_slot_writes_to_nothing_that_a_copy_still_reads,
    input_buffer_manager_stages_a_step_by_one_launch,
);

fn builder(context: &Context) -> InputBuffersBuilder {
    InputBuffers::builder(context).slot::<i32>("ids", Len::Tokens).buckets([4, 8]).deadline(LONG)
}

/// The original copies whatever it is given.
fn input_slot_checks_length_type_and_capacity(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let inputs = builder(&context).build().unwrap();
    let wrong = inputs.slot_id::<i64>("ids").unwrap_err();
    assert!(matches!(wrong, SlotError::Type { .. }), "{wrong}");
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let mut step = inputs.begin(3, 1).unwrap();
    for given in [2, 4] {
        let error = step.write_from(ids, &vec![1; given]).unwrap_err();
        let fault = SlotFault::Length { wanted: 3, given };
        assert_eq!(error, StageError::Slot { slot: "ids".into(), fault });
    }
    step.write_from(ids, &[1, 2, 3]).unwrap();
    let staged = step.submit(&stream).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(read(&context, staged.device_ptr(ids), 12), [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    let error = inputs.begin(9, 1).unwrap_err();
    assert!(matches!(error, StageError::TooLarge { wanted: 9, max: 8, .. }), "{error}");
}

/// The original's next call writes where the device still reads.
fn input_slot_writes_to_nothing_that_a_copy_still_reads(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let inputs = builder(&context).ring_depth(1).deadline(SHORT).build().unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let gate = Gate::close(&stream);
    let mut step = inputs.begin(4, 1).unwrap();
    step.write(ids).copy_from_slice(&[1, 2, 3, 4]);
    let staged = step.submit(&stream).unwrap();
    assert_eq!(inputs.try_begin(4, 1).unwrap_err(), StageError::WouldBlock);
    assert!(matches!(inputs.begin(4, 1).unwrap_err(), StageError::Stalled(_)));
    gate.open();
    stream.synchronize().unwrap();
    assert!(staged.is_complete().unwrap());
    assert_eq!(read(&context, staged.device_ptr(ids), 4), [1, 0, 0, 0]);
    drop(inputs.begin(4, 1).unwrap());
}

fn input_buffer_manager_stages_a_step_by_one_launch(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let _current = context.enter().unwrap();
    let inputs = InputBuffers::builder(&context).minimal_slots().buckets([8]).build().unwrap();
    let slots = ["input_ids", "positions"].map(|name| inputs.slot_id::<i64>(name).unwrap());
    inputs.prewarm(8).unwrap();
    let Some(machine) = machine() else { return };
    for round in 0..10 {
        let calls = || machine.all_calls().iter().map(|(_, count)| count).sum::<u64>();
        stream.synchronize().unwrap();
        let (before, launches) = (calls(), machine.calls("cuGraphLaunch"));
        let mut step = inputs.begin(5, 1).unwrap();
        slots.iter().for_each(|slot| step.write(*slot).fill(round));
        step.submit(&stream).unwrap();
        // Before CUDA 11.7 a graph writes no words, and its event is asked, beside others'
        // captures.
        let asked = if machine.calls("cuEventQuery") > 0 { 3 } else { 0 };
        assert_eq!(machine.calls("cuGraphLaunch") - launches, 1);
        assert!(calls() - before <= 1 + asked, "{} calls", calls() - before);
    }
}
