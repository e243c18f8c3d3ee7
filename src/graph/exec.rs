#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Executable graphs: launched with one call.

use core::fmt;
use core::ptr;

use wharf_sys::bindings::CUgraphExec;

use super::definition::GraphDefinition;
use super::error::GraphError;
use super::keep_alive::Attachments;
use crate::driver::Context;
use crate::error::Error;
use crate::stream::Stream;

/// A graph that can be launched.
///
/// Launches of one executable graph run one after the other, also on several streams. It may be
/// sent to another thread, and is used by one at a time. Dropping it does not wait: launches in
/// flight complete, and what they need stays alive until then.
///
/// # Examples
///
/// See [`GraphDefinition`].
///
/// # References
///
/// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
#[doc(alias = "CUgraphExec")]
pub struct GraphExec {
    pub(super) raw: RawExec,
    /// Absent where nothing can be kept alive: in graphs that never leave this crate.
    pub(super) attachments: Option<Attachments>,
    /// Behind the handle, so that it goes after it: nodes named in updates must be in their graph.
    pub(super) definition: GraphDefinition,
}

impl GraphExec {
    /// Runs the graph on `stream`, behind the stream's work and this graph's earlier launches.
    ///
    /// One driver call where the context is entered.
    ///
    /// # Errors
    ///
    /// [`GraphError::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[inline]
    #[doc(alias = "cuGraphLaunch")]
    pub fn launch(&mut self, stream: &Stream) -> Result<(), GraphError> {
        stream.check()?;
        if !self.context().is_taken_as_current() {
            return self.launch_from_elsewhere(stream);
        }
        self.launch_here(stream)
    }

    #[cold]
    fn launch_from_elsewhere(&mut self, stream: &Stream) -> Result<(), GraphError> {
        let context = self.context().clone();
        let _visit = context.visit()?;
        self.launch_here(stream)
    }

    #[inline]
    fn launch_here(&mut self, stream: &Stream) -> Result<(), GraphError> {
        let api = self.context().driver().api();
        // SAFETY: both are alive. What nodes use was promised when they were added.
        Ok(unsafe { api.graph_launch.call(self.as_raw(), stream.as_raw()) }?)
    }

    /// Sends to the device what a launch would have to send first.
    ///
    /// # Errors
    ///
    /// [`GraphError::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphUpload")]
    pub fn upload(&mut self, stream: &Stream) -> Result<(), GraphError> {
        stream.check()?;
        let _scope = self.context().enter()?;
        let api = self.context().driver().api();
        // SAFETY: both are alive.
        Ok(unsafe { api.graph_upload.call(self.as_raw(), stream.as_raw()) }?)
    }

    /// Gives this executable graph a share of `owner`, which is dropped when it and its last launch
    /// in flight are gone: for what an update names. Makes no driver call.
    pub fn keep_alive(&mut self, owner: impl Send + 'static) {
        self.attach(Box::new(owner));
    }

    /// Keeps an owner as long as this and its launches in flight; for ever where it cannot say when
    /// these end.
    pub(super) fn attach(&self, owner: Box<dyn Send>) {
        match &self.attachments {
            Some(attachments) => attachments.add(owner),
            None => {
                let _kept = Box::leak(owner);
            }
        }
    }

    /// The definition that it was made from. Updates do not change it.
    pub fn definition(&self) -> &GraphDefinition {
        &self.definition
    }

    /// The context that nodes run in.
    #[inline]
    pub fn context(&self) -> &Context {
        self.definition.context()
    }

    /// The driver's handle. It stays usable as long as this is held.
    #[inline]
    pub fn as_raw(&self) -> CUgraphExec {
        self.raw.0
    }

    /// Destroys it, without waiting for launches in flight.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused; the handle is leaked.
    #[doc(alias = "cuGraphExecDestroy")]
    pub fn close(mut self) -> Result<(), Error> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let raw = std::mem::replace(&mut self.raw.0, ptr::null_mut());
        if raw.is_null() {
            return Ok(());
        }
        let _scope = self.context().enter()?;
        // SAFETY: this owner's handle, destroyed once: it was taken.
        unsafe { self.context().driver().api().graph_exec_destroy.call(raw) }
    }
}

impl fmt::Debug for GraphExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("GraphExec");
        out.field("raw", &self.as_raw())
            .field("definition", &self.definition)
            .finish_non_exhaustive()
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.context().release().note(self.context().driver(), outcome);
        self.context().driver().sweep();
    }
}

/// The driver's handle of an executable graph.
pub(super) struct RawExec(pub(super) CUgraphExec);

// SAFETY: an executable graph belongs to no thread; it must not be used by several at once (Driver
// API, graph object thread safety), which a value that is not `Sync` cannot be.
unsafe impl Send for RawExec {}
