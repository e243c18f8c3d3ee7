#![expect(unsafe_code, reason = "nodes name raw addresses")]
//! Graphs: nodes, edges, executable graphs and their changes, keep-alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use wharf::driver::EventKind;
use wharf::graph::{
    Copy1d, Direction, DotDetail, Fill, FillValue, GraphDefinition, GraphError, MemOp, MemOpNode,
    MemcpyNode, MemsetNode, NodeId, NodeKind, UpdateRefusal,
};
use wharf::{Context, Driver, Error, Event};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::graph_rig::{Cells, Owner, until_dropped, until_sole};

on_each_driver!(
    every_kind_of_node_runs,
    edges_order_nodes,
    what_a_graph_cannot_hold_is_refused,
    edges_are_checked,
    a_changed_copy_counts_for_later_launches,
    a_change_keeps_the_direction,
    a_disabled_node_does_nothing,
    a_whole_update_says_why_not,
    owners_outlive_the_last_launch,
    owners_of_updates_outlive_a_whole_update,
    a_graph_does_not_end_before_its_duplicate,
    a_panic_in_a_host_function_ends_there,
    pictures_name_what_is_there,
    control_characters_in_a_label_are_shown_in_pictures,
);

/// Adds a copy to a graph whose memory outlives its launches, in an order that its edges make.
pub(crate) fn memcpy(
    graph: &mut GraphDefinition,
    copy: Copy1d,
    after: &[NodeId],
) -> Result<MemcpyNode, GraphError> {
    // SAFETY: the memory is that of `Cells`, which outlive the launches.
    unsafe { graph.memcpy(copy, after) }
}

/// As `memcpy`, for a fill.
pub(crate) fn memset(
    graph: &mut GraphDefinition,
    fill: Fill,
    after: &[NodeId],
) -> Result<MemsetNode, GraphError> {
    // SAFETY: as in `memcpy`.
    unsafe { graph.memset(fill, after) }
}

/// As `memcpy`, for writes of words.
pub(crate) fn mem_ops(
    graph: &mut GraphDefinition,
    words: &[MemOp],
    after: &[NodeId],
) -> Result<MemOpNode, GraphError> {
    // SAFETY: as in `memcpy`.
    unsafe { graph.mem_ops(words, after) }
}

