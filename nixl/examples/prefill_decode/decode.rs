//! The side that names blocks, gets them filled, and reads them by a block table.

use std::collections::HashMap;
use std::net::TcpListener;

use wharf::memory::{PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Exported, Pool};
use wharf::staging::{InputBuffers, Len, SlotId};
use wharf_nixl::Arrival;

use crate::process::{Process, Shape, bytes, number, put, words};
use crate::{Any, LIMIT};

pub(crate) fn run(listener: &TcpListener, shape: Shape) -> Result<(), Any> {
    let process = Process::new("decode", shape)?;
    let (mut socket, _) = listener.accept()?;
    put(&mut socket, &process.agent.metadata()?)?;
    let blocks = shape.blocks()?;
    let mut decode = Decode::new(process, shape)?;
    let mut done = 0;
    // One more than the trace has, when all of that is read.
    while done <= blocks.len() {
        if done == blocks.len() && decode.waiting.is_empty() {
            decode.process.agent.send("prefill", b"right")?;
        }
        let arrival = decode.process.agent.next(LIMIT)?;
        let arrival = arrival.ok_or("no message from prefill")?;
        if arrival.is_transfer {
            decode.received(&arrival)?;
            done += 1;
        } else {
            decode.name_blocks(&arrival)?;
        }
    }
    let stats = decode.process.agent.stats();
    println!(
        "decode: {done} requests, {} blocks of {} KiB right; metadata of {} bytes exported {} \
         times for {} registrations",
        decode.read,
        shape.len / 128,
        stats.metadata_bytes,
        stats.exports,
        stats.registrations
    );
    let idle = (stats.leases, stats.leaked, stats.malformed, decode.waiting.len());
    if idle != (0, 0, 0, 0) {
        return Err(format!("leases, leaks, foreign messages, requests left: {idle:?}").into());
    }
    decode.process.agent.send("prefill", b"right")?;
    // Prefill ends when it has that.
    let mut end = Vec::new();
    std::io::Read::read_to_end(&mut socket, &mut end)?;
    Ok(())
}

struct Decode {
    process: Process,
    /// The blocks of requests that prefill writes.
    waiting: HashMap<usize, Vec<(Buffer<u64>, Exported)>>,
    inputs: InputBuffers,
    table: SlotId<u64>,
    /// What is read goes here.
    host: Buffer<u64>,
    len: usize,
    read: usize,
}

impl Decode {
    fn new(process: Process, shape: Shape) -> Result<Self, Any> {
        let inputs = InputBuffers::builder(&process.context);
        let inputs = inputs.slot::<u64>("table", Len::Tokens).buckets([shape.most_blocks]);
        let inputs = inputs.build()?;
        let table = inputs.slot_id("table")?;
        let memory =
            PinnedMemoryResource::new(&process.context, 1 << 30, PinnedOptions::default())?;
        let host = Pool::builder().build(memory)?.alloc(shape.len, &process.stream)?;
        let (waiting, len) = (HashMap::new(), shape.len);
        Ok(Self { process, waiting, inputs, table, host, len, read: 0 })
    }

    /// Allocates blocks for a request, and tells prefill their names.
    fn name_blocks(&mut self, arrival: &Arrival) -> Result<(), Any> {
        let ([request, count], _) = words(&arrival.message).ok_or("not a request")?;
        let (mut blocks, mut answer) = (Vec::new(), bytes(&[request]));
        for _ in 0..count {
            let block: Buffer<u64> = self.process.pool.alloc(self.len, &self.process.stream)?;
            // What its last user does on a stream would write over what prefill writes.
            block.wait(LIMIT)?;
            let exported = block.export()?;
            answer.extend(self.process.region.name(exported.descriptor()).to_bytes());
            blocks.push((block, exported));
        }
        self.waiting.insert(request, blocks);
        Ok(self.process.agent.send(&arrival.peer, &answer)?)
    }

    /// A request's blocks are here: stages its block table, and reads by it.
    fn received(&mut self, arrival: &Arrival) -> Result<(), Any> {
        let ([request], _) = words(&arrival.message).ok_or("not a request")?;
        let received = self.waiting.remove(&request).ok_or("a request that was not asked for")?;
        let base = self.process.pool.span().start;
        let mut blocks = Vec::new();
        for (block, exported) in received {
            let place = exported.address() - base;
            exported.complete();
            blocks.push((place, block));
        }
        let stream = &self.process.stream;
        let mut step = self.inputs.begin(blocks.len(), 1)?;
        for (entry, (place, _)) in step.write(self.table).iter_mut().zip(&blocks) {
            *entry = *place;
        }
        let staged = step.submit(stream)?;
        let table = self.on_device(staged.device_ptr(self.table), blocks.len())?;
        for (number_of, place) in table.iter().enumerate() {
            let at = blocks.iter().find(|(of, _)| of == place);
            let (_, block) = at.ok_or("the table names a block that is none")?;
            self.host.copy_from(block, stream)?;
            let right = |(index, it): (usize, &u64)| *it == number(request, number_of, index);
            if !self.host.host_mut(LIMIT)?.iter().enumerate().all(right) {
                return Err(format!("request {request}: block {number_of} has other bytes").into());
            }
            self.read += 1;
        }
        Ok(())
    }

    /// What a kernel would read at an address of the step's.
    #[expect(unsafe_code, reason = "reads device memory in place of a kernel")]
    fn on_device(&self, address: u64, len: usize) -> Result<Vec<u64>, Any> {
        let mut read = vec![0_u64; len];
        let stream = &self.process.stream;
        // SAFETY: the set's slot has as many elements, the vector too, and the copy is waited for.
        unsafe { stream.copy_dtoh(read.as_mut_ptr().cast(), address, len * 8) }?;
        stream.synchronize()?;
        Ok(read)
    }
}
