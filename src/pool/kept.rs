//! What a sleeping pool's memory held, in pinned memory.

#![expect(unsafe_code, reason = "copies between a pool's memory and its own")]

use std::ops::Range;
use std::ptr;

use crate::address::to_usize;
use crate::error::Error;
use crate::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions};
use crate::slab::Keeper;
use crate::stream::Stream;

/// The contents of ranges of addresses.
#[derive(Debug)]
pub(super) struct Kept {
    memory: PinnedMemoryResource,
    /// What lies one behind the other in `memory`, lowest address first.
    ranges: Vec<Range<u64>>,
    bytes: usize,
}

/// Saves to pinned memory and restores from there, by copies on a stream; or keeps nothing.
#[derive(Debug)]
pub(super) struct Copies<'a> {
    pub(super) stream: &'a Stream,
    /// Whether contents are to be kept.
    pub(super) keeps: bool,
    pub(super) kept: Option<Kept>,
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    Back,
}

impl Kept {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies those of the ranges that lie in `pieces`, if any are given; each registration of the
    /// pinned memory by itself.
    fn copy(&self, stream: &Stream, way: Way, pieces: Option<&[Range<u64>]>) -> Result<(), Error> {
        let mut at = 0;
        for range in &self.ranges {
            let len = to_usize(range.end - range.start);
            let is_there = pieces.is_none_or(|pieces| lies_in(range, pieces));
            for part in self.memory.pieces(at, if is_there { len } else { 0 }) {
                let device = range.start + (part.start - at) as u64;
                let host = self.memory.base() + part.start as u64;
                let host = ptr::with_exposed_provenance_mut(to_usize(host));
                match way {
                    // SAFETY: the pinned range is committed and this object's, who waits for the
                    // stream before it goes; the pool's is mapped, and nothing else uses it now.
                    Way::Out => unsafe { stream.copy_dtoh(host, device, part.len()) },
                    // SAFETY: as above.
                    Way::Back => unsafe { stream.copy_htod(device, host, part.len()) },
                }?;
            }
            at += len;
        }
        Ok(())
    }
}

impl Keeper for Copies<'_> {
    fn save(&mut self, held: &[Range<u64>]) -> Result<(), Error> {
        let bytes = held.iter().map(|range| to_usize(range.end - range.start)).sum();
        if !self.keeps || bytes == 0 {
            return Ok(());
        }
        let options = PinnedOptions::default();
        let memory = PinnedMemoryResource::new(self.stream.context(), bytes, options)?;
        // SAFETY: nothing of a new resource is committed, and this is all of its span.
        unsafe { memory.commit(0, memory.size()) }?;
        let kept = Kept { memory, ranges: held.to_vec(), bytes };
        let copied = kept.copy(self.stream, Way::Out, None);
        // Also after an error: what was submitted before it writes to the pinned memory.
        let waited = self.stream.synchronize();
        self.kept = Some(kept);
        copied.and(waited)
    }

    fn restore(&self, pieces: &[Range<u64>]) -> Result<(), Error> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let copied = kept.copy(self.stream, Way::Back, Some(pieces));
        copied.and(self.stream.synchronize())
    }
}

/// Whether a range lies in one of `pieces`, which are in order.
fn lies_in(range: &Range<u64>, pieces: &[Range<u64>]) -> bool {
    let behind = pieces.partition_point(|piece| piece.start <= range.start);
    behind > 0 && range.end <= pieces[behind - 1].end
}
