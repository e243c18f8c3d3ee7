#![expect(unsafe_code, reason = "calls the driver's functions with raw handles")]
//! Streams, events, memory operations and capture.

use core::ptr;

use wharf::driver::EventKind;
use wharf::stream::StreamKind;
use wharf::sys::bindings::{CUgraphEdgeData, CUstream, CUstreamCaptureMode, CUstreamCaptureStatus};
use wharf::{Error, Event, Stream};

use super::node::write_value;
use super::{Exercise, Guard, Outcome, World, call};

pub(super) const EXERCISES: &[Exercise] = &[
    ("cuStreamCreate", 2000, |w| w.stream().map(drop)),
    ("cuStreamCreateWithPriority", 5050, |w| {
        Stream::with_priority(0, StreamKind::Blocking, &w.context).map(drop)
    }),
    ("cuStreamDestroy", 4000, |w| {
        let stream = w.stream()?;
        let raw = stream.as_raw();
        let outcome = stream.close();
        if outcome.is_err() {
            call!(w, stream_destroy(raw))?;
        }
        outcome
    }),
    ("cuStreamGetPriority", 5050, |w| w.stream()?.priority().map(drop)),
    ("cuStreamGetFlags", 5050, |w| w.stream()?.kind().map(drop)),
    ("cuStreamGetCtx", 9020, |w| {
        let stream = w.stream()?;
        let mut context = ptr::null_mut();
        call!(w, stream_get_ctx(stream.as_raw(), &raw mut context))
    }),
    ("cuStreamWaitEvent", 3020, |w| {
        let event = w.event()?;
        w.stream()?.wait_event(&event)
    }),
    ("cuStreamQuery", 2000, |w| w.stream()?.query().map(drop)),
    ("cuStreamSynchronize", 2000, |w| w.stream()?.synchronize()),
    ("cuStreamAddCallback", 5000, |w| {
        let stream = w.stream()?;
        stream.add_callback(|_| ())?;
        stream.synchronize()
    }),
    ("cuLaunchHostFunc", 10000, |w| {
        let stream = w.stream()?;
        stream.launch_host_func(&|| ())?;
        stream.synchronize()
    }),
    ("cuStreamGetId", 12000, |w| {
        let stream = w.stream()?;
        let mut id = 0;
        call!(w, stream_get_id(stream.as_raw(), &raw mut id))
    }),
    ("cuEventCreate", 2000, |w| w.event().map(drop)),
    ("cuEventDestroy", 4000, |w| {
        let event = w.event()?;
        let raw = event.as_raw();
        let outcome = event.close();
        if outcome.is_err() {
            call!(w, event_destroy(raw))?;
        }
        outcome
    }),
    ("cuEventRecord", 2000, |w| w.stream()?.record(&w.event()?)),
    ("cuEventRecordWithFlags", 11010, |w| {
        let (stream, event) = (w.stream()?, w.event()?);
        call!(w, event_record_with_flags(event.as_raw(), stream.as_raw(), 0))
    }),
    ("cuEventQuery", 2000, |w| w.event()?.query().map(drop)),
    ("cuEventSynchronize", 2000, |w| w.event()?.synchronize()),
    ("cuEventElapsedTime", 2000, |w| {
        let stream = w.stream()?;
        let (begin, end) = (timed(w)?, timed(w)?);
        stream.record(&begin)?;
        stream.record(&end)?;
        stream.synchronize()?;
        end.elapsed_since(&begin).map(drop)
    }),
    ("cuStreamWriteValue32", 11070, |w| {
        on_word(w, |stream, word| call!(w, stream_write_value_32(stream, word, 1, 0)))
    }),
    ("cuStreamWriteValue64", 11070, |w| {
        on_word(w, |stream, word| call!(w, stream_write_value_64(stream, word, 1, 0)))
    }),
    // A word is greater than or equal to 0 at once.
    ("cuStreamWaitValue32", 11070, |w| {
        on_word(w, |stream, word| call!(w, stream_wait_value_32(stream, word, 0, 0)))
    }),
    ("cuStreamWaitValue64", 11070, |w| {
        on_word(w, |stream, word| call!(w, stream_wait_value_64(stream, word, 0, 0)))
    }),
    ("cuStreamBatchMemOp", 11070, |w| {
        on_word(w, |stream, word| {
            let mut operation = write_value(word);
            call!(w, stream_batch_mem_op(stream, 1, &raw mut operation, 0))
        })
    }),
    ("cuStreamBeginCapture", 10010, |w| with_capture(w, |_| Ok(()))),
    ("cuStreamEndCapture", 10000, |w| with_capture(w, Guard::close)),
    ("cuStreamIsCapturing", 10000, |w| w.stream()?.capture_status().map(drop)),
    ("cuStreamGetCaptureInfo", 11030, |w| {
        with_capture(w, |stream| {
            let (mut status, mut count) = (CUstreamCaptureStatus(0), 0);
            let (mut id, mut graph, mut nodes) = (0, ptr::null_mut(), ptr::null());
            let (status, id, count) = (&raw mut status, &raw mut id, &raw mut count);
            let (graph, nodes) = (&raw mut graph, &raw mut nodes);
            call!(w, stream_get_capture_info(stream.get(), status, id, graph, nodes, count))
        })
    }),
    ("cuStreamUpdateCaptureDependencies", 11030, |w| {
        with_capture(w, |stream| {
            call!(w, stream_update_capture_dependencies(stream.get(), ptr::null_mut(), 0, 0))
        })
    }),
    ("cuThreadExchangeStreamCaptureMode", 10010, |w| w.driver.relax_capture().map(drop)),
    ("cuStreamBeginCaptureToGraph", 12030, |w| {
        let (graph, stream) = (w.graph()?, w.stream()?);
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let (raw, none) = (stream.as_raw(), ptr::null());
        call!(w, stream_begin_capture_to_graph(raw, graph.get(), none, ptr::null(), 0, mode))?;
        let mut captured = ptr::null_mut();
        call!(w, stream_end_capture(raw, &raw mut captured))
    }),
    ("cuStreamGetCaptureInfo", 12030, |w| {
        with_capture(w, |stream| {
            let (mut status, mut count) = (CUstreamCaptureStatus(0), 0);
            let (mut id, mut graph, mut nodes) = (0, ptr::null_mut(), ptr::null());
            let mut edges = ptr::null::<CUgraphEdgeData>();
            let (status, id, count) = (&raw mut status, &raw mut id, &raw mut count);
            let (graph, nodes, edges) = (&raw mut graph, &raw mut nodes, &raw mut edges);
            let stream = stream.get();
            call!(w, stream_get_capture_info_v12030(stream, status, id, graph, nodes, edges, count))
        })
    }),
    ("cuStreamUpdateCaptureDependencies", 12030, |w| {
        with_capture(w, |stream| {
            let (stream, none) = (stream.get(), ptr::null_mut());
            call!(w, stream_update_capture_dependencies_v12030(stream, none, ptr::null(), 0, 0))
        })
    }),
];

fn timed(w: &World) -> Result<Event, Error> {
    Event::new(&w.context, EventKind::Timing)
}

/// Runs `body` with a stream and a zeroed word of device memory, then waits for it.
fn on_word(w: &World, body: impl FnOnce(CUstream, u64) -> Outcome) -> Outcome {
    let word = w.device_memory(8)?;
    let stream = w.stream()?;
    call!(w, memset_d8_async(word.get(), 0, 8, stream.as_raw()))?;
    body(stream.as_raw(), word.get())?;
    stream.synchronize()
}

/// Runs `body` with a capturing stream, whose guard ends the capture and destroys the graph.
fn with_capture<'w>(w: &'w World, body: impl FnOnce(Guard<'w, CUstream>) -> Outcome) -> Outcome {
    let stream = w.stream()?;
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    call!(w, stream_begin_capture(stream.as_raw(), mode))?;
    body(w.guard(stream.as_raw(), |w, stream| {
        let mut graph = ptr::null_mut();
        call!(w, stream_end_capture(stream, &raw mut graph))?;
        call!(w, graph_destroy(graph))
    }))
}
