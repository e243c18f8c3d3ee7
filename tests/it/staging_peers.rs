//! Faults that were reported elsewhere with captured copies and captures. Each test is named after
//! its report. These are tested in other places:
//!
//! * `vllm#24527`, `TensorRT-LLM#15546`, `vllm-ascend#12191`, a pinned source is overwritten:
//!   `staging::every_byte_arrives`, `staging_reference`.
//! * `vllm#53057`, depth taken for a guard: `staging::a_ring_that_is_full_would_block`.
//! * `vllm#54269`, a wait without an end or a name: the same, and
//!   `staging_faults::a_device_fault_is_an_error`.
//! * `sglang#26380`, the destination is overwritten:
//!   `staging_guard::a_copy_stream_waits_for_the_reader`, `a_held_reader_holds_the_next_copy`.
//! * `onnxruntime#32121`, the same of static buffers:
//!   `staging_guard::the_engines_graph_outlives_the_set`.
//! * `cudarc#590`, `vllm#46933`, `pytorch#159594`, the same of pools: `pool::peers`,
//!   `pool::capture`.
//! * `cuda.jl#1230`, memory nodes in a capture: `graph_capture::memory_nodes_are_refused`.
//! * `cudf#15620`, `vllm#20098`, small copies behind large ones, what graphs cost: `bench/`,
//!   `InputBuffers::graphs`.

use std::thread;

use wharf::graph::{CaptureMode, CaptureScope, GraphDefinition, NodeKind};
use wharf::staging::{
    BuildError, Counts, InputBuffers, InputBuffersBuilder, Instantiation, Layout, Len, Pad,
    StageError,
};
use wharf::{Context, CudaError, Driver, Error, Stream};

use crate::backend::{binder, machine, on_each_driver};
use crate::graph_rig::{Cells, Inventory};
use crate::staging_faults::RESTORING;
use crate::staging_rig::{Checker, Ids, Noise, builder, context, words};

on_each_driver!(
    onnxruntime_32121_a_captured_copy_keeps_its_source,
    onnxruntime_32121_a_step_is_not_captured,
    cudarc_590_no_event_of_ours_enters_a_capture,
    vllm_46933_building_and_pinning_beside_a_capture,
    pytorch_159594_failures_beside_a_capture,
    warp_1418_no_memory_node_in_a_graph,
    atoma_186_a_step_is_padded_to_its_bucket,
);

const LAYOUTS: [Layout; 2] = [Layout::PerSlot, Layout::Packed];
const MODES: [CaptureMode; 3] =
    [CaptureMode::Global, CaptureMode::ThreadLocal, CaptureMode::Relaxed];

fn small(context: &Context) -> InputBuffersBuilder {
    InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4, 8]).max_tokens(16)
}

fn kinds(graph: &GraphDefinition) -> Vec<NodeKind> {
    graph.nodes().map(|node| node.kind).collect()
}

/// The driver's error of a call, as a step's.
fn refused(call: &'static str, code: CudaError) -> StageError {
    StageError::Driver(Error::Driver { call, code })
}

/// A copy that was captured names the address of its pinned source; the block must go to no other
/// as long as the graph, or anything made of it, can run.
fn onnxruntime_32121_a_captured_copy_keeps_its_source(driver: &Driver) {
    let (cells, before) = (Cells::new(driver), Inventory::now());
    for layout in LAYOUTS {
        let inputs = small(&cells.context).layout(layout).build().unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        let embedded = inputs.embed(4).unwrap();
        let address = inputs.static_buffers().device_ptr(ids, 4).unwrap();
        let graph = CaptureScope::capture(&cells.stream, CaptureMode::default(), |stream| {
            embedded.append_to_capture(stream).unwrap();
            Ok(())
        });
        let graph = graph.unwrap();
        let mut execs =
            [graph.duplicate().unwrap(), graph].map(|graph| graph.instantiate().unwrap());
        let mut step = embedded.begin(4, 1).unwrap();
        step.write(ids).copy_from_slice(&[1, 2, 3, 4]);
        step.submit_with::<StageError>(&cells.stream, || Ok(execs[0].launch(&cells.stream)?))
            .unwrap();
        assert_eq!(words(&cells.stream, address), [1, 2, 3, 4]);
        // A run of another shape, which goes through the set's own ring, and sets that come and go.
        for value in 0..8 {
            let mut step = inputs.begin(8, 1).unwrap();
            step.write(ids).fill(value);
            step.submit(&cells.stream).unwrap();
        }
        let [first, mut second] = execs;
        drop((first, embedded, inputs));
        for value in 20..24 {
            let other = small(&cells.context).layout(layout).build().unwrap();
            let mut step = other.begin(8, 1).unwrap();
            step.write(other.slot_id::<u32>("ids").unwrap()).fill(value);
            step.submit(&cells.stream).unwrap();
        }
        // Nothing but the graph holds source and destination now.
        second.launch(&cells.stream).unwrap();
        assert_eq!(words(&cells.stream, address), [1, 2, 3, 4]);
    }
    before.restored(driver);
}

