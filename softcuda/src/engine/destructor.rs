//! The thread that calls the destructors of user objects.

use std::sync::Arc;

use wharf_sys::bindings::CUhostFn;

use super::spawn;
use crate::graph::user_object::UserObject;
use crate::machine::{Machine, State};
use crate::sched::work::UserData;

impl Machine {
    /// Makes a user object with `owned` references of the program's.
    pub(crate) fn create_user_object(
        self: &Arc<Self>,
        state: &mut State,
        destructor: CUhostFn,
        data: UserData,
        owned: u64,
    ) -> u64 {
        if self.destructors.start() {
            let machine = Arc::clone(self);
            let body = move || machine.destructors.run(|| machine.lock().queue.learn_everything());
            state.threads.extend(spawn("softcuda-destructor", body));
        }
        let destructors = Arc::clone(&self.destructors);
        state.graphs.user_objects.insert(UserObject::new(destructors, destructor, data, owned))
    }
}
