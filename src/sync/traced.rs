#![expect(dead_code, reason = "each type has the operations that any of them is used with")]
//! `loom`'s atomics, which note where in this crate they are used: `loom` tells which accesses of
//! guarded data are concurrent, and these tell which lines ran before.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::Location;

use loom::sync::atomic as inner;
use loom::thread::{self, ThreadId};

pub(crate) use loom::sync::atomic::Ordering;

/// An operation on an atomic.
#[derive(Debug)]
pub(crate) struct Operation {
    thread: ThreadId,
    place: &'static Location<'static>,
    name: &'static str,
    ordering: Ordering,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread, place, name, ordering } = self;
        write!(f, "{thread:?} {}:{} {name} {ordering:?}", place.file(), place.line())
    }
}

thread_local! {
    // All threads of a model run on one thread of the system.
    static LAST: RefCell<VecDeque<Operation>> = const { RefCell::new(VecDeque::new()) };
}

/// The last operations of all threads of the model, in the order in which they ran; forgets them.
pub(crate) fn take_operations() -> impl Iterator<Item = Operation> {
    LAST.take().into_iter()
}

#[track_caller]
fn note(name: &'static str, ordering: Ordering) {
    // What a failure drops is no part of what led to it.
    if std::thread::panicking() {
        return;
    }
    let place = Location::caller();
    let thread = thread::current().id();
    LAST.with_borrow_mut(|last| {
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(Operation { thread, place, name, ordering });
    });
}

/// About what two threads do between two uses of what they guard.
const KEPT: usize = 24;

macro_rules! atomics {
    ($($name:ident$(<$param:ident>)?: $value:ty { $($rmw:ident)* };)+) => {
        $(
            pub(crate) struct $name$(<$param>)?(inner::$name$(<$param>)?);

            impl$(<$param>)? fmt::Debug for $name$(<$param>)? {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }

            impl$(<$param>)? $name$(<$param>)? {
                #[track_caller]
                pub(crate) fn new(value: $value) -> Self {
                    Self(inner::$name::new(value))
                }

                #[track_caller]
                pub(crate) fn load(&self, ordering: Ordering) -> $value {
                    note("load", ordering);
                    self.0.load(ordering)
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                    note("store", ordering);
                    self.0.store(value, ordering);
                }

                #[track_caller]
                pub(crate) fn compare_exchange(
                    &self,
                    seen: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    note("compare_exchange", success);
                    self.0.compare_exchange(seen, new, success, failure)
                }

                #[track_caller]
                pub(crate) fn compare_exchange_weak(
                    &self,
                    seen: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    note("compare_exchange_weak", success);
                    self.0.compare_exchange_weak(seen, new, success, failure)
                }

                $(
                    #[track_caller]
                    pub(crate) fn $rmw(&self, value: $value, ordering: Ordering) -> $value {
                        note(stringify!($rmw), ordering);
                        self.0.$rmw(value, ordering)
                    }
                )*
            }
        )+
    };
}

atomics! {
    AtomicBool: bool { swap fetch_and fetch_or };
    AtomicPtr<T>: *mut T { swap };
    AtomicU32: u32 { swap fetch_add fetch_sub fetch_and fetch_or fetch_max };
    AtomicU64: u64 { swap fetch_add fetch_sub fetch_and fetch_or fetch_max };
    AtomicUsize: usize { swap fetch_add fetch_sub fetch_and fetch_or fetch_max };
}

impl AtomicU32 {
    #[track_caller]
    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        next: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, u32> {
        note("fetch_update", success);
        self.0.fetch_update(success, failure, next)
    }
}

macro_rules! defaults {
    ($($name:ident)+) => {
        $(
            impl Default for $name {
                fn default() -> Self {
                    Self::new(Default::default())
                }
            }
        )+
    };
}

defaults! { AtomicBool AtomicU32 AtomicU64 AtomicUsize }
