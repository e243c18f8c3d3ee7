//! The side that computes blocks and writes them to the other.

use std::collections::HashMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use wharf::memory::{PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf_nixl::{RemoteBlock, Transfer};

use crate::process::{Process, Shape, bytes, get, number, words};
use crate::{Any, LIMIT};

pub(crate) fn run(mut socket: TcpStream, shape: Shape) -> Result<(), Any> {
    let process = Process::new("prefill", shape)?;
    let decode = process.agent.connect(&get(&mut socket)?)?;
    let blocks = shape.blocks()?;
    let mut prefill =
        Prefill { model: Model::new(&process, shape)?, process, decode, places: HashMap::new() };
    // One request is under way while the next is computed.
    let mut under_way = None;
    for (request, count) in blocks.iter().enumerate() {
        let ask = bytes(&[request, *count]);
        prefill.process.agent.send(&prefill.decode, &ask)?;
        let computed = prefill.model.compute(&prefill.process, request, *count)?;
        let next = prefill.begin(request, &computed)?;
        if let Some(before) = under_way.replace(next) {
            finish(before)?;
        }
    }
    under_way.map_or(Ok(0.0), finish)?;
    prefill.decode_is_idle()?;
    // One more beside which neither side computes or reads, so that its time is the transfer's.
    let (request, count) = (blocks.len(), shape.most_blocks);
    prefill.process.agent.send(&prefill.decode, &bytes(&[request, count]))?;
    let computed = prefill.model.compute(&prefill.process, request, count)?;
    prefill.process.stream.synchronize()?;
    let alone = finish(prefill.begin(request, &computed)?)?;
    let moved = (blocks.iter().sum::<usize>() + count) * shape.len * 8;
    let stats = prefill.process.agent.stats();
    println!(
        "prefill: {} requests, {} MiB written, {} registrations, {} leaked; the last, of {} KiB, \
         in {alone:.1} times memcpy's",
        request + 1,
        moved >> 20,
        stats.registrations,
        stats.leaked,
        computed.len() * shape.len / 128
    );
    // Decode has then no more need of this process.
    prefill.decode_is_idle()
}

struct Prefill {
    process: Process,
    decode: String,
    model: Model,
    /// Where decode has the blocks of a request.
    places: HashMap<usize, Vec<RemoteBlock>>,
}

struct UnderWay {
    transfer: Transfer,
    start: Instant,
    bytes: usize,
}

impl Prefill {
    /// Waits until decode says that all is right so far.
    fn decode_is_idle(&self) -> Result<(), Any> {
        match self.process.agent.next(LIMIT)? {
            Some(arrival) if *arrival.message == *b"right" => Ok(()),
            other => Err(format!("decode has not said that all is right: {other:?}").into()),
        }
    }

    /// Begins to write a request's blocks, when decode has said where.
    fn begin(&mut self, request: usize, computed: &[Buffer<u64>]) -> Result<UnderWay, Any> {
        let start = Instant::now();
        while !self.places.contains_key(&request) {
            let Some(arrival) = self.process.agent.next(LIMIT.saturating_sub(start.elapsed()))?
            else {
                return Err("decode names no blocks".into());
            };
            let ([of], names) = words(&arrival.message).ok_or("no names of blocks")?;
            let names = names.as_chunks().0.iter().map(|name| RemoteBlock::from_bytes(*name));
            self.places.insert(of, names.collect());
        }
        let names = self.places.remove(&request).unwrap_or_default();
        let mut pairs = Vec::new();
        for (block, name) in computed.iter().zip(names) {
            // The transport reads past every stream: the device has to be done with the block.
            block.wait(LIMIT)?;
            pairs.push((block.export()?.into(), name));
        }
        let (start, bytes) = (Instant::now(), pairs.len() * computed[0].size());
        let message = crate::process::bytes(&[request]);
        let transfer = self.process.agent.write(&self.decode, pairs, &message)?;
        Ok(UnderWay { transfer, start, bytes })
    }
}

/// Waits for a transfer. Returns its time over that of a copy by the processor.
fn finish(mut it: UnderWay) -> Result<f64, Any> {
    it.transfer.wait(LIMIT)?;
    Ok(it.start.elapsed().as_secs_f64() / memcpy(it.bytes).as_secs_f64())
}

/// The time that the processor takes to copy as many bytes.
fn memcpy(len: usize) -> Duration {
    let (from, mut to) = (vec![7_u8; len], vec![0_u8; len]);
    to.copy_from_slice(&from);
    let start = Instant::now();
    to.copy_from_slice(std::hint::black_box(&from));
    std::hint::black_box(&mut to);
    start.elapsed()
}

/// In place of a model: numbers that are made by the host and copied on the stream.
struct Model {
    scratch: Pool,
    len: usize,
}

impl Model {
    fn new(process: &Process, shape: Shape) -> Result<Self, Any> {
        let memory =
            PinnedMemoryResource::new(&process.context, 1 << 30, PinnedOptions::default())?;
        Ok(Self { scratch: Pool::builder().build(memory)?, len: shape.len })
    }

    /// Blocks of a request; on the way, when this returns.
    fn compute(
        &self,
        process: &Process,
        request: usize,
        count: usize,
    ) -> Result<Vec<Buffer<u64>>, Any> {
        let mut blocks = Vec::new();
        for block in 0..count {
            let mut made: Buffer<u64> = self.scratch.alloc(self.len, &process.stream)?;
            for (index, it) in made.host_mut(LIMIT)?.iter_mut().enumerate() {
                *it = number(request, block, index);
            }
            let computed: Buffer<u64> = process.pool.alloc(self.len, &process.stream)?;
            computed.copy_from(&made, &process.stream)?;
            blocks.push(computed);
        }
        Ok(blocks)
    }
}
