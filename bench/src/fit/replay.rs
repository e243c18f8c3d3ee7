//! One sequence through one allocator.

use serde::Serialize;

use super::sequence::{Op, Sequence};
use super::{Allocator, ratio};
use crate::stream_order::Failure;

/// What an allocator did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Outcome {
    /// The most bytes that were reserved at a time.
    pub peak_reserved: usize,
    /// Reserved over live, behind the warm-up, on average over the allocations.
    pub mean: f64,
    /// Calls that obtained memory.
    pub commits: usize,
    /// Calls that gave memory back.
    pub releases: usize,
    /// Allocations without room.
    pub refused: usize,
}

/// Replays a sequence.
///
/// # Errors
///
/// What the driver said, or that an allocator holds less than it gave out.
pub(super) fn replay(
    sequence: &Sequence,
    allocator: &mut dyn Allocator,
) -> Result<Outcome, Failure> {
    let (mut sizes, mut live, mut peak, mut refused) = (Vec::new(), 0, 0, 0);
    let (mut sum_reserved, mut sum_live) = (0, 0);
    for (number, op) in sequence.ops.iter().enumerate() {
        match *op {
            Op::Alloc { size, stream } => {
                let has_room = allocator.alloc(sizes.len(), size, stream)?;
                sizes.push(if has_room { size } else { 0 });
                refused += usize::from(!has_room);
                live += sizes[sizes.len() - 1];
                let reserved = allocator.reserved();
                if reserved < live {
                    return Err(
                        format!("{}: {reserved} reserved, {live} live", sequence.name).into()
                    );
                }
                peak = peak.max(reserved);
                if number >= sequence.warm {
                    sum_reserved += reserved;
                    sum_live += live;
                }
            }
            Op::Free(block) => {
                let size = std::mem::take(&mut sizes[block]);
                if size > 0 {
                    allocator.free(block)?;
                    live -= size;
                }
            }
        }
    }
    let (commits, releases) = allocator.calls();
    let mean = ratio(sum_reserved, sum_live.max(1));
    Ok(Outcome { peak_reserved: peak, mean, commits, releases, refused })
}
