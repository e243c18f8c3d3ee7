//! Parcels: a batch has one owner, and is taken as it was left.

use super::{Guarded, model};
use crate::lockfree::parcels::Parcels;
use loom::sync::Arc;
use loom::thread;

struct Shared {
    parcels: Parcels,
    /// What each number in a parcel stands for.
    items: Guarded,
}

impl Shared {
    fn new(items: usize) -> Arc<Self> {
        Arc::new(Self { parcels: Parcels::new(1, 1), items: Guarded::new(items) })
    }

    /// Uses numbers that are the caller's, and leaves them; whether there was room.
    fn put(&self, numbers: &[usize]) -> bool {
        numbers.iter().for_each(|number| self.items.own(*number));
        self.parcels.put(0, numbers)
    }

    /// Takes numbers and uses them.
    fn take(&self) -> Vec<usize> {
        let (numbers, len) = self.parcels.take(0);
        let numbers = numbers[..len].iter().map(|number| usize::try_from(*number).unwrap());
        numbers.inspect(|number| self.items.own(*number)).collect()
    }
}

/// A parcel is left while another thread looks for one.
#[test]
fn parcels_put_against_take() {
    model("parcels_put_against_take", || {
        let shared = Shared::new(2);
        let other = shared.clone();
        let thread = thread::spawn(move || other.take());
        assert!(shared.put(&[0, 1]));
        let early = thread.join().unwrap();
        assert_eq!(if early.is_empty() { shared.take() } else { early }, [0, 1]);
    });
}

/// One parcel for two: one of them gets it, whole.
#[test]
fn parcels_take_against_take() {
    model("parcels_take_against_take", || {
        let shared = Shared::new(2);
        assert!(shared.put(&[0, 1]));
        let other = shared.clone();
        let thread = thread::spawn(move || other.take());
        let here = shared.take();
        let there = thread.join().unwrap();
        assert_eq!(here.len() + there.len(), 2, "{here:?} {there:?}");
    });
}

/// One place for two: who finds none keeps what it has.
#[test]
fn parcels_put_against_put() {
    model("parcels_put_against_put", || {
        let shared = Shared::new(2);
        let other = shared.clone();
        let thread = thread::spawn(move || other.put(&[0]));
        let here = shared.put(&[1]);
        assert!(here ^ thread.join().unwrap());
        assert_eq!(shared.take(), [usize::from(here)]);
    });
}

/// A place is used again, by the one who put before, as soon as it was emptied: the taker has read all of
/// the first parcel.
#[test]
fn parcels_place_is_used_again() {
    model("parcels_place_is_used_again", || {
        let shared = Shared::new(4);
        assert!(shared.put(&[0, 1]));
        let other = shared.clone();
        let thread = thread::spawn(move || other.put(&[2, 3]));
        let here = shared.take();
        let left = thread.join().unwrap();
        assert_eq!(here, [0, 1]);
        let mut rest = shared.take();
        rest.extend(here);
        rest.sort_unstable();
        assert_eq!(rest, if left { vec![0, 1, 2, 3] } else { vec![0, 1] });
    });
}
