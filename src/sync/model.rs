//! The primitives of `loom` or `shuttle`, in models.

#[cfg(shuttle)]
#[path = "cell.rs"]
mod cell;

#[cfg(shuttle)]
pub(crate) use self::cell::UnsafeCell;
#[cfg(not(shuttle))]
pub(crate) use loom::cell::UnsafeCell;

#[cfg(not(shuttle))]
pub(crate) use loom as explorer;
#[cfg(shuttle)]
pub(crate) use shuttle as explorer;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;

#[cfg(not(shuttle))]
#[path = "traced.rs"]
pub(crate) mod atomic;

pub(crate) use self::explorer::{hint, thread};

use self::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use super::Mutex;
use std::sync;
use std::time::Duration;

/// What the wrappers of `lock.rs` stand on.
pub(super) mod locks {
    pub(crate) use super::explorer::sync::{
        Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    };
}

/// No time passes in a model: other threads run instead.
pub(super) fn sleep(_: Duration) {
    thread::yield_now();
}

/// `std`'s cell holds the value; what orders its making before its uses is the model's, so that an
/// execution in which a thread finds no value yet is explored too.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: sync::OnceLock<T>,
    is_set: AtomicBool,
    making: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: sync::OnceLock::new(),
            is_set: AtomicBool::new(false),
            making: Mutex::new(()),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        // Acquire: pairs with the Release of `get_or_init`.
        if self.is_set.load(Acquire) { self.value.get() } else { None }
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _making = self.making.lock();
        let value = self.value.get_or_init(make);
        // Release: pairs with the Acquire of `get`.
        self.is_set.store(true, Release);
        value
    }

    pub(crate) fn take(&mut self) -> Option<T> {
        // Relaxed: the caller alone holds the cell.
        self.is_set.store(false, Relaxed);
        self.value.take()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let mut given = Some(value);
        self.get_or_init(|| given.take().expect("called once"));
        given.map_or(Ok(()), Err)
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        let cell = Self::new();
        cell.get_or_init(|| value);
        cell
    }
}

/// See `std.rs`. The value is made by its first use in each execution.
macro_rules! global {
    ($(#[$meta:meta])* $vis:vis const fn $name:ident() -> &$ty:ty = $value:expr;) => {
        $crate::sync::global! { $(#[$meta])* $vis fn $name() -> &$ty = $value; }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident() -> &$ty:ty = $value:expr;) => {
        $(#[$meta])*
        $vis fn $name() -> &'static $ty {
            $crate::sync::primitives::explorer::lazy_static! { static ref VALUE: $ty = $value; }
            &VALUE
        }
    };
}
pub(crate) use global;

/// As `std`'s, of which every use here has a `const` initializer.
macro_rules! model_thread_local {
    ($($(#[$meta:meta])* $vis:vis static $name:ident: $ty:ty = const $value:block;)+) => {
        $($crate::sync::primitives::explorer::thread_local! {
            $(#[$meta])* $vis static $name: $ty = $value
        })+
    };
}
// The name itself would be ambiguous with the attribute `thread_local`.
pub(crate) use model_thread_local as thread_local;

/// See `std.rs`.
macro_rules! array {
    ($value:expr; _) => {
        ::std::array::from_fn(|_| $value)
    };
    ($value:expr; $len:expr) => {
        ::std::array::from_fn::<_, { $len }, _>(|_| $value)
    };
}
pub(crate) use array;
