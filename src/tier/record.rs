//! What the pool knows of one object.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `places[i]` | who makes the object; the owner of a move, the place that is not current | who pins | Relaxed: ordered by the state word |
//! | `home`, `size` | who makes the object; the owner of a move (`home`) | owners of moves, who frees | Relaxed: ordered by the state word |
//! | `due` | `expect_use_in`, `step` | `step`, the clock | Relaxed: a hint |
//! | `near` | who pins, moves | who pins | Relaxed: a hint |

use std::sync::{Mutex, PoisonError};

use super::file::MappedFile;
use super::shelf::Place;
use crate::lockfree::tier_state::TierWord;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// One object, or a place for one.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) word: TierWord,
    /// An address, and the device's: 0 is none.
    places: [[AtomicU64; 2]; 2],
    /// Where the object's block in the tier of files is, 0 if it has none: it keeps it while elsewhere.
    home: [AtomicU64; 2],
    size: AtomicUsize,
    /// The step at which somebody will use the object, and in which tier; 0: nobody said.
    pub(super) due: AtomicU64,
    /// Whether managed memory was asked to be at the device.
    pub(super) near: AtomicBool,
    /// The file that `home` is a part of, for an object that was made of one. Touched by who makes and who
    /// frees the object.
    file: Mutex<Option<MappedFile>>,
    /// Whether there is one: its bytes are not to be written.
    is_fixed: AtomicBool,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            word: TierWord::vacant(),
            places: Default::default(),
            home: Default::default(),
            size: AtomicUsize::new(0),
            due: AtomicU64::new(0),
            near: AtomicBool::new(false),
            file: Mutex::new(None),
            is_fixed: AtomicBool::new(false),
        }
    }

    /// Notes all there is to know of a new object, in the place with number 0.
    pub(super) fn set_up(&self, size: usize, place: Place, home: Option<Place>, file: Option<MappedFile>) {
        self.size.store(size, Relaxed);
        self.set_place(0, place);
        store(&self.home, home);
        self.due.store(0, Relaxed);
        self.near.store(false, Relaxed);
        self.is_fixed.store(file.is_some(), Relaxed);
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }

    /// Lets go of the file.
    pub(super) fn clear(&self) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    pub(super) fn place(&self, number: usize) -> Place {
        load(&self.places[number]).unwrap_or(Place { address: 0, device: None })
    }

    /// Sets a place, by who makes the object, or owns its move and the place is not current.
    pub(super) fn set_place(&self, number: usize, place: Place) {
        store(&self.places[number], Some(place));
    }

    pub(super) fn home(&self) -> Option<Place> {
        load(&self.home)
    }

    pub(super) fn set_home(&self, place: Place) {
        store(&self.home, Some(place));
    }

    /// Whether the object's file is another's, and not to be written.
    pub(super) fn is_fixed(&self) -> bool {
        self.is_fixed.load(Relaxed)
    }
}

fn load([address, device]: &[AtomicU64; 2]) -> Option<Place> {
    let device = Some(device.load(Relaxed)).filter(|device| *device != 0);
    Some(Place { address: address.load(Relaxed), device }).filter(|place| place.address != 0)
}

fn store([address, device]: &[AtomicU64; 2], place: Option<Place>) {
    address.store(place.map_or(0, |place| place.address), Relaxed);
    device.store(place.and_then(|place| place.device).unwrap_or(0), Relaxed);
}
