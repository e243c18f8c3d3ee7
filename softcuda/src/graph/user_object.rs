//! User objects: what the program wants told when no graph needs it any more.
//!
//! ```text
//!   references of      the program     graphs, clones      executable graphs, launches in flight
//!                          |                 |                             |
//!                       Registry      Graph::objects                 Plan::objects
//!                          +---------------> Core <------------------------+
//!                                             | the last one goes
//!                                             v
//!                               the destructor, on a thread of its own
//! ```
//!
//! "Destructor callbacks cannot make CUDA API calls": the thread counts as one inside a callback.

use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use wharf_sys::CudaError;
use wharf_sys::bindings::CUhostFn;

use super::Store;
use crate::errors::Status;
use crate::sched::work::{UserData, call_host};

/// The referenced object: dropping the last reference calls the destructor.
#[derive(Debug)]
pub(crate) struct Core {
    destructors: Arc<Destructors>,
    destructor: CUhostFn,
    data: UserData,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.destructors.push(self.destructor, self.data);
    }
}

/// A user object as the program knows it.
#[derive(Debug)]
pub(crate) struct UserObject {
    /// The program's references.
    pub(crate) owned: u64,
    /// Present while the program has references.
    held: Option<Arc<Core>>,
    /// Leads to the object while there are references.
    core: Weak<Core>,
}

/// The references of a graph, by object.
pub(crate) type Objects = BTreeMap<u64, (u64, Arc<Core>)>;

/// The destructors to be called and the thread that calls them.
#[derive(Debug, Default)]
pub(crate) struct Destructors {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Due {
    calls: VecDeque<(CUhostFn, UserData)>,
    started: bool,
    stopping: bool,
}

impl Destructors {
    fn push(&self, destructor: CUhostFn, data: UserData) {
        self.due.lock().calls.push_back((destructor, data));
        self.changed.notify_one();
    }

    /// Ends the thread when it has called what is due.
    pub(crate) fn stop(&self) {
        self.due.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Whether the thread is still to be started; it then is not any more.
    pub(crate) fn start(&self) -> bool {
        let mut due = self.due.lock();
        !std::mem::replace(&mut due.started, true)
    }

    /// The life of the thread. `tell` hears of each call, which the host learns from.
    pub(crate) fn run(&self, tell: impl Fn()) {
        let mut due = self.due.lock();
        loop {
            if let Some((destructor, data)) = due.calls.pop_front() {
                // The destructor may drop further references, which adds to the list.
                drop(due);
                tell();
                call_host(destructor, data);
                due = self.due.lock();
            } else if due.stopping {
                return;
            } else {
                self.changed.wait(&mut due);
            }
        }
    }
}

impl UserObject {
    /// An object with `owned` references of the program's.
    pub(crate) fn new(
        destructors: Arc<Destructors>,
        destructor: CUhostFn,
        data: UserData,
        owned: u64,
    ) -> Self {
        let core = Arc::new(Core { destructors, destructor, data });
        let weak = Arc::downgrade(&core);
        Self { owned, held: Some(core), core: weak }
    }
}

impl Store {
    fn user_object(&mut self, object: u64) -> Status<&mut UserObject> {
        self.user_objects.get_mut(object).ok_or(CudaError::INVALID_VALUE)
    }

    /// Gives the program `count` more references.
    pub(crate) fn retain_user_object(&mut self, object: u64, count: u64) -> Status {
        let known = self.user_object(object)?;
        let core = known.core.upgrade().ok_or(CudaError::INVALID_VALUE)?;
        known.owned += count;
        known.held = Some(core);
        Ok(())
    }

    /// Takes `count` of the program's references.
    pub(crate) fn release_user_object(&mut self, object: u64, count: u64) -> Status {
        let known = self.user_object(object)?;
        known.owned = known.owned.checked_sub(count).ok_or(CudaError::INVALID_VALUE)?;
        if known.owned == 0 {
            known.held = None;
        }
        self.forget_dead_object(object);
        Ok(())
    }

    /// Gives `graph` `count` references: new ones, or with `moves` ones of the program's.
    pub(crate) fn graph_retain_object(
        &mut self,
        graph: u64,
        object: u64,
        count: u64,
        moves: bool,
    ) -> Status {
        self.graph(graph)?;
        let known = self.user_object(object)?;
        let core = known.core.upgrade().ok_or(CudaError::INVALID_VALUE)?;
        if moves && known.owned < count {
            return Err(CudaError::INVALID_VALUE);
        }
        self.graph_mut(graph)?.objects.entry(object).or_insert((0, core)).0 += count;
        if moves { self.release_user_object(object, count) } else { Ok(()) }
    }

    /// Takes `count` references of `graph`.
    pub(crate) fn graph_release_object(&mut self, graph: u64, object: u64, count: u64) -> Status {
        let objects = &mut self.graph_mut(graph)?.objects;
        let (owned, _) = objects.get_mut(&object).ok_or(CudaError::INVALID_VALUE)?;
        *owned = owned.checked_sub(count).ok_or(CudaError::INVALID_VALUE)?;
        if *owned == 0 {
            objects.remove(&object);
        }
        self.forget_dead_object(object);
        Ok(())
    }

    /// Forgets an object without references.
    fn forget_dead_object(&mut self, object: u64) {
        if self.user_objects.get(object).is_some_and(|known| known.core.strong_count() == 0) {
            self.user_objects.remove(object);
        }
    }

    /// The user objects that are alive, for leak reports.
    pub(crate) fn live_objects(&self) -> Vec<u64> {
        let handles = self.user_objects.handles().into_iter();
        let is_alive = |object: &UserObject| object.core.strong_count() > 0;
        handles.filter(|handle| self.user_objects.get(*handle).is_some_and(is_alive)).collect()
    }
}
