#![expect(unsafe_code, reason = "calls the driver with raw addresses")]
//! Copies of several rows by one node.

use super::add::New;
use super::definition::GraphDefinition;
use super::error::GraphError;
use super::node::{MemcpyNode, NodeId, NodeKind};
use super::params::Copy2d;
use super::record::Work;

impl GraphDefinition {
    /// Adds a copy of rows, behind the nodes `after`. What it copies cannot be changed in an
    /// executable graph, which takes copies of one row alone.
    ///
    /// # Errors
    ///
    /// [`GraphError::ZeroLength`]: it copies 0 bytes. [`GraphError::Driver`] with
    /// [`CudaError::INVALID_VALUE`](crate::CudaError::INVALID_VALUE): rows overlap. Otherwise as
    /// [`empty`](Self::empty).
    ///
    /// # Safety
    ///
    /// As [`memcpy`](Self::memcpy), for each row.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphAddMemcpyNode")]
    #[doc(alias = "CUDA_MEMCPY3D")]
    pub unsafe fn memcpy_rows(
        &mut self,
        copy: Copy2d,
        after: &[NodeId],
    ) -> Result<MemcpyNode, GraphError> {
        copy.check()?;
        let params = copy.raw();
        self.add(NodeKind::Memcpy, Some(Work::Rows(copy)), after, |new| {
            let New { api, node, graph, after, len, context } = new;
            let params = &raw const params;
            // SAFETY: as in `empty`; the memory is the caller's promise.
            unsafe { api.graph_add_memcpy_node.call(node, graph, after, len, params, context) }
        })
        .map(MemcpyNode)
    }
}
