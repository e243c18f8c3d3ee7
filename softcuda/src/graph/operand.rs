//! What memory a node uses: what an update of an executable graph may not change.

use wharf_sys::CudaError;

use super::node::Action;
use crate::abi::Status;
use crate::machine::State;
use crate::memory::Kind;
use crate::task::{CopyTask, FillTask, Operand, Place};

/// What kind of memory an address is of.
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
            Kind::Managed { .. } => Self::Managed,
            Kind::Array => Self::Array,
            kind if kind.is_host() => Self::Host,
            _ => Self::Device,
        }
    }
}

/// The memory of a node's destination and source, where it has them and it is known.
pub(crate) type Locations = [Option<Location>; 2];

impl State {
    /// The memory that an action's addresses are of now.
    pub(crate) fn locations(&self, action: &Action) -> Locations {
        match action {
            Action::Copy(copy) => {
                let at = |side| self.locate_side(&copy.task, side).ok();
                [at(&copy.task.dst), at(&copy.task.src)]
            }
            Action::Fill(fill) => [self.locate_fill(&fill.task).ok(), None],
            _ => [None; 2],
        }
    }

    /// Refuses a copy whose operands are not what they are said to be.
    pub(crate) fn check_copy(&self, task: &CopyTask) -> Status {
        self.locate_side(task, &task.dst)?;
        self.locate_side(task, &task.src).map(|_| ())
    }

    fn locate_side(&self, task: &CopyTask, side: &Operand) -> Status<Location> {
        let extent = task.extent(side).ok_or(CudaError::INVALID_VALUE)?;
        self.locate(side.address, extent, side.place)
    }

    /// Refuses a memset of memory that the device does not reach, or of a shape that no memset has.
    pub(crate) fn locate_fill(&self, task: &FillTask) -> Status<Location> {
        let row = task.width.checked_mul(task.element).ok_or(CudaError::INVALID_VALUE)?;
        let is_aligned =
            matches!(task.element, 1 | 2 | 4) && task.address.is_multiple_of(task.element as u64);
        if !is_aligned || task.height > 1 && task.pitch < row {
            return Err(CudaError::INVALID_VALUE);
        }
        let rows = task.pitch.checked_mul(task.height.saturating_sub(1)).ok_or(CudaError::INVALID_VALUE)?;
        let extent = rows.checked_add(row).ok_or(CudaError::INVALID_VALUE)?;
        self.locate(task.address, extent, Place::Device)
    }

    fn locate(&self, address: u64, extent: usize, place: Place) -> Status<Location> {
        let end = address.checked_add(extent as u64).ok_or(CudaError::INVALID_VALUE)?;
        if let Some(blocks) = self.memory.cover(address, extent.max(1))
            && let Some(block) = blocks.first()
        {
            return Ok(Location::Memory {
                class: Class::of(block.kind),
                context: block.context,
                ordinal: block.ordinal,
            });
        }
        let in_driver_memory = self.memory.find(address).is_some_and(|block| block.is_owner());
        let outside_user_space = address < 4096 || end >= 1 << 47;
        if place == Place::Device || in_driver_memory || outside_user_space {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(Location::Pageable)
    }
}
