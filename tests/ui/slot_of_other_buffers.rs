//! Slots of tagged sets are told apart by their types.

use wharf::staging::{InputBuffers, SlotId, StageError};

struct Target;
struct Draft;

fn step(target: &InputBuffers<Target>, ids: SlotId<i32, Draft>) -> Result<(), StageError> {
    let mut step = target.begin(1, 1)?;
    step.write(ids).fill(1);
    Ok(())
}

fn main() {}
