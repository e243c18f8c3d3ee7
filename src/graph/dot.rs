#![expect(unsafe_code, reason = "calls the driver")]
//! Pictures of graphs.

use core::fmt::Write as _;
use core::ptr;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use wharf_sys::bindings::{CUgraph, CUgraphDebugDot_flags, CUgraphNode};

use super::definition::GraphDefinition;
use super::error::GraphError;
use super::params::Copy2d;
use super::record::{NodeRecord, RawNode, Work};
use crate::error::{CudaError, Error};

/// How much the driver's picture tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DotDetail {
    /// Nodes and edges.
    #[default]
    Shape,
    /// Everything that the driver knows.
    Verbose,
}

impl GraphDefinition {
    /// The graph in the DOT language: each node's label, kind and size, and the edges.
    ///
    /// Addresses are left out, so graphs that do the same look the same.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph wharf {\n  rankdir=LR;\n  node [shape=box];\n");
        for (index, record) in self.nodes.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = writeln!(dot, "  n{index} [label=\"{}\"];", record.title().join("\\n"));
        }
        for (index, record) in self.nodes.iter().enumerate() {
            for before in &record.after {
                let _ = writeln!(dot, "  n{before} -> n{index};");
            }
        }
        dot.push_str("}\n");
        dot
    }

    /// Lets the driver write its own picture of the graph to the file `path`, in the DOT language.
    ///
    /// # Errors
    ///
    /// [`GraphError::Driver`], such as [`CudaError::OPERATING_SYSTEM`] or
    /// [`CudaError::INVALID_VALUE`]: the file cannot be written.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphDebugDotPrint")]
    pub fn write_driver_dot(
        &self,
        path: impl AsRef<Path>,
        detail: DotDetail,
    ) -> Result<(), GraphError> {
        let print = &self.context().driver().api().graph_debug_dot_print;
        let refused = Error::Driver { call: print.name(), code: CudaError::INVALID_VALUE };
        let path = CString::new(path.as_ref().as_os_str().as_bytes()).map_err(|_| refused)?;
        let flags = match detail {
            DotDetail::Shape => 0,
            DotDetail::Verbose => CUgraphDebugDot_flags::CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE.0,
        };
        let _scope = self.context().enter()?;
        // SAFETY: the graph is alive and `path` is a string that ends with a zero.
        Ok(unsafe { print.call(self.as_raw(), path.as_ptr(), flags) }?)
    }

    /// Makes a second graph that does the same and keeps the same alive. Its nodes have the same
    /// order, and handles of their own: those of [`nodes`](Self::nodes).
    ///
    /// # Errors
    ///
    /// [`GraphError::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphClone")]
    pub fn duplicate(&self) -> Result<Self, GraphError> {
        let context = self.context();
        let _scope = context.enter()?;
        let api = context.driver().api();
        let mut raw: CUgraph = ptr::null_mut();
        // SAFETY: `raw` is valid for writes; the graph is alive and used by this thread.
        unsafe { api.graph_clone.call(&raw mut raw, self.as_raw()) }?;
        // In the definition at once, so that an error below destroys the clone.
        let mut copy = Self::with(raw, context, Vec::new());
        for record in &self.nodes {
            let mut node: CUgraphNode = ptr::null_mut();
            // SAFETY: `node` is valid for writes; node and clone are alive.
            unsafe { api.graph_node_find_in_clone.call(&raw mut node, record.raw.get(), raw) }?;
            copy.nodes.push(NodeRecord { raw: RawNode(node), ..record.clone() });
        }
        Ok(copy)
    }
}

/// A letter of a name as pictures have it. Control characters are not allowed in XML, escaped or
/// not: pictures of them stand in.
fn shown(letter: char) -> char {
    match letter {
        '\0'..='\u{1f}' => {
            char::from_u32(0x2400 + u32::from(letter)).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
        _ => letter,
    }
}

/// Escapes `text` for XML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ => out.push(shown(letter)),
        }
    }
    out
}

impl NodeRecord {
    /// Its text in a picture, line by line.
    pub(super) fn title(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(label) = &self.label {
            let quoted = label.replace(['"', '\\'], "'");
            lines
                .extend(quoted.split('\n').map(|line| line.chars().map(shown).collect::<String>()));
        }
        let kind = &self.kind;
        lines.push(match self.work {
            Some(Work::Copy(copy)) => {
                format!("{kind} {}, {} bytes", copy.direction(), copy.size())
            }
            Some(Work::Rows(Copy2d { row, rows, .. })) => {
                format!("{kind} {}, {rows} rows of {} bytes", row.direction(), row.size())
            }
            Some(Work::Fill(fill)) => format!("{kind}, {} x {:?}", fill.len, fill.value),
            Some(Work::MemOps(count)) => format!("{kind}: {count}"),
            None => kind.to_string(),
        });
        lines
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_a_name_are_no_xml_and_are_shown() {
        assert_eq!(
            escaped("a<b>&\u{1b}[0m\0\n\u{85}\u{ffff} é"),
            "a&lt;b&gt;&amp;\u{241b}[0m\u{2400}\u{240a}\u{fffd}\u{fffd} é"
        );
    }
}
