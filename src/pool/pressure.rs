//! The caller's hook, which is asked to free memory before an allocation fails.

use std::fmt;

use crate::slab::Exhaustion;

/// What a pool tells the hook of [`PoolBuilder::on_pressure`](super::PoolBuilder::on_pressure).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// The state of the pool, with what was asked for.
    pub state: Exhaustion,
}

/// The caller's hook.
pub(super) struct Hook(pub(super) Box<dyn Fn(&Pressure) -> bool + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
