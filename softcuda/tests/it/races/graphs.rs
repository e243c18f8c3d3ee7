//! Edges of graphs: nodes, launches, captures.

use std::ptr;

use super::holds_with_the_edge_alone;
use crate::graph_rig::RELAXED;

#[test]
fn an_edge_of_a_graph_orders_its_nodes() {
    holds_with_the_edge_alone(|rig, edge| {
        let (stream, at, graph) = (rig.stream(1), rig.device(8), rig.graph());
        let first = rig.add_fill(graph, &[], at, 1);
        let other = rig.add_fill(graph, &[], at + 4, 1);
        let between = rig.add_empty(graph, &[if edge { first } else { other }]);
        rig.add_fill(graph, &[between], at, 2);
        rig.launch(rig.instantiate(graph), stream);
    });
}

#[test]
fn a_launch_is_ordered_with_its_stream_on_both_sides() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at, graph) = (rig.stream(1), rig.stream(1), rig.device(4), rig.graph());
        rig.add_fill(graph, &[], at, 2);
        rig.fill(at, 1, one);
        rig.launch(rig.instantiate(graph), if edge { one } else { two });
    });
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at, graph) = (rig.stream(1), rig.stream(1), rig.device(4), rig.graph());
        rig.add_fill(graph, &[], at, 1);
        rig.launch(rig.instantiate(graph), one);
        rig.fill(at, 2, if edge { one } else { two });
    });
}

#[test]
fn launches_of_one_executable_graph_are_ordered_and_those_of_two_are_not() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at, graph) = (rig.stream(1), rig.stream(1), rig.device(4), rig.graph());
        rig.add_fill(graph, &[], at, 1);
        let (exec, other) = (rig.instantiate(graph), rig.instantiate(graph));
        rig.launch(exec, one);
        rig.launch(if edge { exec } else { other }, two);
    });
}

#[test]
fn events_in_graphs_order_as_events_of_streams_do() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at, graph) = (rig.stream(1), rig.stream(1), rig.device(4), rig.graph());
        let event = rig.event(2);
        let fill = rig.add_fill(graph, &[], at, 1);
        let (mut node, after) = (ptr::null_mut(), [fill]);
        let count = usize::from(edge);
        unsafe {
            rig.api.graph_add_event_record_node.call(
                &raw mut node,
                graph,
                after.as_ptr(),
                count,
                event,
            )
        }
        .unwrap();
        rig.launch(rig.instantiate(graph), one);
        rig.wait(two, event);
        rig.fill(at, 2, two);
    });
}

#[test]
fn a_captured_fork_that_is_not_joined_before_the_access_races() {
    holds_with_the_edge_alone(|rig, edge| {
        let (origin, branch) = (rig.stream(1), rig.stream(1));
        let (at, fork, join) = (rig.device(4), rig.event(2), rig.event(2));
        rig.begin(origin, RELAXED);
        rig.record(fork, origin);
        rig.wait(branch, fork);
        rig.fill(at, 1, branch);
        rig.record(join, branch);
        if edge {
            rig.wait(origin, join);
        }
        rig.fill(at, 2, origin);
        if !edge {
            rig.wait(origin, join);
        }
        let graph = rig.end(origin).unwrap();
        rig.launch(rig.instantiate(graph), rig.stream(1));
    });
}
