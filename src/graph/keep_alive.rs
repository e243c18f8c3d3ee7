#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Owners that the driver keeps for graphs, as user objects.

use core::ptr;
use std::sync::Arc;

use wharf_sys::bindings::{CUgraph, CUuserObject, CUuserObject_flags, CUuserObjectRetain_flags};

use crate::driver::Context;
use crate::driver::deferred::{Deferred, Parcel, give_up};
use crate::error::Error;

/// A user object of which this program still has one reference.
///
/// When that is given away or back and no graph has one either, the driver gives up the owner.
pub(super) struct UserObject {
    raw: CUuserObject,
    context: Context,
}

impl UserObject {
    /// Gives `owner` to the driver.
    pub(super) fn new(owner: Box<dyn Send>, context: &Context) -> Result<Self, Error> {
        let driver = context.driver();
        let parcel = Box::into_raw(Parcel::new(owner, driver.deferred_list()));
        let mut raw: CUuserObject = ptr::null_mut();
        // The destructor runs at any time on the driver's thread, so the owner is only queued
        // there.
        let flags = CUuserObject_flags::CU_USER_OBJECT_NO_DESTRUCTOR_SYNC.0;
        let create = &driver.api().user_object_create;
        // SAFETY: `raw` is valid for writes; `give_up` takes the parcel, which is its alone from
        // here on, and runs once (Driver API, cuUserObjectCreate).
        let made = unsafe { create.call(&raw mut raw, parcel.cast(), Some(give_up), 1, flags) };
        if let Err(error) = made {
            // SAFETY: made by `Box::into_raw` above, and a call that fails has created nothing.
            drop(unsafe { Box::from_raw(parcel) });
            return Err(error);
        }
        Ok(Self { raw, context: context.clone() })
    }

    /// Gives `graph` a reference of its own.
    pub(super) fn share_with(&self, graph: CUgraph) -> Result<(), Error> {
        let api = self.context.driver().api();
        // SAFETY: the object is alive by this reference; `graph` is the caller's, used by this
        // thread.
        unsafe { api.graph_retain_user_object.call(graph, self.raw, 1, 0) }
    }

    /// Takes one of `graph`'s references away.
    pub(super) fn take_from(&self, graph: CUgraph) -> Result<(), Error> {
        let api = self.context.driver().api();
        // SAFETY: as above, and the graph has one: `share_with` was called.
        unsafe { api.graph_release_user_object.call(graph, self.raw, 1) }
    }

    /// Gives `graph` this reference.
    pub(super) fn move_to(self, graph: CUgraph) -> Result<(), Error> {
        let flags = CUuserObjectRetain_flags::CU_GRAPH_USER_OBJECT_MOVE.0;
        let api = self.context.driver().api();
        // SAFETY: as above; the reference is this value's, which is forgotten.
        unsafe { api.graph_retain_user_object.call(graph, self.raw, 1, flags) }?;
        self.forget();
        Ok(())
    }

    fn forget(mut self) {
        self.raw = ptr::null_mut();
    }
}

impl Drop for UserObject {
    fn drop(&mut self) {
        if self.raw.is_null() {
            return;
        }
        let api = self.context.driver().api();
        // SAFETY: this value's own reference.
        let outcome = unsafe { api.user_object_release.call(self.raw, 1) };
        self.context.release().note(self.context.driver(), outcome);
    }
}

/// Lets `graph` own `owner`.
pub(super) fn retain(graph: CUgraph, owner: Box<dyn Send>, context: &Context) -> Result<(), Error> {
    UserObject::new(owner, context)?.move_to(graph)
}

/// Owners that an executable graph keeps alive besides those of its nodes: those of its updates.
///
/// The list is itself an owner that the driver holds, so it lives as long as a launch in flight.
pub(super) struct Attachments {
    pub(super) object: UserObject,
    list: Arc<Deferred>,
}

impl Attachments {
    pub(super) fn new(context: &Context) -> Result<Self, Error> {
        let list = Arc::new(Deferred::new());
        let object = UserObject::new(Box::new(Arc::clone(&list)), context)?;
        Ok(Self { object, list })
    }

    pub(super) fn add(&self, owner: Box<dyn Send>) {
        Parcel::new(owner, &self.list).send();
    }
}

// SAFETY: a user object belongs to no thread (Driver API, cuUserObjectRetain, cuUserObjectRelease),
// and what it holds is `Send`.
unsafe impl Send for UserObject {}
