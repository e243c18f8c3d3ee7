//! The memory that a node uses, whose kind an update of an executable graph may not change.

use wharf_sys::CudaError;

use super::node::Action;
use crate::errors::Status;
use crate::memory::Kind;
use crate::memory::table::{Reach, Table};
use crate::task::{CopyTask, FillTask, Operand, Place};

/// The kind of memory at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// Memory of the program that the driver does not know.
    Pageable,
    Memory {
        class: Class,
        context: u64,
        ordinal: i32,
    },
}

/// Kinds of allocations between which an update cannot change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Device,
    Array,
    Host,
    Managed,
}

impl Class {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Managed { .. } | Kind::Graph { managed: true } => Self::Managed,
            Kind::Array => Self::Array,
            kind if kind.is_host() => Self::Host,
            _ => Self::Device,
        }
    }
}

/// The memory of a node's destination and source, where it has them and it is known.
pub(crate) type Locations = [Option<Location>; 2];

/// The memory that an action's addresses are of now.
pub(crate) fn locations(memory: &Table, action: &Action) -> Locations {
    match action {
        Action::Copy(copy) => {
            let at = |side| locate_side(memory, &copy.task, side).ok();
            [at(&copy.task.dst), at(&copy.task.src)]
        }
        Action::Fill(fill) => [locate_fill(memory, &fill.task).ok(), None],
        _ => [None; 2],
    }
}

/// Refuses a copy whose operands are not what they are said to be.
pub(crate) fn check_copy(memory: &Table, task: &CopyTask) -> Status {
    locate_side(memory, task, &task.dst)?;
    locate_side(memory, task, &task.src).map(|_| ())
}

fn locate_side(memory: &Table, task: &CopyTask, side: &Operand) -> Status<Location> {
    let extent = task.extent(side).ok_or(CudaError::INVALID_VALUE)?;
    locate(memory, side.address, extent, side.place)
}

/// Refuses a memset of memory that the device does not reach, or of a shape that no memset has.
pub(crate) fn locate_fill(memory: &Table, task: &FillTask) -> Status<Location> {
    let row = task.width.checked_mul(task.element).ok_or(CudaError::INVALID_VALUE)?;
    let is_aligned =
        matches!(task.element, 1 | 2 | 4) && task.address.is_multiple_of(task.element as u64);
    if !is_aligned || task.height > 1 && task.pitch < row {
        return Err(CudaError::INVALID_VALUE);
    }
    let rows =
        task.pitch.checked_mul(task.height.saturating_sub(1)).ok_or(CudaError::INVALID_VALUE)?;
    let extent = rows.checked_add(row).ok_or(CudaError::INVALID_VALUE)?;
    locate(memory, task.address, extent, Place::Device)
}

fn locate(memory: &Table, address: u64, extent: usize, place: Place) -> Status<Location> {
    let end = address.checked_add(extent as u64).ok_or(CudaError::INVALID_VALUE)?;
    match memory.reach(address, extent) {
        Reach::Known(blocks) => {
            let block = blocks.first().ok_or(CudaError::INVALID_VALUE)?;
            let class = Class::of(block.kind);
            return Ok(Location::Memory { class, context: block.context, ordinal: block.ordinal });
        }
        Reach::Straddles(_) => return Err(CudaError::INVALID_VALUE),
        Reach::Unknown => {}
    }
    // An unknown address is pageable memory of the program, unless it cannot be.
    let outside_user_space = address < 4096 || end >= 1 << 47;
    if place == Place::Device || outside_user_space {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(Location::Pageable)
}
