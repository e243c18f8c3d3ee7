//! Reads on another stream, ordered by nodes of graphs: what that costs, and that it orders.

use std::sync::Arc;

use wharf::graph::{Copy1d, GraphDefinition, GraphExec};
use wharf::memory::{DeviceMemoryResource, MemoryResource};
use wharf::staging::{
    BuildError, InputBuffers, InputBuffersBuilder, Instantiation, Layout, Len, Pad, SlotId,
    StageError, Submission,
};
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::graph_rig::Gate;
use crate::staging_rig::{context, words};

on_each_driver!(
    a_graph_that_reads_orders_the_next_step,
    calls_that_read_order_the_next_step,
    what_reads_in_place_has_no_read_events,
    a_view_waits_for_what_reads_its_set,
    a_view_has_no_read_events_of_its_own,
);

fn small(context: &Context) -> InputBuffersBuilder {
    let set = InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4, 8]);
    set.max_tokens(16).read_events(true)
}

/// A model: it copies what was staged to memory of its own, by a graph or by a call.
struct Model {
    inputs: InputBuffers,
    ids: SlotId<u32>,
    own: DeviceMemoryResource,
    copies: Stream,
    model: Stream,
}

impl Model {
    fn new(set: InputBuffersBuilder, context: &Context) -> Self {
        let inputs = set.build().unwrap();
        let ids = inputs.slot_id("ids").unwrap();
        let own = DeviceMemoryResource::new(context, SIZE).unwrap();
        commit(&own);
        let [copies, model] = [(); 2].map(|()| Stream::new(context).unwrap());
        Self { inputs, ids, own, copies, model }
    }

