#![expect(unsafe_code, reason = "exports C functions")]
//! Nodes that record events or wait for them.

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::exports;
use super::graph_node::{Place, get, set};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::node::Action;
use crate::handle::{Name, number, to_pointer};
use crate::machine::State;

exports! {
    Normal PFN_cuGraphAddEventRecordNode_v11010: cuGraphAddEventRecordNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        event: CUevent,
    ) => add_record;
    Normal PFN_cuGraphEventRecordNodeGetEvent_v11010: cuGraphEventRecordNodeGetEvent(
        node: CUgraphNode, event: *mut CUevent,
    ) => get_record;
    Normal PFN_cuGraphEventRecordNodeSetEvent_v11010: cuGraphEventRecordNodeSetEvent(
        node: CUgraphNode, event: CUevent,
    ) => set_record;
    Normal PFN_cuGraphAddEventWaitNode_v11010: cuGraphAddEventWaitNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        event: CUevent,
    ) => add_wait;
    Normal PFN_cuGraphEventWaitNodeGetEvent_v11010: cuGraphEventWaitNodeGetEvent(
        node: CUgraphNode, event: *mut CUevent,
    ) => get_wait;
    Normal PFN_cuGraphEventWaitNodeSetEvent_v11010: cuGraphEventWaitNodeSetEvent(
        node: CUgraphNode, event: CUevent,
    ) => set_wait;
}

/// The event's name, if there is such an event.
pub(crate) fn live_event(state: &State, event: CUevent) -> Status<Name> {
    state.events.name(number(event)).ok_or(CudaError::INVALID_VALUE)
}

fn add_record(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    event: CUevent,
) -> Status {
    let place = Place::new(node, graph, dependencies, count);
    place.add(call, |state| Ok(Action::Record(live_event(state, event)?)))
}

fn get_record(call: Call, node: CUgraphNode, event: *mut CUevent) -> Status {
    get(call, node, event, |action| match action {
        Action::Record(event) => Some(to_pointer(event.raw)),
        _ => None,
    })
}

fn set_record(call: Call, node: CUgraphNode, event: CUevent) -> Status {
    let mut state = call.lock();
    let action = Action::Record(live_event(&state, event)?);
    set(&mut state, node, action)
}

fn add_wait(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    event: CUevent,
) -> Status {
    let place = Place::new(node, graph, dependencies, count);
    place.add(call, |state| Ok(Action::Wait(live_event(state, event)?)))
}

fn get_wait(call: Call, node: CUgraphNode, event: *mut CUevent) -> Status {
    get(call, node, event, |action| match action {
        Action::Wait(event) => Some(to_pointer(event.raw)),
        _ => None,
    })
}

fn set_wait(call: Call, node: CUgraphNode, event: CUevent) -> Status {
    let mut state = call.lock();
    let action = Action::Wait(live_event(&state, event)?);
    set(&mut state, node, action)
}