/// A step's own graph reads a ring slot that is another step's when the captured graph runs: the
/// stream is refused, and its capture goes on.
fn onnxruntime_32121_a_step_is_not_captured(driver: &Driver) {
    let context = context(driver);
    let (stream, other) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    for (layout, mode) in LAYOUTS.into_iter().flat_map(|layout| MODES.map(|mode| (layout, mode))) {
        let inputs = small(&context).layout(layout).ring_depth(1).build().unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        let submit = |tokens, stream| {
            let mut step = inputs.begin(tokens, 1)?;
            step.write(ids).fill(7);
            step.submit(stream)
        };
        let staged = submit(4, &other).unwrap();
        other.synchronize().unwrap();
        let scope = CaptureScope::begin(&stream, mode).unwrap();
        for tokens in [4, 12] {
            let error = submit(tokens, &stream).unwrap_err();
            assert_eq!(error, refused("cuGraphLaunch", CudaError::STREAM_CAPTURE_UNSUPPORTED));
        }
        let unsupported = |call| Err(refused(call, CudaError::STREAM_CAPTURE_UNSUPPORTED));
        assert_eq!(staged.wait_on(&stream), unsupported("cuStreamWaitEvent"));
        assert_eq!(staged.consumed_by(&stream), unsupported("cuEventRecord"));
        assert_eq!(kinds(&scope.end().unwrap()), []);
        // The ring slot was not lost, and the stream is as any other again.
        submit(4, &stream).unwrap();
        stream.synchronize().unwrap();
        submit(4, &other).unwrap();
        inputs.wait().unwrap();
    }
}

/// Nothing of a ring's bookkeeping lands in a graph that another thread captures, and no error
/// is kept for a later caller.
fn cudarc_590_no_event_of_ours_enters_a_capture(driver: &Driver) {
    let context = context(driver);
    let [capturing, copies, consumer] = [(); 3].map(|()| Stream::new(&context).unwrap());
    for (layout, mode) in LAYOUTS.into_iter().flat_map(|layout| MODES.map(|mode| (layout, mode))) {
        let inputs = builder(&context).layout(layout).ring_depth(2).build().unwrap();
        let (ids, checker) = (Ids::of(&inputs), Checker::default());
        let scope = CaptureScope::begin(&capturing, mode).unwrap();
        for (number, tokens) in [3, 40, 700, 3, 40].into_iter().enumerate() {
            let mut step = inputs.begin(tokens, 2).unwrap();
            ids.fill(&mut step, number as u64);
            let staged = step.submit(&copies).unwrap();
            staged.wait_on(&consumer).unwrap();
            checker.compare(&consumer, ids.expected(&staged, number as u64), number);
            staged.consumed_by(&consumer).unwrap();
            let _known = staged.is_complete().unwrap();
        }
        inputs.wait().unwrap();
        assert_eq!(kinds(&scope.end().unwrap()), [], "{mode:?}");
        for stream in [&capturing, &copies, &consumer] {
            stream.synchronize().unwrap();
        }
        assert_eq!((checker.wrong(), context.drop_errors()), (Vec::new(), 0));
    }
}

/// Sets that are built, warmed, used and dropped while a stream is captured, by the capturing
/// thread and by another, spoil nothing.
fn vllm_46933_building_and_pinning_beside_a_capture(driver: &Driver) {
    let context = context(driver);
    let [capturing, own] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let live = |stream: &Stream| {
        for layout in LAYOUTS {
            let set = small(&context).layout(layout).instantiation(Instantiation::Eager);
            let inputs =
                set.slot_zero_copy::<u32>("flags", Len::Fixed(4), Pad::Zero).build().unwrap();
            let [ids, flags] = ["ids", "flags"].map(|name| inputs.slot_id::<u32>(name).unwrap());
            inputs.prewarm(8).unwrap();
            for tokens in [3, 12] {
                let mut step = inputs.begin(tokens, 1).unwrap();
                step.write(ids).fill(1);
                step.write(flags).fill(1);
                step.submit(stream).unwrap().consumed_by(stream).unwrap();
            }
            inputs.wait().unwrap();
            inputs.release().unwrap();
        }
    };
    let bind = binder();
    for mode in MODES {
        let scope = CaptureScope::begin(&capturing, mode).unwrap();
        live(&own);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _bound = bind();
                live(&Stream::new(&context).unwrap());
            });
        });
        assert_eq!(kinds(&scope.end().unwrap()), [], "{mode:?}");
    }
}

