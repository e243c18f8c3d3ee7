//! Errors of slots that are more than a run of elements which each step copies.

use std::fmt;

/// How a slot was used wrongly that is of another shape than the call is for, or whose shape does
/// not have what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShapeFault {
    /// Only the device writes it.
    IsDeviceOnly,
    /// It is a persistent table, of which steps send patches.
    IsPersistent,
    /// It is not a persistent table.
    NotPersistent,
    /// It has rows, which are written together.
    HasRows,
    /// It has another number of rows than were asked for.
    Rows {
        /// How many it has; 0 for a slot of which a step has no memory.
        wanted: usize,
        /// How many were asked for.
        given: usize,
    },
    /// It refers to other memory in a step for several devices, which read the ring slot alone.
    ManyDevices,
    /// It was not declared as one that the device overwrites behind the copy.
    NotOverwritten,
    /// A patch ends beyond its row, or is of a row that the table does not have.
    OutOfTable {
        /// The row of the patch.
        row: usize,
        /// Its first column.
        col: usize,
        /// How many elements it has.
        len: usize,
        /// The rows of the table.
        rows: usize,
        /// The elements of a row.
        cols: usize,
    },
    /// The patches of the step are more elements of the table than were declared.
    TooManyPatched {
        /// How many elements the step would have changed.
        wanted: usize,
        /// How many were declared.
        max: usize,
    },
}

impl ShapeFault {
    /// The text for the slot with a name.
    pub(super) fn fmt_of(self, slot: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsDeviceOnly => write!(
                f,
                "slot {slot:?} is written by the device alone and has no memory here: give its \
                 address to a kernel"
            ),
            Self::IsPersistent => {
                write!(f, "slot {slot:?} is a persistent table: call `patch` with what changes")
            }
            Self::NotPersistent => {
                write!(f, "slot {slot:?} is not a persistent table: write all of it")
            }
            Self::HasRows => write!(f, "slot {slot:?} has rows: call `write_rows`"),
            Self::Rows { wanted, given } => {
                write!(f, "slot {slot:?} has {wanted} rows, and {given} were asked for")
            }
            Self::ManyDevices => write!(
                f,
                "slot {slot:?} refers to other memory, and the step is for several devices, which \
                 read the ring slot alone: write it"
            ),
            Self::NotOverwritten => write!(
                f,
                "slot {slot:?} is not declared as one that the device overwrites: add it by \
                 `slot_overwritten`"
            ),
            Self::OutOfTable { row, col, len, rows, cols } => write!(
                f,
                "a patch of {len} elements at row {row}, column {col} of slot {slot:?} does not \
                 fit: the table has {rows} rows of {cols} elements, and a patch lies in one row"
            ),
            Self::TooManyPatched { wanted, max } => write!(
                f,
                "the step changes {wanted} elements of slot {slot:?}, and {max} were declared: \
                 declare more, or send the rest in the next step"
            ),
        }
    }
}

/// Why a slot cannot be in a [view](super::InputBuffers::view).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ViewFault {
    /// It, or a slot of the set that is viewed, is zero-copy: no device memory to share.
    ZeroCopy,
    /// It is a persistent table of the view's own.
    Table,
    /// One of the two sets has a packed layout, where addresses are not the same in all steps.
    NeedsPerSlot,
    /// The view's steps may have more elements than there are.
    TooLong {
        /// The most that a step of the view has.
        wanted: usize,
        /// How many there are.
        max: usize,
    },
}

impl ViewFault {
    /// The text for the slot with a name.
    pub(super) fn fmt_of(self, slot: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroCopy => write!(
                f,
                "slot {slot:?} is in a view where a slot is zero-copy, which has no device memory \
                 to share: add the slot to a set of its own"
            ),
            Self::Table => write!(
                f,
                "slot {slot:?} is a persistent table of a view: add it to the set that is viewed"
            ),
            Self::NeedsPerSlot => write!(
                f,
                "slot {slot:?} has no address that a view could share in a packed layout: use \
                 `Layout::PerSlot` for both sets"
            ),
            Self::TooLong { wanted, max } => write!(
                f,
                "slot {slot:?} has up to {wanted} elements in steps of the view, and there are \
                 {max}: lower the view's limits, or raise the set's"
            ),
        }
    }
}
