//! Blocks of one size, made ready for a stream and given back to the slabs.

use std::panic::Location;

use super::core::Core;
use crate::slab::AllocError;
use crate::stream::Stream;

impl Core {
    /// A block for `stream`, from what it has, what is free, or growth; `None` if the limit leaves
    /// no room.
    pub(super) fn ready(&self, size: usize, stream: &Stream) -> Result<Option<u32>, AllocError> {
        let request = self.request(size, stream)?;
        let index = match self.pop_kept(&request) {
            Some((index, _)) => index,
            None => match self
                .upstream
                .alloc(request.block())
                .and_then(|block| self.adopt(block, &request))
            {
                Ok(index) => index,
                Err(AllocError::Exhausted(_) | AllocError::TooMany { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        if let Some(track) = &self.track {
            track.note(index, Location::caller());
        }
        Ok(Some(index))
    }

    /// Gives complete blocks of a size that only `stream` has used back to the slabs. Returns
    /// how many.
    pub(super) fn give_back_size(&self, size: usize, stream: &Stream) -> Result<usize, AllocError> {
        let request = self.request(size, stream)?;
        // Another thread has the turn, and looks for blocks to give back.
        let Some(turn) = self.turn() else { return Ok(0) };
        let list = &request.seat.slot.lists[request.list()];
        let mut count = 0;
        let is_wanted = |index| {
            let record = self.records.get(index);
            (request.class.is_some() || record.size() == request.size) && self.is_idle(record)
        };
        while let Some(index) = self.take_first(&turn, list, is_wanted) {
            self.give_back(index, self.records.get(index));
            count += 1;
        }
        Ok(count)
    }
}
