//! Tickets: how far a stream is.

use wharf::{DeviceAttribute, Stream};

use super::staging::Gate;
use super::{LIMIT, Outcome, Stand, ensure, kept, lacks};

/// A ticket is not complete while its work is held up, and complete when a wait for it returns.
pub(super) fn tickets(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    // What a first ticket makes is there before the stream is held up.
    stream.ticket()?.wait(LIMIT)?;
    for round in 0..ROUNDS {
        let gate = Gate::close(&stream)?;
        let ticket = stream.ticket()?;
        let early = ticket.poll()?;
        gate.open();
        ensure(!early, || format!("ticket {round} was complete while its stream was held up"))?;
        ticket.wait(LIMIT)?;
        ensure(ticket.is_complete(), || format!("ticket {round} is not complete after a wait"))?;
    }
    kept(format!("{ROUNDS} tickets, each late and then complete"))
}

/// Where the device writes words, a ticket that was marked completes without another call.
pub(super) fn words(stand: &Stand<'_>) -> Outcome {
    let api = stand.target.driver.api();
    if !api.stream_write_value_64.is_available() || !api.graph_add_batch_mem_op_node.is_available()
    {
        return lacks("the driver is older than CUDA 11.7: events mark what is complete");
    }
    let device = stand.context.device();
    if !device.supports(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS)? {
        return lacks("the device has no memory operations: events mark what is complete");
    }
    if !device.supports(DeviceAttribute::HOST_REGISTER_SUPPORTED)? {
        return lacks("host memory cannot be registered: events mark what is complete");
    }
    let stream = Stream::new(&stand.context)?;
    let ticket = stream.ticket()?;
    stream.mark()?;
    stand.context.synchronize()?;
    let before = stand.target.driver_calls();
    ensure(ticket.is_complete(), || "the word was not there after its stream was done".to_owned())?;
    let calls = stand.target.driver_calls().zip(before).map(|(after, before)| after - before);
    ensure(calls.is_none_or(|calls| calls == 0), || {
        format!("asking a ticket cost {} driver calls", calls.unwrap_or(0))
    })?;
    kept("a ticket asked without a driver call")
}

const ROUNDS: usize = 16;
