#![expect(unsafe_code, reason = "nodes name raw addresses")]
//! Graphs where calls fail: drivers that lack a call, each call in turn, errors across threads.

use std::sync::Arc;

use wharf::driver::EventKind;
use wharf::graph::{Copy1d, Fill, FillValue, GraphDefinition, GraphError, MemOp};
use wharf::{Context, CudaError, Error, Event};

use crate::backend::{Config, Simulator, on_machine};
use crate::graph::{mem_ops, memcpy, memset, round_trip};
use crate::graph_rig::{Cells, until_sole};

/// Where a driver lacks what came later, that is an error that says so, and all else works.
#[test]
fn older_drivers_say_what_they_lack() {
    let machine = Arc::new(Simulator::new(Config { version: 11_040, ..Config::default() }));
    on_machine(&machine, |driver| {
        let cells = Cells::new(driver);
        let (mut graph, up) = round_trip(&cells);
        let write = MemOp::Write64 { address: cells.device(), value: 1 };
        let refused = mem_ops(&mut graph, &[write], &[]);
        let call = "cuGraphAddBatchMemOpNode";
        assert_eq!(
            refused,
            Err(GraphError::Driver(Error::Unsupported { call, introduced: 11_070 }))
        );
        let mut exec = graph.instantiate().unwrap();
        let call = "cuGraphNodeSetEnabled";
        let unsupported = GraphError::Driver(Error::Unsupported { call, introduced: 11_060 });
        assert_eq!(exec.set_enabled(up, false), Err(unsupported));
        let (fits, _) = round_trip(&cells);
        exec.update(&fits).unwrap();
        exec.launch(&cells.stream).unwrap();
        cells.stream.synchronize().unwrap();
    });
}

/// What `graph_life` does fails at each call of the driver in turn: the error names the call,
/// nothing is left behind, and the next try works.
#[test]
fn every_call_fails_cleanly() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| graph_life(&Cells::new(driver)).unwrap());
    let before: Vec<_> = {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| drop(Cells::new(driver)));
        machine.all_calls()
    };
    let count = |name| before.iter().find(|call| call.0 == name).map_or(0, |call| call.1);
    let mut tried = 0;
    for (call, times) in
        machine.all_calls().into_iter().filter(|call| call.0.starts_with("cuGraph"))
    {
        for nth in 1..=times - count(call) {
            tried += 1;
            let machine = Arc::new(Simulator::new(Config::default()));
            on_machine(&machine, |driver| {
                let cells = Cells::new(driver);
                machine.fail(call, nth, CudaError::OPERATING_SYSTEM);
                match graph_life(&cells) {
                    Err(GraphError::Driver(Error::Driver { call: named, code })) => {
                        assert_eq!((named, code), (call, CudaError::OPERATING_SYSTEM));
                    }
                    // What is only given back, or lent and taken back, has no caller to tell.
                    Ok(()) if TOLD_BY_DROPS.contains(&call) => {
                        assert_eq!(cells.context.drop_errors(), 1);
                    }
                    other => panic!("{call} {nth}: {other:?}"),
                }
                graph_life(&cells).unwrap();
            });
            let leaks = machine.leaks();
            assert!(leaks.is_empty() || TOLD_BY_DROPS.contains(&call), "{call} {nth}: {leaks:?}");
        }
    }
    assert!(tried > 10, "{tried}");
}

const TOLD_BY_DROPS: [&str; 3] =
    ["cuGraphDestroy", "cuGraphExecDestroy", "cuGraphReleaseUserObject"];

fn graph_life(cells: &Cells) -> Result<(), GraphError> {
    let event = Arc::new(Event::new(&cells.context, EventKind::Ordering)?);
    let outcome = life_with(cells, &event);
    // What a refused drop leaks keeps the event for ever.
    if cells.context.drop_errors() == 0 {
        until_sole(cells.context.driver(), &event);
    }
    outcome
}

fn life_with(cells: &Cells, event: &Arc<Event>) -> Result<(), GraphError> {
    let mut graph = GraphDefinition::new(&cells.context)?;
    let up = memcpy(&mut graph, Copy1d::htod(cells.device(), cells.host(), 8), &[])?;
    let fill = Fill { destination: cells.device() + 8, value: FillValue::D8(1), len: 8 };
    let fill = memset(&mut graph, fill, &[up.into()])?;
    let record = graph.event_record(event, &[fill.into()])?;
    graph.host_func(|| {}, &[record.into()])?;
    graph.keep_alive(Arc::clone(event))?;
    let copy = graph.duplicate()?;
    let mut exec = graph.instantiate()?;
    // SAFETY: as in `memcpy`.
    unsafe { exec.set_copy(up, Copy1d::htod(cells.device(), cells.host_at(8), 8)) }?;
    exec.set_enabled(fill, false)?;
    exec.set_record(record, event)?;
    exec.update(&copy)?;
    exec.upload(&cells.stream)?;
    exec.launch(&cells.stream)?;
    cells.stream.synchronize()?;
    Ok(())
}

#[test]
fn an_instantiation_that_fails_goes_through_an_error_of_any_thread() {
    fn try_it(graph: GraphDefinition) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        graph.instantiate()?;
        Ok(())
    }
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = Context::retain(&driver.device(0).unwrap()).unwrap();
        let mut graph = GraphDefinition::new(&context).unwrap();
        graph.empty(&[]).unwrap();
        machine.fail("cuGraphInstantiateWithFlags", 1, CudaError::OPERATING_SYSTEM);
        let error = try_it(graph.duplicate().unwrap()).unwrap_err();
        assert!(error.to_string().contains("a graph of 1 nodes"), "{error}");
        machine.fail("cuGraphInstantiateWithFlags", 1, CudaError::OPERATING_SYSTEM);
        let failed = graph.instantiate().unwrap_err();
        failed.into_definition().instantiate().unwrap();
    });
}
