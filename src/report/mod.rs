//! Snapshots: which bytes of a pool are held by what, for people and for programs.
//!
//! [`Snapshot`] is all that is needed; the other types are its parts.
//!
//! | form | by |
//! |---|---|
//! | text | `Display` |
//! | SVG | [`Snapshot::to_svg`] |
//! | JSON and others | the feature `serde`: [`Snapshot`] is `Serialize` |

mod snapshot;
mod svg;
mod text;

pub use self::snapshot::{BlockEntry, SlabEntry, Snapshot};