/// What undoes a build that fails, and a step that fails, must not free or wait in another's
/// capture.
fn pytorch_159594_failures_beside_a_capture(driver: &Driver) {
    let context = context(driver);
    let [capturing, own] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let life = || {
        let inputs = small(&context).instantiation(Instantiation::Eager).build()?;
        let mut step = inputs.begin(3, 1)?;
        step.write(inputs.slot_id::<u32>("ids").unwrap()).fill(1);
        let outcome = step.submit(&own).map(drop);
        inputs.wait()?;
        Ok::<_, BuildError>(outcome?)
    };
    // Where calls cannot be made to fail, there is nothing to be seen.
    let Some(machine) = machine() else { return };
    let before = machine.all_calls();
    life().unwrap();
    let is_new = |call: &(&str, u64)| {
        before.iter().find(|old| old.0 == call.0).is_none_or(|old| old.1 < call.1)
    };
    let calls = machine.all_calls().into_iter().filter(is_new).map(|call| call.0);
    let calls: Vec<_> = calls.filter(|call| !RESTORING.contains(call)).collect();
    let left = Inventory::now();
    let mut failed = 0;
    for (mode, call) in
        MODES.into_iter().flat_map(|mode| calls.iter().map(move |call| (mode, *call)))
    {
        let scope = CaptureScope::begin(&capturing, mode).unwrap();
        machine.fail(call, 1, CudaError::OUT_OF_MEMORY);
        failed += usize::from(life().is_err());
        assert_eq!(kinds(&scope.end().unwrap()), [], "{mode:?}, {call}");
    }
    assert!(failed > 30, "{failed}");
    left.restored(driver);
}

fn warp_1418_no_memory_node_in_a_graph(driver: &Driver) {
    let (cells, before) = (Cells::new(driver), Inventory::now());
    for layout in LAYOUTS {
        let inputs = builder(&cells.context).layout(layout).build().unwrap();
        let embedded = inputs.embed(40).unwrap();
        let allowed = [NodeKind::Memcpy, NodeKind::MemOp, NodeKind::EventRecord];
        let nodes = kinds(embedded.graph());
        assert!(nodes.iter().all(|kind| allowed.contains(kind)), "{nodes:?}");
        let copies = nodes.iter().filter(|kind| **kind == NodeKind::Memcpy).count();
        assert_eq!(copies, if layout == Layout::Packed { 1 } else { 12 });
        let graph = CaptureScope::capture(&cells.stream, CaptureMode::default(), |stream| {
            embedded.append_to_capture(stream).unwrap();
            Ok(())
        });
        // Launched twice, with nothing to be freed between.
        let mut exec = graph.unwrap().instantiate().unwrap();
        exec.launch(&cells.stream).unwrap();
        exec.launch(&cells.stream).unwrap();
        cells.stream.synchronize().unwrap();
        drop((exec, embedded, inputs));
    }
    before.restored(driver);
}

/// The smallest bucket that holds a step serves it, at addresses that its graphs may have captured,
/// with the tail padded; what is larger than the largest has its own size.
fn atoma_186_a_step_is_padded_to_its_bucket(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let ladder = [1, 2, 4, 8, 16];
    for layout in LAYOUTS {
        let set = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens);
        let set =
            set.slot_padded::<u32>("lens", Len::Requests.plus(3), Pad::Value(9)).layout(layout);
        let inputs = set.buckets(ladder).max_tokens(20).max_requests(6).build().unwrap();
        let [ids, lens] = ["ids", "lens"].map(|name| inputs.slot_id::<u32>(name).unwrap());
        let buffers = inputs.static_buffers();
        let mut noise = Noise(1);
        for tokens in (0..=20).chain([3, 17, 3]) {
            let requests = noise.below(7);
            let mut step = inputs.begin(tokens, requests).unwrap();
            let bucket = ladder.into_iter().find(|bucket| *bucket >= tokens.max(requests));
            let own = Counts { tokens, requests };
            let padded =
                bucket.map_or(own, |bucket| Counts { tokens: bucket, requests: bucket.min(6) });
            assert_eq!((step.counts(), step.padded()), (own, padded));
            assert_eq!((step.write(ids).len(), step.write(lens).len()), (tokens, requests + 3));
            step.write(ids).fill(5);
            step.write(lens).fill(6);
            let staged = step.submit(&stream).unwrap();
            let found = [
                words::<24>(&stream, staged.device_ptr(ids)),
                words(&stream, staged.device_ptr(lens)),
            ];
            let expected =
                |value, len, pad, padded| [vec![value; len], vec![pad; padded - len]].concat();
            assert_eq!(found[0][..padded.tokens], expected(5, tokens, 0, padded.tokens));
            assert_eq!(
                found[1][..padded.requests + 3],
                expected(6, requests + 3, 9, padded.requests + 3)
            );
            let Some(bucket) = bucket else { continue };
            for (slot, len) in [(ids, padded.tokens), (lens, padded.requests + 3)] {
                assert_eq!(buffers.device_ptr(slot, bucket), Some(staged.device_ptr(slot)));
                assert_eq!(buffers.len(slot, bucket), Some(len));
            }
        }
        assert_eq!(inputs.buckets().map(|counts| counts.tokens).collect::<Vec<_>>(), ladder);
    }
}