fn every_kind_of_node_runs(driver: &Driver) {
    let cells = Cells::new(driver);
    let (host, device) = (cells.host(), cells.device());
    let event = Arc::new(Event::new(&cells.context, EventKind::Ordering).unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let mut graph = GraphDefinition::new(&cells.context).unwrap();
    cells.set(0, 7);
    let up = memcpy(&mut graph, Copy1d::htod(device, host, 8), &[]).unwrap();
    let across = memcpy(&mut graph, Copy1d::dtod(device + 8, device, 8), &[up.into()]).unwrap();
    let fill = Fill { destination: device + 16, value: FillValue::D16(0x101), len: 4 };
    let fill = memset(&mut graph, fill, &[]).unwrap();
    let wait = graph.event_wait(&event, &[]).unwrap();
    let called = graph.host_func(move || _ = counter.fetch_add(1, Ordering::Relaxed), &[]).unwrap();
    let all: [NodeId; 4] = [across.into(), fill.into(), wait.into(), called.into()];
    let join = graph.empty(&all).unwrap();
    let down = Copy1d::dtoh(cells.host_at(8), device + 8, 16);
    let mut last: NodeId = memcpy(&mut graph, down, &[join.into()]).unwrap().into();
    if driver.api().graph_add_batch_mem_op_node.is_available() {
        let write = MemOp::Write64 { address: cells.device_of_host(24), value: 99 };
        last = mem_ops(&mut graph, &[write], &[last]).unwrap().into();
    } else {
        cells.set(3, 99);
    }
    let inner = {
        let mut inner = GraphDefinition::new(&cells.context).unwrap();
        inner.empty(&[]).unwrap();
        inner
    };
    let child = graph.child(&inner, &[last]).unwrap();
    graph.event_record(&event, &[child.into()]).unwrap();
    let mut exec = graph.instantiate().unwrap();
    for launch in 1..=3 {
        cells.set(0, 7 + launch);
        exec.upload(&cells.stream).unwrap();
        exec.launch(&cells.stream).unwrap();
        event.synchronize().unwrap();
        cells.stream.synchronize().unwrap();
        assert_eq!(
            (cells.get(1), cells.get(2), cells.get(3)),
            (7 + launch, 0x0101_0101_0101_0101, 99)
        );
        assert_eq!(calls.load(Ordering::Relaxed) as u64, launch);
    }
    drop(exec);
    until_sole(driver, &event);
}

fn edges_order_nodes(driver: &Driver) {
    let cells = Cells::new(driver);
    let mut graph = GraphDefinition::new(&cells.context).unwrap();
    let mut copies: Vec<MemcpyNode> = Vec::new();
    for cell in 0..20 {
        // Each copies what the one before brought.
        let copy = memcpy(
            &mut graph,
            Copy1d::dtod(cells.device() + 8 * (cell + 1), cells.device() + 8 * cell, 8),
            &[],
        );
        copies.push(copy.unwrap());
    }
    for pair in copies.windows(2) {
        graph.depend(pair[1], pair[0]).unwrap();
    }
    let down =
        memcpy(&mut graph, Copy1d::dtoh(cells.host_at(8), cells.device() + 160, 8), &[]).unwrap();
    graph.depend(down, copies[19]).unwrap();
    cells.set(0, 5);
    cells.up(8);
    graph.instantiate().unwrap().launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
    assert_eq!(cells.get(1), 5);
}

fn what_a_graph_cannot_hold_is_refused(driver: &Driver) {
    let cells = Cells::new(driver);
    let mut graph = GraphDefinition::new(&cells.context).unwrap();
    let fill = |destination, len| Fill { destination, value: FillValue::D32(1), len };
    let write = MemOp::Write64 { address: cells.device() + 4, value: 0 };
    let nothing = memcpy(&mut graph, Copy1d::htod(cells.device(), cells.host(), 0), &[]);
    assert_eq!(nothing, Err(GraphError::ZeroLength));
    assert_eq!(memset(&mut graph, fill(cells.device(), 0), &[]), Err(GraphError::ZeroLength));
    let odd = GraphError::Misaligned { address: cells.device() + 2, align: 4 };
    assert_eq!(memset(&mut graph, fill(cells.device() + 2, 1), &[]), Err(odd));
    let odd = GraphError::Misaligned { address: cells.device() + 4, align: 8 };
    assert_eq!(mem_ops(&mut graph, &[write], &[]), Err(odd));
    assert_eq!(mem_ops(&mut graph, &[], &[]), Err(GraphError::MemOps { count: 0 }));
    assert_eq!(mem_ops(&mut graph, &[write; 257], &[]), Err(GraphError::MemOps { count: 257 }));
    assert!(graph.is_empty());
}

fn edges_are_checked(driver: &Driver) {
    let cells = Cells::new(driver);
    let mut graph = GraphDefinition::new(&cells.context).unwrap();
    let mut other = GraphDefinition::new(&cells.context).unwrap();
    let foreign: NodeId = other.empty(&[]).unwrap().into();
    let first = graph.empty(&[]).unwrap();
    let second = graph.empty(&[first.into()]).unwrap();
    let third = graph.empty(&[second.into()]).unwrap();
    assert_eq!(graph.empty(&[foreign]), Err(GraphError::ForeignNode(foreign)));
    let twice = graph.empty(&[first.into(), first.into()]);
    assert_eq!(twice, Err(GraphError::DuplicateEdge(first.into())));
    assert_eq!(graph.depend(second, first), Err(GraphError::DuplicateEdge(first.into())));
    assert_eq!(graph.depend(first, third), Err(GraphError::Cycle(third.into())));
    assert_eq!(graph.depend(first, first), Err(GraphError::Cycle(first.into())));
    assert_eq!(graph.depend(foreign, first), Err(GraphError::ForeignNode(foreign)));
    assert_eq!(graph.label(foreign, "x"), Err(GraphError::ForeignNode(foreign)));
    graph.depend(third, first).unwrap();
    let kinds: Vec<_> = graph.nodes().map(|node| node.kind).collect();
    assert_eq!(kinds, [NodeKind::Empty; 3]);
}

/// A graph that brings the first cell up and down again as the second, and its first node.
pub(crate) fn round_trip(cells: &Cells) -> (GraphDefinition, MemcpyNode) {
    let mut graph = GraphDefinition::new(&cells.context).unwrap();
    let up = memcpy(&mut graph, Copy1d::htod(cells.device(), cells.host(), 8), &[]).unwrap();
    memcpy(&mut graph, Copy1d::dtoh(cells.host_at(8), cells.device(), 8), &[up.into()]).unwrap();
    (graph, up)
}

fn a_changed_copy_counts_for_later_launches(driver: &Driver) {
    let cells = Cells::new(driver);
    let (graph, up) = round_trip(&cells);
    let mut exec = graph.instantiate().unwrap();
    cells.set(0, 1);
    cells.set(4, 4);
    exec.launch(&cells.stream).unwrap();
    // SAFETY: as in `round_trip`.
    unsafe { exec.set_copy(up, Copy1d::htod(cells.device(), cells.host_at(32), 8)) }.unwrap();
    cells.stream.synchronize().unwrap();
    assert_eq!(cells.get(1), 1);
    exec.launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
    assert_eq!(cells.get(1), 4);
}

fn a_change_keeps_the_direction(driver: &Driver) {
    let cells = Cells::new(driver);
    let (graph, up) = round_trip(&cells);
    let (_, foreign) = round_trip(&cells);
    let mut exec = graph.instantiate().unwrap();
    // SAFETY: nothing of it is launched.
    let mut set = |node, copy| unsafe { exec.set_copy(node, copy) };
    let (device, host) = (cells.device(), cells.host());
    assert_eq!(set(up, Copy1d::htod(device, host, 0)), Err(GraphError::ZeroLength));
    let turned = GraphError::Direction { node: Direction::Htod, given: Direction::Dtod };
    assert_eq!(set(up, Copy1d::dtod(device, device + 64, 8)), Err(turned));
    let refused = set(foreign, Copy1d::htod(device, host, 8));
    assert_eq!(refused, Err(GraphError::ForeignNode(foreign.into())));
}

fn a_disabled_node_does_nothing(driver: &Driver) {
    let cells = Cells::new(driver);
    let (mut graph, up) = round_trip(&cells);
    let join = graph.empty(&[up.into()]).unwrap();
    let mut exec = graph.instantiate().unwrap();
    if !driver.api().graph_node_set_enabled.is_available() {
        return;
    }
    assert_eq!(exec.set_enabled(join, false), Err(GraphError::CannotDisable(NodeKind::Empty)));
    for (value, enabled, expected) in [(1, true, 1), (2, false, 1), (3, true, 3)] {
        cells.set(0, value);
        exec.set_enabled(up, enabled).unwrap();
        exec.launch(&cells.stream).unwrap();
        cells.stream.synchronize().unwrap();
        assert_eq!(cells.get(1), expected);
    }
}

fn a_whole_update_says_why_not(driver: &Driver) {
    let cells = Cells::new(driver);
    let (graph, _) = round_trip(&cells);
    let mut exec = graph.instantiate().unwrap();
    let (mut longer, _) = round_trip(&cells);
    longer.empty(&[]).unwrap();
    let refused = GraphError::Update { reason: UpdateRefusal::Topology, node: None };
    assert_eq!(exec.update(&longer), Err(refused));
    let mut other = GraphDefinition::new(&cells.context).unwrap();
    let first = other.empty(&[]).unwrap();
    let second = other.empty(&[first.into()]).unwrap();
    let refused = exec.update(&other).unwrap_err();
    assert_eq!(
        refused,
        GraphError::Update { reason: UpdateRefusal::NodeKind, node: Some(second.into()) }
    );
    assert!(refused.to_string().contains("NodeKind"));
    let elsewhere = Cells::new(driver);
    let (fits, _) = round_trip(&elsewhere);
    cells.set(0, 1);
    elsewhere.set(0, 2);
    exec.update(&fits).unwrap();
    exec.launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
    assert_eq!(elsewhere.get(1), 2);
}

fn owners_outlive_the_last_launch(driver: &Driver) {
    let cells = Cells::new(driver);
    let (owner, dropped) = Owner::new();
    let (mut graph, _) = round_trip(&cells);
    graph.keep_alive(owner).unwrap();
    let mut exec = graph.instantiate().unwrap();
    let gate = cells.close_gate();
    exec.launch(&cells.stream).unwrap();
    drop(exec);
    driver.drop_deferred().unwrap();
    assert!(!dropped.is(), "a launch is in flight");
    gate.open();
    cells.stream.synchronize().unwrap();
    until_dropped(driver, &dropped);
}

fn owners_of_updates_outlive_a_whole_update(driver: &Driver) {
    let cells = Cells::new(driver);
    let ((first, first_dropped), (second, second_dropped)) = (Owner::new(), Owner::new());
    let (graph, _) = round_trip(&cells);
    let mut exec = graph.instantiate().unwrap();
    exec.keep_alive(first);
    let (mut next, _) = round_trip(&cells);
    next.keep_alive(second).unwrap();
    exec.update(&next).unwrap();
    drop(next);
    driver.drop_deferred().unwrap();
    assert!(!first_dropped.is() && !second_dropped.is());
    exec.launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
    drop(exec);
    until_dropped(driver, &first_dropped);
    until_dropped(driver, &second_dropped);
}

fn a_graph_does_not_end_before_its_duplicate(driver: &Driver) {
    let cells = Cells::new(driver);
    let (owner, dropped) = Owner::new();
    let (mut graph, _) = round_trip(&cells);
    graph.keep_alive(owner).unwrap();
    let copy = graph.duplicate().unwrap();
    assert_eq!(copy.to_dot(), graph.to_dot());
    graph.close().unwrap();
    driver.drop_deferred().unwrap();
    assert!(!dropped.is());
    cells.set(0, 3);
    copy.instantiate().unwrap().launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
    assert_eq!(cells.get(1), 3);
    until_dropped(driver, &dropped);
}

fn a_panic_in_a_host_function_ends_there(driver: &Driver) {
    let cells = Cells::new(driver);
    let mut graph = GraphDefinition::new(&cells.context).unwrap();
    graph.host_func(|| panic!("on purpose"), &[]).unwrap();
    graph.instantiate().unwrap().launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
}

fn pictures_name_what_is_there(driver: &Driver) {
    let cells = Cells::new(driver);
    let (mut graph, up) = round_trip(&cells);
    graph.label(up, "input \"ids\"").unwrap();
    let dot = graph.to_dot();
    assert!(dot.contains("n0 [label=\"input 'ids'\\nmemcpy htod, 8 bytes\"]"), "{dot}");
    assert!(dot.contains("n0 -> n1;"), "{dot}");
    let name = format!("wharf-{}-{:?}.dot", std::process::id(), thread::current().id());
    let file = std::env::temp_dir().join(name);
    graph.write_driver_dot(&file, DotDetail::Verbose).unwrap();
    let theirs = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(theirs.contains("digraph"), "{theirs}");
    let nowhere = graph.write_driver_dot("/nowhere/at/all", DotDetail::Shape);
    assert!(matches!(nowhere, Err(GraphError::Driver(Error::Driver { .. }))), "{nowhere:?}");
    assert!(graph.write_driver_dot("a\0b", DotDetail::Shape).is_err());
}

fn control_characters_in_a_label_are_shown_in_pictures(driver: &Driver) {
    let cells = Cells::new(driver);
    let (mut graph, up) = round_trip(&cells);
    graph.label(up, "a\u{1b}[0m\0<b>\u{85}\u{ffff}\nsecond").unwrap();
    let dot = graph.to_dot();
    assert!(dot.contains("a\u{241b}[0m\u{2400}<b>\u{fffd}\u{fffd}\\nsecond\\n"), "{dot}");
    #[cfg(feature = "svg")]
    {
        let svg = graph.to_svg();
        assert!(
            svg.contains("a\u{241b}[0m\u{2400}&lt;b&gt;\u{fffd}\u{fffd}<")
                && svg.contains("second<"),
            "{svg}"
        );
        assert!(
            svg.chars()
                .all(|letter| letter == '\n' || !letter.is_control() && letter != '\u{ffff}')
        );
    }
}

/// A graph goes to another thread, and so does an executable one.
#[test]
fn graphs_may_be_sent() {
    fn is_send<T: Send>() {}
    is_send::<GraphDefinition>();
    is_send::<wharf::graph::GraphExec>();
}

#[test]
fn an_event_of_another_context_is_refused() {
    let machine = Arc::new(Simulator::new(Config { devices: 2, ..Config::default() }));
    on_machine(&machine, |driver| {
        let context = |ordinal| Context::retain(&driver.device(ordinal).unwrap()).unwrap();
        let (here, there) = (context(0), context(1));
        let event = Arc::new(Event::new(&there, EventKind::Ordering).unwrap());
        let mut graph = GraphDefinition::new(&here).unwrap();
        assert_eq!(graph.event_record(&event, &[]), Err(GraphError::OtherContext));
        graph.event_wait(&event, &[]).unwrap();
    });
}
