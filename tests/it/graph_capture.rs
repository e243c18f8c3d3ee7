#![expect(unsafe_code, reason = "captures copies by raw address")]
//! Stream capture, and what is kept alive by captured graphs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use wharf::driver::EventKind;
use wharf::graph::{
    CaptureFault, CaptureMode, CaptureScope, GraphDefinition, GraphError, NodeKind,
    keep_alive_in_capture,
};
use wharf::stream::CaptureStatus;
use wharf::{CudaError, Driver, Event, Stream};

use crate::backend::on_each_driver;
use crate::graph_rig::{Cells, Owner, until_dropped};

on_each_driver!(
    a_capture_becomes_a_graph,
    a_forbidden_call_is_one_clear_error,
    a_panic_ends_the_capture,
    a_dropped_scope_ends_the_capture,
    an_unjoined_stream_is_told,
    the_legacy_stream_cannot_capture,
    memory_nodes_are_refused,
    a_graph_is_appended_to_a_capture,
    a_captured_graph_keeps_owners_alive,
    nothing_is_kept_without_a_capture,
);

fn active(stream: &Stream) -> bool {
    stream.capture_status().unwrap() != CaptureStatus::Inactive
}

fn a_capture_becomes_a_graph(driver: &Driver) {
    let cells = Cells::new(driver);
    let graph = CaptureScope::capture(&cells.stream, CaptureMode::default(), |stream| {
        // SAFETY: the cells outlive the launches.
        unsafe { stream.copy_htod(cells.device(), cells.host(), 8) }?;
        // SAFETY: as above.
        unsafe { stream.copy_dtoh(cells.host_at(8), cells.device(), 8) }
    })
    .unwrap();
    assert!(graph.to_dot().contains("n0 -> n1"));
    assert_eq!(graph.nodes().map(|node| node.kind).collect::<Vec<_>>(), [NodeKind::Memcpy; 2]);
    let first = graph.nodes().next().unwrap().id;
    let mut exec = graph.instantiate().unwrap();
    for value in 1..4 {
        cells.set(0, value);
        exec.launch(&cells.stream).unwrap();
        cells.stream.synchronize().unwrap();
        assert_eq!(cells.get(1), value);
    }
    if driver.api().graph_node_set_enabled.is_available() {
        exec.set_enabled(first, false).unwrap();
    }
}

fn a_forbidden_call_is_one_clear_error(driver: &Driver) {
    let cells = Cells::new(driver);
    for mode in [CaptureMode::Global, CaptureMode::ThreadLocal, CaptureMode::Relaxed] {
        let spoilt = CaptureScope::capture(&cells.stream, mode, Stream::synchronize).unwrap_err();
        let GraphError::Capture { fault: CaptureFault::Invalidated, error } = spoilt else {
            panic!("{spoilt}")
        };
        assert_eq!(error.code(), Some(CudaError::STREAM_CAPTURE_UNSUPPORTED));
        assert!(spoilt.to_string().contains("do not wait"), "{spoilt}");
        // A caller that swallows the first error gets it again at the end.
        let swallowed =
            CaptureScope::capture(&cells.stream, mode, |stream| stream.synchronize().or(Ok(())));
        let fault = CaptureFault::Invalidated;
        assert!(
            matches!(swallowed, Err(GraphError::Capture { fault: found, .. }) if found == fault)
        );
        assert!(!active(&cells.stream));
    }
}

fn a_panic_ends_the_capture(driver: &Driver) {
    let cells = Cells::new(driver);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        CaptureScope::capture(&cells.stream, CaptureMode::Global, |_| panic!("on purpose"))
    }));
    assert!(panicked.is_err() && !active(&cells.stream));
}

fn a_dropped_scope_ends_the_capture(driver: &Driver) {
    let cells = Cells::new(driver);
    let (owner, dropped) = Owner::new();
    let scope = CaptureScope::begin(&cells.stream, CaptureMode::default()).unwrap();
    scope.keep_alive(owner).unwrap();
    assert!(active(&cells.stream));
    drop(scope);
    assert!(!active(&cells.stream));
    until_dropped(driver, &dropped);
}

fn an_unjoined_stream_is_told(driver: &Driver) {
    let cells = Cells::new(driver);
    let other = Stream::new(&cells.context).unwrap();
    let event = Event::new(&cells.context, EventKind::Ordering).unwrap();
    let forked = CaptureScope::capture(&cells.stream, CaptureMode::default(), |stream| {
        stream.record(&event)?;
        other.wait_event(&event)?;
        other.launch_host_func(&|| {})
    });
    assert!(
        matches!(forked, Err(GraphError::Capture { fault: CaptureFault::Unjoined, .. })),
        "{forked:?}"
    );
    assert!(!active(&cells.stream) && !active(&other));
}

