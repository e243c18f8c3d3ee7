//! A step is gone when it is submitted.

use wharf::Stream;
use wharf::staging::{InputBuffers, SlotId, StageError};

fn step(inputs: &InputBuffers, ids: SlotId<i32>, stream: &Stream) -> Result<(), StageError> {
    let mut step = inputs.begin(1, 1)?;
    step.write(ids).fill(1);
    step.submit(stream)?;
    step.write(ids).fill(2);
    Ok(())
}

fn main() {}
