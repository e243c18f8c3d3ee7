//! Pools: the order of streams, limits, and devices without memory.

use std::time::Duration;

use wharf::memory::{Budget, DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::slab::AllocError;
use wharf::staging::{InputBuffers, Len};
use wharf::tier::{Tier, TieredPool};
use wharf::{Context, Stream};

use super::{LIMIT, MIB, Outcome, Stand, ensure, kept, pattern};

/// A pool of device memory.
pub(super) fn device_pool(context: &Context) -> Result<Pool, Box<dyn std::error::Error>> {
    let device = DeviceMemoryResource::new(context, SPAN)?;
    Ok(Pool::builder().name("qualify").max_bytes(SPAN).build(device)?)
}

/// A pool of pinned memory.
pub(super) fn pinned_pool(context: &Context) -> Result<Pool, Box<dyn std::error::Error>> {
    let pinned = PinnedMemoryResource::new(context, SPAN, PinnedOptions::default())?;
    Ok(Pool::builder().name("qualify").max_bytes(SPAN).build(pinned)?)
}

/// A round trip of bytes: source and device memory are dropped with their copies still to come.
pub(super) fn order(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let (device, pinned) = (device_pool(&stand.context)?, pinned_pool(&stand.context)?);
    let results = round_trips(&device, &pinned, |_| &stream)?;
    compare(results)?;
    kept(format!("{ROUNDS} round trips, {} MiB of the device", device.slab_stats().reserved / MIB))
}

/// The same with streams that take turns: memory goes from one to the other.
pub(super) fn streams(stand: &Stand<'_>) -> Outcome {
    let streams = [Stream::new(&stand.context)?, Stream::new(&stand.context)?];
    let (device, pinned) = (device_pool(&stand.context)?, pinned_pool(&stand.context)?);
    let results = round_trips(&device, &pinned, |round| &streams[round / 3 % 2])?;
    compare(results)?;
    // All of it is one stream's, and the other wants as much.
    let limit = 32 * MIB;
    let small = DeviceMemoryResource::new(&stand.context, limit)?;
    let small = Pool::builder().max_bytes(limit).wait(LIMIT).build(small)?;
    for round in 0..6 {
        let buffer: Buffer<u8> = small.alloc(20 * MIB, &streams[round % 2])?;
        buffer.fill(1, &streams[round % 2])?;
    }
    kept(format!("{ROUNDS} round trips on two streams, a block of both"))
}

fn round_trips<'a>(
    device: &Pool,
    pinned: &Pool,
    stream: impl Fn(usize) -> &'a Stream,
) -> Result<Vec<Buffer<u8>>, Box<dyn std::error::Error>> {
    let mut results = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let (stream, len) = (stream(round), size(round));
        let mut source: Buffer<u8> = pinned.alloc(len, stream)?;
        source.host_mut(LIMIT)?.copy_from_slice(&pattern(round, len));
        let there: Buffer<u8> = device.alloc(len, stream)?;
        there.copy_from(&source, stream)?;
        drop(source);
        let result: Buffer<u8> = pinned.alloc(len, stream)?;
        result.copy_from(&there, stream)?;
        results.push(result);
    }
    Ok(results)
}

fn compare(results: Vec<Buffer<u8>>) -> Result<(), Box<dyn std::error::Error>> {
    for (round, mut result) in results.into_iter().enumerate() {
        let same = result.host_mut(LIMIT)? == pattern(round, size(round));
        ensure(same, || format!("round trip {round} came back with other bytes"))?;
    }
    Ok(())
}

/// Bytes of a round: a few sizes, small and large.
fn size(round: usize) -> usize {
    [100, 5000, 70_000, MIB][round % 4]
}

/// Pinned memory in registrations of 2 MiB: the driver refuses what leaves one.
pub(super) fn pieces(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let options = PinnedOptions::default().piece_limit(2 * MIB);
    let pinned = PinnedMemoryResource::new(&stand.context, SPAN, options)?;
    let pinned = Pool::builder().build(pinned)?;
    let device = device_pool(&stand.context)?;
    let (len, bytes) = (5 * MIB + 3, pattern(1, 5 * MIB + 3));
    let [mut from, mut back] = [pinned.alloc::<u8>(len, &stream)?, pinned.alloc(len, &stream)?];
    let there: Buffer<u8> = device.alloc(len, &stream)?;
    from.host_mut(LIMIT)?.copy_from_slice(&bytes);
    there.copy_from(&from, &stream)?;
    back.copy_from(&there, &stream)?;
    ensure(back.host_mut(LIMIT)? == bytes, || "bytes differ after a copy".to_owned())?;
    back.fill(9, &stream)?;
    let filled = back.host_mut(LIMIT)?.iter().all(|byte| *byte == 9);
    ensure(filled, || "bytes differ after a fill".to_owned())?;
    kept("5 MiB over registrations of 2 MiB, there and back")
}