fn the_legacy_stream_cannot_capture(driver: &Driver) {
    let cells = Cells::new(driver);
    let legacy = Stream::legacy(&cells.context);
    let begun = CaptureScope::begin(&legacy, CaptureMode::default());
    assert!(matches!(begun, Err(GraphError::Capture { fault: CaptureFault::Begin, .. })));
    let _first = CaptureScope::begin(&cells.stream, CaptureMode::default()).unwrap();
    let twice = CaptureScope::begin(&cells.stream, CaptureMode::default());
    assert!(matches!(twice, Err(GraphError::Capture { fault: CaptureFault::Begin, .. })));
}

/// Allocates and frees in the capture of `stream`.
fn allocate(stream: &Stream) -> Result<(), wharf::Error> {
    let api = stream.context().driver().api();
    let _scope = stream.context().enter()?;
    let mut address = 0;
    // SAFETY: `address` is valid for writes and the stream is alive.
    unsafe { api.mem_alloc_async.call(&raw mut address, 64, stream.as_raw()) }?;
    // SAFETY: allocated above.
    unsafe { api.mem_free_async.call(address, stream.as_raw()) }
}

fn memory_nodes_are_refused(driver: &Driver) {
    let cells = Cells::new(driver);
    let refused =
        CaptureScope::capture(&cells.stream, CaptureMode::default(), allocate).unwrap_err();
    assert_eq!(refused, GraphError::MemoryNode { allocates: true });
    assert!(refused.to_string().contains("before the capture"));
}

fn a_graph_is_appended_to_a_capture(driver: &Driver) {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let cells = Cells::new(driver);
    let mut child = GraphDefinition::new(&cells.context).unwrap();
    let (from, to) = (cells.host_at(0) as usize, cells.host_at(8) as usize);
    child
        .host_func(
            move || {
                // SAFETY: the cells outlive the launch, and are not written meanwhile.
                let value = unsafe { *(from as *const u64) };
                // SAFETY: as above.
                unsafe { *(to as *mut u64) = value + 1 }
            },
            &[],
        )
        .unwrap();
    let before = CALLS.load(Ordering::Relaxed);
    let graph = CaptureScope::capture(&cells.stream, CaptureMode::default(), |stream| {
        stream.launch_host_func(&|| _ = CALLS.fetch_add(1, Ordering::Relaxed))?;
        child.append_to_capture(stream).unwrap();
        // SAFETY: the cells outlive the launch.
        unsafe { stream.copy_htod(cells.device(), cells.host_at(8), 8) }
    })
    .unwrap();
    let kinds: Vec<_> = graph.nodes().map(|node| node.kind).collect();
    assert_eq!(kinds, [NodeKind::Host, NodeKind::Child, NodeKind::Memcpy]);
    assert!(graph.to_dot().contains("n0 -> n1") && graph.to_dot().contains("n1 -> n2"));
    cells.set(0, 41);
    graph.instantiate().unwrap().launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
    assert_eq!((CALLS.load(Ordering::Relaxed) > before, cells.get(1)), (true, 42));
    assert_eq!(child.append_to_capture(&cells.stream), Err(GraphError::NotCapturing));
}

/// The engine captures by its own means; its graph outlives everybody else.
fn a_captured_graph_keeps_owners_alive(driver: &Driver) {
    let cells = Cells::new(driver);
    let (owner, dropped) = Owner::new();
    let graph = CaptureScope::capture(&cells.stream, CaptureMode::default(), |stream| {
        keep_alive_in_capture(stream, owner).unwrap();
        stream.launch_host_func(&|| {})
    })
    .unwrap();
    let mut exec = graph.instantiate().unwrap();
    exec.launch(&cells.stream).unwrap();
    cells.stream.synchronize().unwrap();
    driver.drop_deferred().unwrap();
    assert!(!dropped.is());
    drop(exec);
    until_dropped(driver, &dropped);
}

fn nothing_is_kept_without_a_capture(driver: &Driver) {
    let cells = Cells::new(driver);
    let (owner, dropped) = Owner::new();
    assert_eq!(keep_alive_in_capture(&cells.stream, owner), Err(GraphError::NotCapturing));
    assert!(dropped.is());
}
