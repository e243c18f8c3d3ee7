//! The state of a pool that may sleep.

use super::kept::Kept;
use crate::sync::RwLock;

/// Whether a pool sleeps, and what it has kept then. Copies and fills hold the lock for reading.
#[derive(Debug, Default)]
pub(super) struct Sleeper(pub(super) RwLock<Option<State>>);

/// A pool that sleeps.
#[derive(Debug)]
pub(super) struct State {
    pub(super) kept: Option<Kept>,
}
