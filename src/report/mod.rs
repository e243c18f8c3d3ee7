//! Snapshots: who holds which bytes of a pool, for people and for programs.
//!
//! | form | by |
//! |---|---|
//! | text | `Display` |
//! | SVG | [`Snapshot::to_svg`] |
//! | JSON and others | the feature `serde`: [`Snapshot`] is `Serialize` |

mod snapshot;
mod svg;
mod text;

pub use self::snapshot::{BlockEntry, SlabEntry, Snapshot, StreamUse};