    fn submit(&self, tokens: usize, value: u32) {
        let mut step = loop {
            // Waiting asks now and then whether the context works: that is no part of a step.
            match self.inputs.try_begin(tokens, 1) {
                Ok(step) => break step,
                Err(StageError::WouldBlock) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        step.write(self.ids).fill(value);
        step.submit(&self.copies).unwrap();
    }

    fn staged(&self) -> u64 {
        self.inputs.static_buffers().device_ptr(self.ids, 8).unwrap()
    }

    fn graph(&self) -> GraphExec {
        let events = self.inputs.read_events().unwrap();
        let mut graph = GraphDefinition::new(self.inputs.context()).unwrap();
        let staged = graph.event_wait(events.staged(), &[]).unwrap();
        let read =
            copy(&mut graph, Copy1d::dtod(self.own.base(), self.staged(), SIZE), staged.into());
        graph.event_record(events.read(), &[read]).unwrap();
        graph.instantiate().unwrap()
    }
}

/// Commits all memory.
#[expect(unsafe_code, reason = "a resource has no owner here")]
fn commit(resource: &DeviceMemoryResource) {
    // SAFETY: the first commit.
    unsafe { resource.commit(0, resource.granularity()) }.unwrap();
}

/// Adds what the model does.
#[expect(unsafe_code, reason = "names device memory")]
fn copy(
    graph: &mut GraphDefinition,
    copy: Copy1d,
    after: wharf::graph::NodeId,
) -> wharf::graph::NodeId {
    // SAFETY: memory of the set and of the model, which live until the streams are synchronised.
    unsafe { graph.memcpy(copy, &[after]) }.unwrap().into()
}

/// What the model does, by a call.
#[expect(unsafe_code, reason = "names device memory")]
fn read(rig: &Model) {
    // SAFETY: as in `copy`.
    unsafe { rig.model.copy_dtod(rig.own.base(), rig.staged(), SIZE) }.unwrap();
}

/// The model is held up while the next step is submitted: the machine sees no race, and the model
/// its own step. Also where a step has no graph.
fn a_graph_that_reads_orders_the_next_step(driver: &Driver) {
    let context = context(driver);
    for submission in [Submission::Graph, Submission::Calls] {
        let rig = Model::new(small(&context).submission(submission), &context);
        let mut graph = rig.graph();
        for (value, tokens) in (0..8).zip([8, 12].into_iter().cycle()) {
            rig.submit(tokens, value);
            let gate = Gate::close(&rig.model);
            graph.launch(&rig.model).unwrap();
            // The copies of this one come behind the model.
            rig.submit(8, 100 + value);
            gate.open();
            assert_eq!(words::<8>(&rig.model, rig.own.base()), [value; 8], "{submission:?}");
            graph.launch(&rig.model).unwrap();
            assert_eq!(words::<8>(&rig.model, rig.own.base()), [100 + value; 8]);
        }
        rig.copies.synchronize().unwrap();
    }
    driver.wait_deferred(crate::deadline::LONG).unwrap();
}

fn calls_that_read_order_the_next_step(driver: &Driver) {
    let context = context(driver);
    for layout in [Layout::PerSlot, Layout::Packed] {
        let rig = Model::new(small(&context).layout(layout), &context);
        let events = rig.inputs.read_events().unwrap();
        for value in 0..8 {
            rig.submit(8, value);
            events.begin(&rig.model).unwrap();
            let gate = Gate::close(&rig.model);
            read(&rig);
            events.end(&rig.model).unwrap();
            rig.submit(8, 100 + value);
            gate.open();
            assert_eq!(words::<8>(&rig.model, rig.own.base()), [value; 8], "{layout:?}");
        }
        rig.copies.synchronize().unwrap();
    }
}

/// The memory is the set's, and so is what is declared of its reads.
fn a_view_waits_for_what_reads_its_set(driver: &Driver) {
    let context = context(driver);
    for submission in [Submission::Graph, Submission::Calls] {
        let rig = Model::new(small(&context).submission(submission), &context);
        let view = rig.inputs.view(&["ids"]).unwrap().buckets([2, 8]).build().unwrap();
        // Of a view, too.
        let second = view.view(&["ids"]).unwrap().buckets([8]).build().unwrap();
        let mut graph = rig.graph();
        for value in 0..6 {
            rig.submit(8, value);
            let gate = Gate::close(&rig.model);
            graph.launch(&rig.model).unwrap();
            let set = if value % 2 == 0 { &view } else { &second };
            let mut step = set.begin(8, 1).unwrap();
            step.write(set.slot_id::<u32>("ids").unwrap()).fill(100 + value);
            // Its copy comes behind the model.
            step.submit(&rig.copies).unwrap();
            gate.open();
            assert_eq!(words::<8>(&rig.model, rig.own.base()), [value; 8], "{submission:?}");
            graph.launch(&rig.model).unwrap();
            assert_eq!(words::<8>(&rig.model, rig.own.base()), [100 + value; 8]);
        }
        rig.copies.synchronize().unwrap();
        let events = rig.inputs.read_events().unwrap();
        for view in [&view, &second] {
            assert!(std::ptr::eq(view.read_events().unwrap(), events));
        }
    }
    driver.wait_deferred(crate::deadline::LONG).unwrap();
}

fn a_view_has_no_read_events_of_its_own(driver: &Driver) {
    let context = context(driver);
    for has in [false, true] {
        let set = small(&context).read_events(has).build().unwrap();
        let view = || set.view(&["ids"]).unwrap().buckets([4]);
        let other = view().read_events(!has).build().unwrap_err();
        assert_eq!(other, BuildError::ReadEventsOfView);
        assert_eq!(view().read_events(has).build().unwrap().read_events().is_some(), has);
    }
}

fn what_reads_in_place_has_no_read_events(driver: &Driver) {
    let context = context(driver);
    let set = small(&context).slot_zero_copy::<u32>("flags", Len::Fixed(1), Pad::Zero);
    assert_eq!(set.build().unwrap_err(), BuildError::ReadEventsInPlace);
    let without = small(&context).read_events(false).build().unwrap();
    assert!(without.read_events().is_none());
}

/// In steady state, with the engine's launch beside it.
#[test]
fn a_step_with_a_copy_stream_is_three_calls_and_one_with_nodes() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let _current = context.enter().unwrap();
        let set = small(&context).instantiation(Instantiation::Eager).ring_depth(2);
        let rig = Model::new(set, &context);
        let mut graph = rig.graph();
        let total = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
        let events = rig.inputs.read_events().unwrap();
        for value in 0..100 {
            let before = total();
            rig.submit(8, value);
            graph.launch(&rig.model).unwrap();
            // The engine's launch is no part of it; the first step finds no stream to rely on.
            assert!(value == 0 || total() - before - 1 == 1, "{} calls", total() - before - 1);
        }
        for value in 0..100 {
            let before = total();
            rig.submit(8, value);
            events.begin(&rig.model).unwrap();
            events.end(&rig.model).unwrap();
            assert_eq!(total() - before, 3);
        }
        rig.copies.synchronize().unwrap();
        rig.model.synchronize().unwrap();
    });
}

/// Eight elements.
const SIZE: usize = 32;
