#![expect(unsafe_code, reason = "calls the driver's functions with raw handles")]
//! Graphs: nodes as such, edges, clones, user objects.

use core::ffi::c_void;
use core::ptr;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use wharf::Error;
use wharf::sys::bindings::{
    CUgraph, CUgraphNode, CUgraphNodeType, CUuserObject, CUuserObject_flags,
};

use super::{Exercise, Guard, Outcome, World, call};

pub(super) const EXERCISES: &[Exercise] = &[
    ("cuGraphCreate", 10000, |w| w.graph().map(drop)),
    ("cuGraphDestroy", 10000, |w| w.graph()?.close()),
    ("cuGraphClone", 10000, |w| {
        let graph = w.graph()?;
        cloned(w, &graph).map(drop)
    }),
    ("cuGraphNodeFindInClone", 10000, |w| {
        let graph = w.graph()?;
        let node = w.empty_node(&graph)?;
        let clone = cloned(w, &graph)?;
        let mut found = ptr::null_mut();
        call!(w, graph_node_find_in_clone(&raw mut found, node, clone.get()))
    }),
    ("cuGraphNodeGetType", 10000, |w| {
        let graph = w.graph()?;
        let mut kind = CUgraphNodeType(0);
        call!(w, graph_node_get_type(w.empty_node(&graph)?, &raw mut kind))
    }),
    ("cuGraphGetNodes", 10000, |w| {
        let (graph, mut count) = (w.graph()?, 0);
        call!(w, graph_get_nodes(graph.get(), ptr::null_mut(), &raw mut count))
    }),
    ("cuGraphGetRootNodes", 10000, |w| {
        let (graph, mut count) = (w.graph()?, 0);
        call!(w, graph_get_root_nodes(graph.get(), ptr::null_mut(), &raw mut count))
    }),
    ("cuGraphGetEdges", 10000, |w| {
        let (graph, mut count, none) = (w.graph()?, 0, ptr::null_mut());
        call!(w, graph_get_edges(graph.get(), none, ptr::null_mut(), &raw mut count))
    }),
    ("cuGraphNodeGetDependencies", 10000, |w| {
        with_edge(w, |_, _, to| {
            let mut count = 0;
            call!(w, graph_node_get_dependencies(to, ptr::null_mut(), &raw mut count))
        })
    }),
    ("cuGraphNodeGetDependentNodes", 10000, |w| {
        with_edge(w, |_, from, _| {
            let mut count = 0;
            call!(w, graph_node_get_dependent_nodes(from, ptr::null_mut(), &raw mut count))
        })
    }),
    ("cuGraphAddDependencies", 10000, |w| with_edge(w, |_, _, _| Ok(()))),
    ("cuGraphRemoveDependencies", 10000, |w| {
        with_edge(w, |graph, from, to| {
            call!(w, graph_remove_dependencies(graph, &raw const from, &raw const to, 1))
        })
    }),
    ("cuGraphDestroyNode", 10000, |w| {
        let graph = w.graph()?;
        call!(w, graph_destroy_node(w.empty_node(&graph)?))
    }),
    ("cuGraphDebugDotPrint", 11030, |w| {
        let graph = w.graph()?;
        let file = std::env::temp_dir().join(format!("wharf-{}.dot", std::process::id()));
        let path = CString::new(file.as_os_str().as_bytes()).unwrap();
        let outcome = call!(w, graph_debug_dot_print(graph.get(), path.as_ptr(), 0));
        let _not_there_after_a_failure = std::fs::remove_file(file);
        outcome
    }),
    ("cuUserObjectCreate", 11030, |w| user_object(w).map(drop)),
    ("cuUserObjectRetain", 11030, |w| {
        let object = user_object(w)?;
        call!(w, user_object_retain(object.get(), 1))?;
        call!(w, user_object_release(object.get(), 1))
    }),
    ("cuUserObjectRelease", 11030, |w| user_object(w)?.close()),
    ("cuGraphRetainUserObject", 11030, |w| {
        let (graph, object) = (w.graph()?, user_object(w)?);
        call!(w, graph_retain_user_object(graph.get(), object.get(), 1, 0))
    }),
    ("cuGraphReleaseUserObject", 11030, |w| {
        let (graph, object) = (w.graph()?, user_object(w)?);
        call!(w, graph_retain_user_object(graph.get(), object.get(), 1, 0))?;
        call!(w, graph_release_user_object(graph.get(), object.get(), 1))
    }),
];

fn cloned<'w>(w: &'w World, graph: &Guard<'_, CUgraph>) -> Result<Guard<'w, CUgraph>, Error> {
    let mut clone = ptr::null_mut();
    call!(w, graph_clone(&raw mut clone, graph.get()))?;
    Ok(w.guard(clone, |w, clone| call!(w, graph_destroy(clone))))
}

/// Runs `body` with a graph of two nodes, the first before the second.
fn with_edge(
    w: &World,
    body: impl FnOnce(CUgraph, CUgraphNode, CUgraphNode) -> Outcome,
) -> Outcome {
    let graph = w.graph()?;
    let (from, to) = (w.empty_node(&graph)?, w.empty_node(&graph)?);
    call!(w, graph_add_dependencies(graph.get(), &raw const from, &raw const to, 1))?;
    body(graph.get(), from, to)
}

/// An object that owns nothing.
fn user_object(w: &World) -> Result<Guard<'_, CUuserObject>, Error> {
    unsafe extern "C" fn destroy(_data: *mut c_void) {}
    let mut object = ptr::null_mut();
    let flags = CUuserObject_flags::CU_USER_OBJECT_NO_DESTRUCTOR_SYNC.0;
    call!(w, user_object_create(&raw mut object, ptr::null_mut(), Some(destroy), 1, flags))?;
    Ok(w.guard(object, |w, object| call!(w, user_object_release(object, 1))))
}
