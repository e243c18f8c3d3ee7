//! The primitives of `std`, outside models.

#[path = "cell.rs"]
mod cell;

pub(crate) use self::cell::UnsafeCell;
pub(crate) use std::sync::{OnceLock, atomic};
pub(crate) use std::{hint, thread, thread_local};

// allow-sleep: `pause` alone sleeps, and says there what it cannot be woken by.
pub(super) use std::thread::sleep;

/// What the wrappers of `lock.rs` stand on.
pub(super) mod locks {
    pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
}

/// A function that returns a static: `const fn` for a value that the compiler makes, `fn` for one
/// that its first use makes.
macro_rules! global {
    ($(#[$meta:meta])* $vis:vis const fn $name:ident() -> &$ty:ty = $value:expr;) => {
        $(#[$meta])*
        #[inline]
        $vis const fn $name() -> &'static $ty {
            static VALUE: $ty = $value;
            &VALUE
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident() -> &$ty:ty = $value:expr;) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name() -> &'static $ty {
            static VALUE: ::std::sync::LazyLock<$ty> = ::std::sync::LazyLock::new(|| $value);
            &VALUE
        }
    };
}
pub(crate) use global;

/// An array of atomics or cells, each from the same expression.
macro_rules! array {
    ($value:expr; $len:expr) => {
        [const { $value }; $len]
    };
}
pub(crate) use array;
