//! Refusals by the driver, and what is left in the end.

use wharf::pool::Buffer;
use wharf::staging::{InputBuffers, Len};
use wharf::{CudaError, Stream};

use super::pools::{device_pool, pinned_pool};
use super::{LIMIT, MIB, Outcome, Stand, ensure, kept, lacks, raw};

/// Calls that are made to fail, one at a time: the error names them, and the same again succeeds.
pub(super) fn refusals(stand: &Stand<'_>) -> Outcome {
    let Some(machine) = stand.target.software() else {
        return lacks("faults can be injected on softcuda only");
    };
    let stream = Stream::new(&stand.context)?;
    let (device, results) = (device_pool(&stand.context)?, pinned_pool(&stand.context)?);
    // Without virtual memory a pool is one allocation, and does not grow.
    if machine.calls(GROWTH) > 0 {
        machine.fail(GROWTH, 1, CudaError::INVALID_VALUE);
        let refused = device.alloc::<u8>(MIB, &stream);
        let told = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure(told.contains(GROWTH), || format!("a refused {GROWTH} is told as: {told:?}"))?;
    }
    drop::<Buffer<u8>>(device.alloc(MIB, &stream)?);
    let inputs = InputBuffers::builder(&stand.context)
        .slot::<u32>("ids", Len::Tokens)
        .buckets([8])
        .max_tokens(8)
        .build()?;
    let ids = inputs.slot_id::<u32>("ids")?;
    for number in 0..8 {
        machine.fail("cuGraphLaunch", 1, CudaError::INVALID_VALUE);
        let mut step = inputs.begin(8, 1)?;
        step.write(ids).fill(u32::MAX);
        let told = step.submit(&stream).err().map(|error| error.to_string()).unwrap_or_default();
        ensure(told.contains("cuGraphLaunch"), || {
            format!("a refused launch is told as: {told:?}")
        })?;
        let mut step = inputs.begin(8, 1)?;
        step.write(ids).fill(number);
        let staged = step.submit(&stream)?;
        let mut result: Buffer<u32> = results.alloc(8, &stream)?;
        raw::fetch(&result, staged.device_ptr(ids), &stream)?;
        let same = result.host_mut(LIMIT)?.iter().all(|id| *id == number);
        ensure(same, || format!("step {number} is wrong after a refused one"))?;
    }
    kept("growth and launches refused, each told by name and made good")
}

/// What the software driver saw of sources that change early and of accesses that nothing orders.
pub(super) fn checks(stand: &Stand<'_>) -> Outcome {
    let Some(machine) = stand.target.software() else {
        return lacks("softcuda alone looks for sources that change early and for races");
    };
    let found = machine.violations();
    ensure(found.is_empty(), || {
        let first = found.first().map(ToString::to_string).unwrap_or_default();
        format!("{} violations, the first: {first}", found.len())
    })?;
    kept("no source changed early, no access without order")
}

/// What graphs kept alive is gone, and nothing is left but the context of this check.
pub(super) fn nothing(stand: &Stand<'_>) -> Outcome {
    stand.target.driver.wait_deferred(LIMIT)?;
    let Some(machine) = stand.target.software() else {
        return kept("every object of every check was released without an error");
    };
    // This check has a context, and no other object may be there.
    let left = machine.leaks();
    let is_context = |leak: &String| leak.starts_with("context ");
    ensure(left.len() <= 1 && left.iter().all(is_context), || {
        format!("{} left: {}", left.len(), left.join("; "))
    })?;
    kept("every object was released, and softcuda has none left")
}

/// The call by which a pool grows.
const GROWTH: &str = "cuMemCreate";
