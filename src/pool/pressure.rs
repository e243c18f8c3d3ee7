//! The caller's hook, which is asked to free memory before an allocation fails.

use std::cell::RefCell;
use std::fmt;
use std::ptr;

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

impl Hook {
    /// Asks the hook, unless this thread is inside it: a hook that allocates from its own pool
    /// would be asked by that allocation, without end.
    pub(super) fn ask(&self, pressure: &Pressure) -> bool {
        let this = ptr::from_ref(self);
        // A thread that has ended its thread-locals cannot tell, and does not ask.
        let entered = ASKED.try_with(|asked| {
            let mut asked = asked.borrow_mut();
            let is_outside = !asked.contains(&this);
            if is_outside {
                asked.push(this);
            }
            is_outside
        });
        if !entered.unwrap_or(false) {
            return false;
        }
        let _asked = Asked;
        (self.0)(pressure)
    }
}

/// Ends a question, also where the hook panics.
struct Asked;

impl Drop for Asked {
    fn drop(&mut self) {
        let _popped = ASKED.try_with(|asked| asked.borrow_mut().pop());
    }
}

crate::sync::thread_local! {
    /// The hooks that this thread is inside of, each in one that allocated from another pool.
    static ASKED: RefCell<Vec<*const Hook>> = const { RefCell::new(Vec::new()) };
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
