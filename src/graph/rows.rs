#![expect(unsafe_code, reason = "calls the driver with raw addresses")]
//! Copies of several rows by one node.

use super::add::New;
use super::definition::GraphDefinition;
use super::error::GraphError;
use super::node::{MemcpyNode, NodeId, NodeKind};
use super::params::Copy1d;
use super::record::Work;

/// A copy of rows of bytes, each a distance behind the one before on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Copy2d {
    /// The copy of the first row.
    pub row: Copy1d,
    /// How many rows.
    pub rows: usize,
    /// From one row to the next at the destination, in bytes; no less than the row's size.
    pub destination_pitch: usize,
    /// The same at the source.
    pub source_pitch: usize,
}

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
        copy.row.check()?;
        if copy.rows == 0 {
            return Err(GraphError::ZeroLength);
        }
        let mut params = copy.row.raw();
        (params.Height, params.srcPitch, params.dstPitch) =
            (copy.rows, copy.source_pitch, copy.destination_pitch);
        self.add(NodeKind::Memcpy, Some(Work::Rows(copy)), after, |new| {
            let New { api, node, graph, after, len, context } = new;
            let params = &raw const params;
            // SAFETY: as in `empty`; the memory is the caller's promise.
            unsafe { api.graph_add_memcpy_node.call(node, graph, after, len, params, context) }
        })
        .map(MemcpyNode)
    }
}
