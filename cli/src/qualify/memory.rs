//! Memory of each kind.

use std::fs::{self, File};

use wharf::memory::{
    Backing, DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource, MemoryResource,
    PinnedMemoryResource, PinnedOptions, WriteCombinedMemoryResource,
};
use wharf::{CudaError, DeviceAttribute, Error, Stream};

use super::raw::Range;
use super::{MIB, Outcome, Stand, ensure, kept, lacks, pattern};
use crate::doctor::size;

pub(super) fn pinned(stand: &Stand<'_>) -> Outcome {
    let made = PinnedMemoryResource::new(&stand.context, SPAN, PinnedOptions::default());
    kind(stand, made, Host::ReadsAndWrites)
}

pub(super) fn write_combined(stand: &Stand<'_>) -> Outcome {
    kind(stand, WriteCombinedMemoryResource::new(&stand.context, SPAN), Host::Writes)
}

pub(super) fn device(stand: &Stand<'_>) -> Outcome {
    kind(stand, DeviceMemoryResource::new(&stand.context, SPAN), Host::Nothing)
}

pub(super) fn managed(stand: &Stand<'_>) -> Outcome {
    if !stand.context.device().supports(DeviceAttribute::MANAGED_MEMORY)? {
        return lacks("the device has no managed memory");
    }
    kind(stand, ManagedMemoryResource::new(&stand.context, SPAN), Host::ReadsAndWrites)
}

pub(super) fn file(stand: &Stand<'_>) -> Outcome {
    if !stand.context.device().supports(DeviceAttribute::HOST_REGISTER_SUPPORTED)? {
        return lacks("host memory cannot be registered: the host alone reaches a file");
    }
    let file = scratch_file()?;
    kind(
        stand,
        FileMappedMemoryResource::scratch(&stand.context, &file, SPAN),
        Host::ReadsAndWrites,
    )
}

/// A file without a name, gone with the handle.
pub(super) fn scratch_file() -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("wharf-qualify-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Memory of the device that comes and goes while addresses stay.
pub(super) fn growth(stand: &Stand<'_>) -> Outcome {
    let device = DeviceMemoryResource::new(&stand.context, SPAN)?;
    let stream = Stream::new(&stand.context)?;
    let granule = device.granularity();
    let kept_here = Range::commit(&device, 0, granule)?;
    if device.report().backing == Backing::Whole {
        kept_here.decommit()?;
        return lacks("no virtual memory management: a pool is one allocation made at the start");
    }
    kept_here.write(&pattern(1, granule), &stream)?;
    let mut seconds = Vec::new();
    for round in 0..8 {
        let piece = Range::commit(&device, granule, (1 + round % 4) * granule)?;
        piece.write(&pattern(round, granule), &stream)?;
        seconds.push(piece.read(granule, &stream)? == pattern(round, granule));
        piece.decommit()?;
    }
    let intact = kept_here.read(granule, &stream)? == pattern(1, granule);
    kept_here.decommit()?;
    ensure(intact && seconds.iter().all(|same| *same), || "bytes changed".to_owned())?;
    let left = device.report().committed;
    ensure(left == 0, || format!("{left} bytes are still committed"))?;
    kept(format!("in pieces of {}, 8 times", size(granule as u64)))
}

/// What the host may do with memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    Nothing,
    Writes,
    ReadsAndWrites,
}

/// What holds of memory of every kind.
fn kind<R: MemoryResource>(stand: &Stand<'_>, made: Result<R, Error>, host: Host) -> Outcome {
    let resource = match made {
        Ok(resource) => resource,
        Err(error) if is_missing(error) => return lacks(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    let stream = Stream::new(&stand.context)?;
    let granule = resource.granularity();
    for round in 0..3 {
        let offset = round * granule;
        let mut range = match Range::commit(&resource, offset, granule) {
            Ok(range) => range,
            Err(error) if is_missing(error) => return lacks(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let seen = resource.device_address(offset, granule).is_some();
        ensure(seen, || "the device has no address for a committed range".to_owned())?;
        let (first, second) = (pattern(2 * round, granule), pattern(2 * round + 1, granule));
        range.write(&first, &stream)?;
        ensure(range.read(granule, &stream)? == first, || {
            "the device reads other bytes than it wrote".to_owned()
        })?;
        if host == Host::ReadsAndWrites {
            ensure(range.host(granule) == first, || {
                "the host reads other bytes than the device wrote".to_owned()
            })?;
        }
        if host != Host::Nothing {
            range.host(granule).copy_from_slice(&second);
            ensure(range.read(granule, &stream)? == second, || {
                "the device reads other bytes than the host wrote".to_owned()
            })?;
        }
        range.decommit()?;
        let gone = resource.device_address(offset, granule).is_none();
        ensure(gone, || "a decommitted range still has an address".to_owned())?;
    }
    kept(format!("3 pieces of {}", size(granule as u64)))
}

/// Whether the driver or the device has not what was asked for.
fn is_missing(error: Error) -> bool {
    matches!(error, Error::Unsupported { .. }) || error.code() == Some(CudaError::NOT_SUPPORTED)
}

/// The addresses of a resource: some granules of any size.
const SPAN: usize = 64 * MIB;
