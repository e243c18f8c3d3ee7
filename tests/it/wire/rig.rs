//! A transport that writes down what it is told, and refuses on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf::Error;
use wharf::memory::{MemoryResource, Piece, Registrations, Wire, WiredResource};
use wharf::slab::{PoolOptions, SlabPool};

pub(super) const MIB: usize = 1 << 20;
pub(super) const GIB: usize = 1 << 30;

/// What a transport refuses with.
pub(super) const REFUSED: Error = Error::Transport { call: "register", code: -7 };

/// What the transport knows.
#[derive(Default)]
pub(super) struct Book {
    /// The pieces that are registered, by address.
    pub(super) live: BTreeMap<u64, Piece>,
    pub(super) attached: usize,
    pub(super) detached: usize,
    /// The pieces whose end was refused.
    pub(super) kept: Vec<Piece>,
    /// Which call is refused, counted from 1; 0 for none.
    pub(super) refuse_attach: usize,
    pub(super) refuse_detach: usize,
}

/// A transport that writes down what it is told.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Book>);

impl Recorder {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live(&self) -> Vec<Piece> {
        self.book().live.values().copied().collect()
    }

    /// Whether a range lies in one registration.
    pub(super) fn covers(&self, address: u64, len: usize) -> bool {
        let book = self.book();
        let around = book.live.range(..=address).next_back();
        around.is_some_and(|(_, piece)| address + len as u64 <= piece.address + piece.len as u64)
    }
}

impl Wire for Recorder {
    type Key = u64;

    fn attach(&self, piece: &Piece) -> Result<u64, Error> {
        let mut book = self.book();
        book.attached += 1;
        if book.attached == book.refuse_attach {
            return Err(REFUSED);
        }
        let end = piece.address + piece.len as u64;
        let below = book.live.range(..end).next_back();
        let is_apart = below.is_none_or(|(_, it)| it.address + it.len as u64 <= piece.address);
        assert!(is_apart, "{piece:?} overlaps {below:?}");
        book.live.insert(piece.address, *piece);
        Ok(piece.address ^ u64::from(piece.generation))
    }

    fn detach(&self, piece: &Piece, key: u64) -> Result<(), Error> {
        let mut book = self.book();
        assert_eq!(key, piece.address ^ u64::from(piece.generation), "another piece's key");
        assert_eq!(book.live.remove(&piece.address).as_ref(), Some(piece));
        book.detached += 1;
        if book.detached == book.refuse_detach {
            book.kept.push(*piece);
            return Err(REFUSED);
        }
        Ok(())
    }
}

pub(super) type WiredPool<R> = SlabPool<WiredResource<R, Arc<Recorder>>>;

/// A pool whose memory the recorder is told of.
pub(super) fn wired<R>(resource: R, recorder: &Arc<Recorder>, options: PoolOptions) -> WiredPool<R>
where
    R: MemoryResource + 'static,
{
    SlabPool::new(WiredResource::new(resource, Arc::clone(recorder)), options).unwrap()
}

pub(super) fn registrations<R: MemoryResource + 'static>(pool: &WiredPool<R>) -> Registrations {
    pool.upstream().registrations().unwrap()
}

/// A sequence of numbers from a seed: xorshift.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    /// A size from 1 byte up to 2^bits, small ones more often.
    pub(super) fn size(&mut self, bits: usize) -> usize {
        let most = 1 << self.below(bits + 1);
        1 + self.below(most)
    }
}
