//! A slot's elements are borrowed from the step.

use wharf::Stream;
use wharf::staging::{InputBuffers, SlotId, StageError};

fn step(inputs: &InputBuffers, ids: SlotId<i32>, stream: &Stream) -> Result<(), StageError> {
    let mut step = inputs.begin(1, 1)?;
    let elements = step.write(ids);
    step.submit(stream)?;
    elements.fill(2);
    Ok(())
}

fn main() {}
