//! Captured copies, and what happens beside a capture.

use wharf::driver::EventKind;
use wharf::graph::{CaptureMode, CaptureScope};
use wharf::pool::Buffer;
use wharf::staging::{InputBuffers, Len};
use wharf::{Event, Stream};

use super::pools::{device_pool, pinned_pool};
use super::{LIMIT, MIB, Outcome, Stand, ensure, kept, pattern};

/// Copies are captured once, and replayed with other bytes in their sources.
pub(super) fn replay(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let (device, pinned) = (device_pool(&stand.context)?, pinned_pool(&stand.context)?);
    let len = 100_000;
    let [mut from, mut back]: [Buffer<u8>; 2] =
        [pinned.alloc(len, &stream)?, pinned.alloc(len, &stream)?];
    let there: Buffer<u8> = device.alloc(len, &stream)?;
    let capture = CaptureScope::begin(&stream, CaptureMode::ThreadLocal)?;
    there.copy_from(&from, &stream)?;
    back.copy_from(&there, &stream)?;
    let mut graph = capture.end()?.instantiate()?;
    for round in 0..8 {
        from.host_mut(LIMIT)?.copy_from_slice(&pattern(round, len));
        graph.launch(&stream)?;
        stream.synchronize()?;
        let same = back.host_mut(LIMIT)? == pattern(round, len);
        ensure(same, || format!("replay {round} brought other bytes"))?;
    }
    drop(graph);
    stand.target.driver.wait_deferred(LIMIT)?;
    kept("2 nodes, replayed 8 times")
}

/// While another stream is captured: a pool grows and trims, events and streams are asked, a step
/// is staged. The capture stays valid and empty.
pub(super) fn beside(stand: &Stand<'_>) -> Outcome {
    let [captured, stream] = [Stream::new(&stand.context)?, Stream::new(&stand.context)?];
    let inputs = InputBuffers::builder(&stand.context)
        .slot::<u32>("ids", Len::Tokens)
        .buckets([8])
        .max_tokens(8)
        .build()?;
    let ids = inputs.slot_id::<u32>("ids")?;
    let event = Event::new(&stand.context, EventKind::Ordering)?;
    for mode in [CaptureMode::Global, CaptureMode::ThreadLocal, CaptureMode::Relaxed] {
        stream.record(&event)?;
        stream.synchronize()?;
        let capture = CaptureScope::begin(&captured, mode)?;
        event.query().map_err(|error| format!("{mode:?}: asking an event: {error}"))?;
        {
            let (device, pinned) = (device_pool(&stand.context)?, pinned_pool(&stand.context)?);
            let there: Buffer<u8> = device.alloc(5 * MIB, &stream)?;
            there.fill(1, &stream)?;
            let here: Buffer<u8> = pinned.alloc(5 * MIB, &stream)?;
            here.copy_from(&there, &stream)?;
        }
        let mut step = inputs.begin(8, 1)?;
        step.write(ids).fill(1);
        step.submit(&stream)?;
        let graph = capture.end().map_err(|error| format!("{mode:?}: {error}"))?;
        let nodes = graph.len();
        ensure(nodes == 0, || format!("{mode:?}: {nodes} nodes of others were captured"))?;
        stream.synchronize()?;
    }
    kept("captures of 3 modes, beside growth, trims, queries and a step")
}
