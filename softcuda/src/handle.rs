//! Handles: numbers that name an object and are never followed as pointers.
//!
//! ```text
//!  63      60 59            44 43     36 35                          4 3    0
//! +----------+----------------+---------+-----------------------------+------+
//! |    0     |  machine + 1   |  kind   |   serial, never used twice  |  0   |
//! +----------+----------------+---------+-----------------------------+------+
//! ```
//!
//! A serial is never given to another object, so a destroyed handle is unknown for ever, as the
//! documentation asks where it lists `CUDA_ERROR_INVALID_HANDLE` for destroyed objects.

use core::ffi::c_void;
use core::ptr;
use std::collections::HashMap;

/// What kind of object a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Context = 1,
    Stream,
    Event,
    Graph,
    Node,
    Exec,
    Pool,
    Physical,
    UserObject,
    Module,
    Function,
    Library,
    Array,
    Link,
}

/// A decoded handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) machine: u16,
    pub(crate) serial: u32,
}

/// The handle of object `id` as the number the caller sees.
pub(crate) fn encode(kind: Kind, id: Id) -> u64 {
    (u64::from(id.machine) + 1) << 44 | u64::from(kind as u8) << 36 | u64::from(id.serial) << 4
}

/// The object that `raw` names, if it has the form of a handle of this kind.
pub(crate) fn decode(kind: Kind, raw: u64) -> Option<Id> {
    let machine = u16::try_from((raw >> 44).checked_sub(1)?).ok()?;
    let serial = u32::try_from(raw >> 4 & 0xffff_ffff).ok()?;
    let id = Id { machine, serial };
    (encode(kind, id) == raw).then_some(id)
}

/// A handle type of the driver API: an opaque pointer.
pub(crate) fn to_pointer<T>(raw: u64) -> *mut T {
    ptr::without_provenance_mut(crate::address::width(raw))
}

/// The objects of one kind that one machine has.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    kind: Kind,
    machine: u16,
    next: u32,
    objects: HashMap<u32, T>,
}

impl<T> Registry<T> {
    pub(crate) fn new(kind: Kind, machine: u16) -> Self {
        Self { kind, machine, next: 1, objects: HashMap::new() }
    }

    /// Adds an object and returns its handle's number.
    pub(crate) fn insert(&mut self, object: T) -> u64 {
        let serial = self.next;
        self.next += 1;
        self.objects.insert(serial, object);
        encode(self.kind, Id { machine: self.machine, serial })
    }

    /// Puts an object in the place of a removed one, under its old handle.
    pub(crate) fn restore(&mut self, raw: u64, object: T) {
        if let Some(serial) = self.serial(raw) {
            self.objects.insert(serial, object);
        }
    }

    fn serial(&self, raw: u64) -> Option<u32> {
        decode(self.kind, raw).filter(|id| id.machine == self.machine).map(|id| id.serial)
    }

    pub(crate) fn get(&self, raw: u64) -> Option<&T> {
        self.objects.get(&self.serial(raw)?)
    }

    pub(crate) fn get_mut(&mut self, raw: u64) -> Option<&mut T> {
        let serial = self.serial(raw)?;
        self.objects.get_mut(&serial)
    }

    pub(crate) fn remove(&mut self, raw: u64) -> Option<T> {
        let serial = self.serial(raw)?;
        self.objects.remove(&serial)
    }

    pub(crate) fn contains(&self, raw: u64) -> bool {
        self.get(raw).is_some()
    }

    /// The live handles, oldest first.
    pub(crate) fn handles(&self) -> Vec<u64> {
        let mut serials: Vec<_> = self.objects.keys().copied().collect();
        serials.sort_unstable();
        serials.into_iter().map(|serial| encode(self.kind, Id { machine: self.machine, serial })).collect()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.objects.values()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.objects.values_mut()
    }
}

/// The number behind an opaque pointer.
pub(crate) fn number<T>(handle: *mut T) -> u64 {
    handle.cast::<c_void>().addr() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_survives_the_round_trip_and_nothing_else_decodes() {
        for serial in [1, 2, 0xffff, u32::MAX] {
            for machine in [0, 1, u16::MAX - 1] {
                let id = Id { machine, serial };
                let raw = encode(Kind::Stream, id);
                assert_eq!(decode(Kind::Stream, raw), Some(id));
                assert_eq!(decode(Kind::Event, raw), None);
                assert_eq!(decode(Kind::Stream, raw + 1), None);
            }
        }
        for raw in [0, 1, 2, u64::MAX, 1 << 63] {
            assert_eq!(decode(Kind::Stream, raw), None);
        }
    }

    #[test]
    fn a_removed_handle_stays_unknown() {
        let mut registry = Registry::new(Kind::Event, 3);
        let first = registry.insert('a');
        assert_eq!(registry.remove(first), Some('a'));
        let second = registry.insert('b');
        assert_ne!(first, second);
        assert_eq!(registry.get(first), None);
        assert_eq!(registry.get(second), Some(&'b'));
    }
}
