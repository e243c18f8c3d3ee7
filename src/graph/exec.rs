#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Executable graphs: launched with one call.

use core::fmt;
use core::ptr;

use wharf_sys::bindings::{CUgraphExec, CUgraphExec_st};

use super::definition::GraphDefinition;
use super::error::{GraphError, InstantiateError};
use super::keep_alive::Attachments;
use crate::driver::Context;
use crate::error::Error;
use crate::profile::range;
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
    raw: RawExec,
    pub(super) attachments: Attachments,
    /// Behind the handle, so that it goes after it: nodes named in updates must be in their graph.
    pub(super) definition: GraphDefinition,
}

impl GraphDefinition {
    /// Makes the graph executable; it then belongs to the result. [`duplicate`](Self::duplicate) it
    /// first to keep changing it.
    ///
    /// # Errors
    ///
    /// [`InstantiateError`] with the definition: the driver cannot.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphInstantiate")]
    pub fn instantiate(self) -> Result<GraphExec, InstantiateError> {
        let _range = range!("wharf::graph::instantiate");
        match self.try_instantiate() {
            Ok((raw, attachments)) => Ok(GraphExec { raw, attachments, definition: self }),
            Err(error) => Err(InstantiateError { definition: self, error }),
        }
    }

    fn try_instantiate(&self) -> Result<(RawExec, Attachments), GraphError> {
        let context = self.context();
        context.driver().drop_deferred()?;
        let _scope = context.enter()?;
        // An executable graph gets references of its own to what its definition has at this time.
        let attachments = Attachments::new(context)?;
        attachments.object.share_with(self.as_raw())?;
        let mut raw: CUgraphExec = ptr::null_mut();
        let instantiate = &context.driver().api().graph_instantiate_with_flags;
        // SAFETY: `raw` is valid for writes for the whole call; the graph is alive.
        let made = unsafe { instantiate.call(&raw mut raw, self.as_raw(), 0) };
        let taken = attachments.object.take_from(self.as_raw());
        made?;
        // The definition merely keeps the list alive a little longer.
        context.release().note(context.driver(), taken);
        Ok((RawExec(raw), attachments))
    }
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
        if !self.context().is_entered() {
            return self.launch_from_elsewhere(stream);
        }
        let api = self.context().driver().api();
        // SAFETY: both are alive. What nodes use was promised when they were added.
        Ok(unsafe { api.graph_launch.call(self.as_raw(), stream.as_raw()) }?)
    }

    #[cold]
    fn launch_from_elsewhere(&mut self, stream: &Stream) -> Result<(), GraphError> {
        let context = self.context().clone();
        let _scope = context.enter()?;
        self.launch(stream)
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
        let _scope = self.context().enter()?;
        let api = self.context().driver().api();
        // SAFETY: both are alive.
        Ok(unsafe { api.graph_upload.call(self.as_raw(), stream.as_raw()) }?)
    }

    /// Gives this executable graph a share of `owner`, which is dropped when it and its last launch
    /// in flight are gone: for what an update names. Makes no driver call.
    pub fn keep_alive(&mut self, owner: impl Send + 'static) {
        self.attachments.add(Box::new(owner));
    }

    /// What it was made from. Updates do not change it.
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
        out.field("raw", &self.as_raw()).field("definition", &self.definition).finish_non_exhaustive()
    }
}

impl Drop for GraphExec {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.context().release().note(self.context().driver(), outcome);
    }
}

/// The driver's handle of an executable graph.
struct RawExec(*mut CUgraphExec_st);

// SAFETY: an executable graph belongs to no thread; it must not be used by several at once (Driver
// API, graph object thread safety), which a value that is not `Sync` cannot be.
unsafe impl Send for RawExec {}
