#![expect(unsafe_code, reason = "calls the driver")]
//! Definitions become executable graphs.

use core::fmt;
use core::ptr;

use wharf_sys::bindings::CUgraphExec;

use super::definition::GraphDefinition;
use super::error::GraphError;
use super::exec::{GraphExec, RawExec};
use super::keep_alive::Attachments;
use crate::profile::range;
use crate::sync::Mutex;

impl GraphDefinition {
    /// Makes the graph executable; it then belongs to the result. [`duplicate`](Self::duplicate) it
    /// first to keep changing it.
    ///
    /// # Errors
    ///
    /// [`InstantiateError`], which [has](InstantiateError::into_definition) the definition: the
    /// driver cannot.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphInstantiate")]
    pub fn instantiate(self) -> Result<GraphExec, InstantiateError> {
        let _range = range!("graph::instantiate");
        match self.try_instantiate() {
            Ok((raw, attachments)) => {
                Ok(GraphExec { raw, attachments: Some(attachments), definition: self })
            }
            Err(error) => Err(InstantiateError::new(self, error)),
        }
    }

    /// As [`instantiate`](Self::instantiate), for a caller that waits for all launches before it
    /// drops what the graph names: it can keep nothing alive, and three driver calls are saved.
    pub(crate) fn instantiate_bare(self) -> Result<GraphExec, InstantiateError> {
        let _range = range!("graph::instantiate");
        self.context().driver().sweep();
        let made = self.context().make_current().map_err(GraphError::from);
        match made.and_then(|_scope| self.instantiate_here()) {
            Ok(raw) => Ok(GraphExec { raw, attachments: None, definition: self }),
            Err(error) => Err(InstantiateError::new(self, error)),
        }
    }

    fn try_instantiate(&self) -> Result<(RawExec, Attachments), GraphError> {
        let context = self.context();
        context.driver().sweep();
        let _scope = context.make_current()?;
        // An executable graph gets references of its own to what its definition has at this time.
        let attachments = Attachments::new(context)?;
        attachments.object.share_with(self.as_raw())?;
        let made = self.instantiate_here();
        let taken = attachments.object.take_from(self.as_raw());
        let raw = made?;
        // The definition merely keeps the list alive a little longer.
        context.release().note(context.driver(), taken);
        Ok((raw, attachments))
    }

    /// The driver's part, in the current context.
    fn instantiate_here(&self) -> Result<RawExec, GraphError> {
        let mut raw: CUgraphExec = ptr::null_mut();
        let instantiate = &self.context().driver().api().graph_instantiate_with_flags;
        // SAFETY: `raw` is valid for writes for the whole call; the graph is alive.
        unsafe { instantiate.call(&raw mut raw, self.as_raw(), 0) }?;
        Ok(RawExec(raw))
    }
}

/// The driver could not instantiate a definition, which comes back.
#[derive(Debug)]
pub struct InstantiateError {
    /// Never locked: a definition is not to be shared between threads, and an error is.
    definition: Mutex<GraphDefinition>,
    nodes: usize,
    /// Why.
    pub error: GraphError,
}

impl InstantiateError {
    pub(super) fn new(definition: GraphDefinition, error: GraphError) -> Self {
        Self { nodes: definition.len(), definition: Mutex::new(definition), error }
    }

    /// The definition, as it was.
    pub fn into_definition(self) -> GraphDefinition {
        self.definition.into_inner()
    }
}

impl fmt::Display for InstantiateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot instantiate a graph of {} nodes: {}", self.nodes, self.error)
    }
}

impl core::error::Error for InstantiateError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<InstantiateError> for GraphError {
    fn from(failed: InstantiateError) -> Self {
        failed.error
    }
}
