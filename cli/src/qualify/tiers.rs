//! Objects in tiers.

use std::error::Error;
use std::thread;
use std::time::Instant;

use wharf::tier::{Tier, TierError, TieredObject, TieredPool};
use wharf::{DeviceAttribute, Stream};

use super::memory::scratch_file;
use super::{LIMIT, MIB, Outcome, Stand, ensure, kept, pattern};

/// An object goes through all tiers, there and back.
pub(super) fn moves(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let managed = stand.context.device().supports(DeviceAttribute::MANAGED_MEMORY)?;
    let builder = TieredPool::builder(&stand.context).device(4 * MIB).pinned(16 * MIB);
    let builder = builder.file(scratch_file()?, 16 * MIB);
    let builder = if managed { builder.managed(4 * MIB) } else { builder };
    let pool = builder.build()?;
    let tiers = [Tier::Device, Tier::Managed, Tier::Pinned, Tier::FileMapped];
    let mut tiers: Vec<_> =
        tiers.into_iter().filter(|tier| managed || *tier != Tier::Managed).collect();
    tiers.extend(tiers.clone().into_iter().rev());
    for size in [1, 70_000, 3 * MIB] {
        let object = filled(&pool, &stream, size)?;
        for tier in &tiers {
            drop(object.pin(*tier, &stream)?);
            same(&object, &stream, size, *tier)?;
        }
    }
    kept(format!("3 sizes in {} tiers, there and back", tiers.len() / 2))
}

/// A write to an object that is being copied away comes after the copy, which came to nothing.
pub(super) fn writer(stand: &Stand<'_>) -> Outcome {
    let (stream, other) = (Stream::new(&stand.context)?, Stream::new(&stand.context)?);
    let pool = TieredPool::builder(&stand.context).device(4 * MIB).pinned(16 * MIB).build()?;
    for (from, to) in [(Tier::Device, Tier::Pinned), (Tier::Pinned, Tier::Device)] {
        let mut object = filled(&pool, &stream, MIB)?;
        drop(object.pin(from, &stream)?);
        let start = Instant::now();
        while let Err(error) = object.prefetch(to) {
            ensure(matches!(error, TierError::Busy { .. }), || error.to_string())?;
            ensure(start.elapsed() < LIMIT, || format!("no move from {from} to {to}: {error}"))?;
            pool.step()?;
            thread::yield_now();
        }
        let mut held = object.pin_mut(from, &other)?;
        let copies = pool.stats().in_flight;
        ensure(copies == 0, || {
            format!("an object in {from} may be written while it is copied to {to}")
        })?;
        held.copy_from_slice(&pattern(MIB, MIB))?;
        drop(held);
        same(&object, &stream, MIB, from)?;
    }
    kept("moves to and from the device, each overtaken by a write")
}

/// An object in pinned memory, filled with the pattern of its size.
fn filled(pool: &TieredPool, stream: &Stream, size: usize) -> Result<TieredObject, Box<dyn Error>> {
    let mut object = pool.alloc(size, Tier::Pinned)?;
    object.pin_mut(Tier::Pinned, stream)?.copy_from_slice(&pattern(size, size))?;
    Ok(object)
}

fn same(
    object: &TieredObject,
    stream: &Stream,
    size: usize,
    tier: Tier,
) -> Result<(), Box<dyn Error>> {
    let mut bytes = vec![0; size];
    object.pin_here(stream)?.copy_to_slice(&mut bytes)?;
    ensure(bytes == pattern(size, size), || format!("{size} bytes differ in {tier}"))
}
