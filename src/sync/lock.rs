//! Locks without poison. A panic of this crate's own code while it holds one is a bug that the
//! panic reports; a thread that comes later must still be able to release what the lock guards.

use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

use super::primitives::locks;

pub(crate) use super::primitives::locks::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// Mutual exclusion.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(locks::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(locks::Mutex::new(value))
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        held(self.0.lock())
    }

    /// Takes the lock, unless another thread holds it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        held_now(self.0.try_lock())
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        held(self.0.get_mut())
    }

    pub(crate) fn into_inner(self) -> T {
        held(self.0.into_inner())
    }
}

/// One writer or many readers.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(locks::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(locks::RwLock::new(value))
    }

    /// Waits until no thread writes.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        held(self.0.read())
    }

    /// Takes the lock for reading, unless a thread writes or waits to.
    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        held_now(self.0.try_read())
    }

    /// Waits until no other thread holds the lock.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        held(self.0.write())
    }
}

fn held<G>(locked: LockResult<G>) -> G {
    locked.unwrap_or_else(PoisonError::into_inner)
}

fn held_now<G>(locked: TryLockResult<G>) -> Option<G> {
    match locked {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
