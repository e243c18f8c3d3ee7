//! Graphs as pictures: the text that Graphviz draws.

use core::fmt::Write;

use super::Store;
use super::node::{Action, Node};
use crate::task::{CopyTask, Operand, Place};

/// Details beside topology, types and numbers of nodes: bits of `CUgraphDebugDot_flags`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Details(pub(crate) u32);

impl Details {
    const VERBOSE: u32 = 1;
    const KERNEL: u32 = 1 << 2;
    const COPY: u32 = 1 << 3;
    const FILL: u32 = 1 << 4;
    const HOST: u32 = 1 << 5;
    const EVENT: u32 = 1 << 6;
    const HANDLES: u32 = 1 << 10;
    const ALLOC: u32 = 1 << 11;
    const FREE: u32 = 1 << 12;
    const MEM_OPS: u32 = 1 << 13;
    const CONDITIONAL: u32 = 1 << 15;
    /// Every flag that there is.
    pub(crate) const ALL: u32 = (1 << 16) - 1;

    fn has(self, detail: u32) -> bool {
        self.0 & (detail | Self::VERBOSE) != 0
    }
}

/// The graph in the DOT language.
pub(crate) fn dot(store: &Store, graph: u64, details: Details) -> String {
    let mut text = String::from("digraph dot {\n");
    cluster(&mut text, store, graph, details, 1);
    text.push_str("}\n");
    text
}

/// A graph as a box with its nodes and edges, and boxes for the graphs of its nodes.
fn cluster(text: &mut String, store: &Store, graph: u64, details: Details, depth: usize) {
    let Some(known) = store.graphs.get(graph) else { return };
    let (id, outer, inner) = (known.id, "  ".repeat(depth - 1), "  ".repeat(depth));
    let _ = writeln!(text, "{outer}subgraph cluster_{id} {{");
    let _ = writeln!(text, "{inner}label=\"graph_{id}\" graph[style=\"dashed\"];");
    let nodes: Vec<_> =
        known.nodes.iter().filter_map(|node| Some((*node, store.nodes.get(*node)?))).collect();
    for (handle, node) in &nodes {
        let label = label(*handle, node, details);
        let _ = writeln!(
            text,
            "{inner}\"graph_{id}_node_{}\"[shape=\"box\" label=\"{label}\"];",
            node.local
        );
    }
    for (_, node) in &nodes {
        for edge in &node.dependencies {
            let from = store.nodes.get(edge.node).map_or(0, |node| node.local);
            let _ = writeln!(
                text,
                "{inner}\"graph_{id}_node_{from}\" -> \"graph_{id}_node_{}\";",
                node.local
            );
        }
    }
    for (_, node) in &nodes {
        for child in node.action.graphs() {
            cluster(text, store, child, details, depth + 1);
        }
    }
    let _ = writeln!(text, "{outer}}}");
}

/// A node in words, a line each; `\n` separates lines in DOT.
fn label(handle: u64, node: &Node, details: Details) -> String {
    let mut label = format!("{}\\n{}", node.local, name(&node.action));
    if details.has(Details::HANDLES) {
        let _ = write!(label, "\\nnode handle {handle:#x}");
    }
    if let Some(words) = describe(&node.action, details) {
        let _ = write!(label, "\\n{words}");
    }
    label
}

fn name(action: &Action) -> String {
    match action {
        Action::Empty => "EMPTY".to_owned(),
        Action::Copy(copy) => format!("MEMCPY\\n{}", direction(&copy.task)),
        Action::Fill(_) => "MEMSET".to_owned(),
        Action::Host(_) => "HOST".to_owned(),
        Action::MemOps(_) => "BATCH_MEM_OP".to_owned(),
        Action::Kernel(kernel) => format!("KERNEL\\n{:#x}", kernel.function.max(kernel.kernel)),
        Action::Record(_) => "EVENT_RECORD".to_owned(),
        Action::Wait(_) => "WAIT_EVENT".to_owned(),
        Action::Child(_) => "GRAPH".to_owned(),
        Action::Alloc(_) => "MEM_ALLOC".to_owned(),
        Action::Free(_) => "MEM_FREE".to_owned(),
        Action::Conditional(_) => "CONDITIONAL".to_owned(),
    }
}

fn direction(copy: &CopyTask) -> String {
    let letter = |side: &Operand| match side.place {
        Place::Host => "H",
        Place::Device => "D",
        Place::Unified => "U",
    };
    format!("{}to{}", letter(&copy.src), letter(&copy.dst))
}

/// The details of a node that the flags ask for.
fn describe(action: &Action, details: Details) -> Option<String> {
    let shown = match action {
        Action::Copy(copy) => details.has(Details::COPY).then(|| describe_copy(&copy.task)),
        Action::Fill(fill) => details.has(Details::FILL).then(|| {
            let fill = &fill.task;
            let shape =
                format!("{} x {} elements of {} bytes", fill.width, fill.height, fill.element);
            format!(
                "at {:#x}, pitch {}\\nvalue {:#x}, {shape}",
                fill.address, fill.pitch, fill.value
            )
        }),
        Action::Host(host) => details.has(Details::HOST).then(|| {
            let function = host.function.map_or(0, |function| (function as *const ()).addr());
            format!("function {function:#x}\\nuser data {:#x}", host.data.0.addr())
        }),
        Action::MemOps(ops) => details.has(Details::MEM_OPS).then(|| {
            let lines: Vec<_> = ops.tasks.iter().map(|task| format!("{task:x?}")).collect();
            lines.join("\\n")
        }),
        Action::Kernel(kernel) => details.has(Details::KERNEL).then(|| {
            let shape = format!("grid {:?}, block {:?}", kernel.grid, kernel.block);
            format!("{shape}\\nshared memory {} bytes", kernel.shared)
        }),
        Action::Record(event) | Action::Wait(event) => {
            details.has(Details::EVENT).then(|| format!("event {:#x}", event.raw))
        }
        Action::Alloc(block) => details.has(Details::ALLOC).then(|| {
            format!("at {:#x}, {} bytes on device {}", block.device, block.size, block.ordinal)
        }),
        Action::Free(block) => {
            details.has(Details::FREE).then(|| format!("at {:#x}", block.device))
        }
        Action::Conditional(branches) => details.has(Details::CONDITIONAL).then(|| {
            format!(
                "handle {}, type {}, {} graphs",
                branches.handle,
                branches.kind.0,
                branches.graphs.len()
            )
        }),
        Action::Empty | Action::Child(_) => None,
    };
    // A quotation mark would end the label.
    shown.map(|words| words.replace('"', "'"))
}

fn describe_copy(copy: &CopyTask) -> String {
    let side = |side: &Operand| {
        format!("{:#x} (pitch {}, layer {})", side.address, side.pitch, side.layer)
    };
    let shape = format!("{} x {} x {} bytes", copy.width, copy.height, copy.depth);
    format!("from {}\\nto {}\\n{shape}", side(&copy.src), side(&copy.dst))
}
