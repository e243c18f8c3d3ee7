//! The limits: what a change may not exceed.

/// A row of the table of instructions.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The row that is the same loop without the library.
    pub(crate) less: &'static str,
    /// Instructions, and locked instructions, at most.
    pub(crate) limit: [u64; 2],
    /// The goal of both; the same as the limit where it is met.
    pub(crate) goal: [u64; 2],
}

/// Rows of one operation a round.
pub(crate) const ROWS: &[Row] = &[
    row("step of 1, ids", "write 1", [336, 2], [240, 1]),
    row("step of 4, ids", "write 4", [366, 2], [300, 1]),
    row("step of 12, ids", "write 12", [446, 2], [470, 1]),
    row("step of 40, ids", "write 40", [726, 2], [1050, 1]),
    row("step of 1, bound", "write 1", [325, 2], [180, 1]),
    row("step of 4, bound", "write 4", [336, 2], [205, 1]),
    row("step of 12, bound", "write 12", [422, 2], [280, 1]),
    row("step of 40, bound", "write 40", [557, 2], [520, 1]),
    row("step of 12, ids, padded", "write 12", [446, 2], [485, 1]),
    row("step of 12, ids, 67 buckets, padded", "write 12", [446, 2], [485, 1]),
    row("step of 12, ids, device 2 behind", "write 12", [458, 2], [486, 1]),
    row("step of 12, ids, counts change", "write 12", [1268, 2], [900, 1]),
    row("SlabPool alloc and dealloc", "nothing", [60, 0], [60, 0]),
    row("Pool::alloc and drop", "nothing", [197, 2], [200, 2]),
    row("the same, used", "nothing", [276, 2], [280, 3]),
    row("Stream::ticket and drop", "nothing", [26, 2], [26, 2]),
    row("Timeline::ticket_ref", "two words", [14, 0], [10, 0]),
    row("Context::enter nested, end", "nothing", [88, 0], [88, 0]),
    row("TieredObject::pin and drop", "nothing", [184, 3], [250, 3]),
];

const fn row(name: &'static str, less: &'static str, limit: [u64; 2], goal: [u64; 2]) -> Row {
    Row { name, less, limit, goal }
}

/// Driver calls at most, and their goal, by the name of a phase.
pub(crate) const CALLS: &[(&str, u64, u64)] = &[
    ("build, lazy", 25, 25),
    ("first step, PerSlot", 19, 19),
    ("first step, Packed", 2, 2),
    ("build, Packed, eager", 44, 44),
    ("build, PerSlot, eager", 3443, 3443),
    ("bucket change, Packed", 2, 2),
    ("drop, Packed, eager", 17, 3),
    ("drop, PerSlot, eager", 413, 201),
];
