//! Where the blocks of a transfer lie.

use crate::error::Error;
use crate::local::Local;
use crate::region::RemoteBlock;
use crate::transport::{Place, Segment};

/// Where the local blocks lie, if a transfer can have them with the remote ones.
pub(crate) fn segments(locals: &[Local], remotes: &[RemoteBlock]) -> Result<Vec<Segment>, Error> {
    if locals.is_empty() {
        return Err(Error::NoBlocks);
    }
    for (index, (local, remote)) in locals.iter().zip(remotes).enumerate() {
        let (local, remote) = (local.len(), remote.descriptor.len);
        if local as u64 != remote {
            return Err(Error::Length { index, local, remote });
        }
    }
    let place = |local: &Local| Place::of(&local.piece()).ok_or(Error::MixedKinds);
    let segment = |local: &Local| {
        Ok(Segment { address: local.address(), len: local.len(), place: place(local)? })
    };
    let segments = locals.iter().map(segment).collect::<Result<Vec<_>, _>>()?;
    one_kind(&segments)?;
    Ok(segments)
}

/// Whether a transfer can have all of these on one side.
pub(crate) fn one_kind(segments: &[Segment]) -> Result<(), Error> {
    let are_alike = segments.windows(2).all(|pair| pair[0].place.is_like(pair[1].place));
    if are_alike { Ok(()) } else { Err(Error::MixedKinds) }
}