/// A full pool refuses, with its reason, and has room again when a block was dropped.
pub(super) fn limit(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let limit = 16 * MIB;
    let device = DeviceMemoryResource::new(&stand.context, SPAN)?;
    let pool = Pool::builder().max_bytes(limit).wait(Duration::ZERO).build(device)?;
    let mut blocks: Vec<Buffer<u8>> = Vec::new();
    let refused = loop {
        match pool.alloc(3 * MIB, &stream) {
            Ok(block) => blocks.push(block),
            Err(error) => break error,
        }
        ensure(blocks.len() <= 5, || format!("{} blocks of 3 MiB fit 16 MiB", blocks.len()))?;
    };
    ensure(matches!(refused, AllocError::Exhausted(_)), || format!("a full pool says: {refused}"))?;
    ensure(blocks.len() == 5, || format!("{} of 5 blocks fit: {refused}", blocks.len()))?;
    drop(blocks.pop());
    let again: Buffer<u8> = pool.alloc(3 * MIB, &stream)?;
    let peak = pool.slab_stats().peak_reserved;
    ensure(peak <= limit, || format!("{peak} bytes obtained"))?;
    drop((again, blocks));
    kept("5 blocks of 3 MiB within 16 MiB, the sixth refused")
}

/// A device that has 256 MiB for this process: what lies idle in one size is given back for
/// another.
pub(super) fn memory(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let device = DeviceMemoryResource::new(&stand.context, 1024 * MIB)?;
    if device.report().backing == wharf::memory::Backing::Whole {
        return super::lacks("no virtual memory management: memory is not given back");
    }
    // A budget refuses as a full device does, and takes nothing from other programs.
    let full = Budget::new(256 * MIB);
    let pool = Pool::builder().wait(LIMIT).budget(&full).build(device)?;
    drop(pool.alloc::<u8>(100 * MIB, &stream)?);
    let large: Buffer<u8> = pool.alloc(200 * MIB, &stream)?;
    let refused = pool.alloc::<u8>(100 * MIB, &stream);
    ensure(matches!(refused, Err(AllocError::Exhausted(_))), || match refused {
        Ok(_) => "300 MiB were had of 256".to_owned(),
        Err(error) => format!("a full device says: {error}"),
    })?;
    drop(large);
    drop(pool.alloc::<u8>(100 * MIB, &stream)?);
    kept("200 MiB of 256 after 100 in another size")
}

/// Two pools, a tier and a set: what one has, the others have not.
pub(super) fn budget(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let budget = Budget::new(BUDGET);
    let pool = |limit| -> Result<Pool, Box<dyn std::error::Error>> {
        let device = DeviceMemoryResource::new(&stand.context, limit)?;
        Ok(Pool::builder().name("pool").max_bytes(limit).budget(&budget).build(device)?)
    };
    let first = pool(BUDGET / 4)?;
    let held: Buffer<u8> = first.alloc(BUDGET / 4, &stream)?;
    let tiers = TieredPool::builder(&stand.context).device(BUDGET / 4).budget(&budget).build()?;
    let object = tiers.alloc(BUDGET / 8, Tier::Device)?;
    let inputs = InputBuffers::builder(&stand.context)
        .slot::<u32>("ids", Len::Tokens)
        .buckets([8])
        .budget(&budget)
        .build()?;
    // One that is made whole does not fit, one that grows stops short.
    let refused = match pool(BUDGET) {
        Err(refused) => refused.to_string(),
        Ok(second) => match second.alloc::<u8>(BUDGET / 4 * 3, &stream) {
            Err(refused) => refused.to_string(),
            Ok(_) => return Err("a budget was exceeded by a quarter, and nothing refused".into()),
        },
    };
    ensure(refused.contains("budget"), || format!("a budget that is spent is told as: {refused}"))?;
    let (used, peak) = (budget.used(), budget.peak());
    ensure(peak <= BUDGET, || format!("{peak} bytes were committed, of {BUDGET}"))?;
    ensure(budget.uses().len() == 3, || format!("who has what: {:?}", budget.uses()))?;
    drop((held, object));
    drop((first, tiers, inputs));
    ensure(budget.used() == 0, || format!("{} bytes have no owner", budget.used()))?;
    drop(pool(BUDGET)?.alloc::<u8>(BUDGET / 2, &stream)?);
    kept(format!("{} MiB of {} in two pools, a tier and a set", used / MIB, BUDGET / MIB))
}

const BUDGET: usize = 16 * MIB;
const ROUNDS: usize = 48;
/// The addresses of a pool.
const SPAN: usize = 128 * MIB;
