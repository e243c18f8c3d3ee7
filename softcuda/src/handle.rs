//! Handles: numbers that name an object and are never followed as pointers.
//!
//! ```text
//!  63            40 39   36 35                          4 3    0
//! +----------------+-------+-----------------------------+------+
//! |  machine + 1   | kind  |            slot             |  0   |
//! +----------------+-------+-----------------------------+------+
//! ```
//!
//! Drivers give the handle of a destroyed object to the next one of its kind, so a program that
//! knows an object by its handle takes two objects for one. Where a machine recycles
//! ([`crate::Config::recycle`]), a freed slot is the next one to be used; elsewhere no slot is used
//! twice, and a destroyed handle is unknown for ever.
//!
//! References that may outlive an object hold its [`Name`]: the handle and a serial that is never
//! used twice.

use core::ffi::c_void;
use core::ptr;
use std::collections::HashMap;

/// The kind of object that a handle names.
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
    pub(crate) machine: u32,
    pub(crate) slot: u32,
}

/// One object, for ever: what its handle named at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    /// The handle, which another object may have by now.
    pub(crate) raw: u64,
    serial: u64,
}

/// The numbering of objects in a machine's registries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbering {
    pub(crate) machine: u32,
    /// A removed object's handle goes to the next one of its kind.
    pub(crate) recycle: bool,
}

/// Machine numbers are below this, which leaves them 24 bits of a handle.
pub(crate) const MOST_MACHINES: u32 = (1 << 24) - 1;

/// The handle of object `id` as the number the caller sees.
pub(crate) fn encode(kind: Kind, id: Id) -> u64 {
    (u64::from(id.machine) + 1) << 40 | u64::from(kind as u8) << 36 | u64::from(id.slot) << 4
}

/// The object that `raw` names, if it has the form of a handle of this kind.
pub(crate) fn decode(kind: Kind, raw: u64) -> Option<Id> {
    let machine = u32::try_from((raw >> 40).checked_sub(1)?).ok()?;
    let slot = u32::try_from(raw >> 4 & 0xffff_ffff).ok()?;
    let id = Id { machine, slot };
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
    numbering: Numbering,
    last_slot: u32,
    last_serial: u64,
    /// Slots of removed objects, the last one removed at the end.
    free: Vec<u32>,
    /// The objects and their serials, by slot.
    objects: HashMap<u32, (u64, T)>,
}

impl<T> Registry<T> {
    pub(crate) fn new(kind: Kind, numbering: Numbering) -> Self {
        let (free, objects) = (Vec::new(), HashMap::new());
        Self { kind, numbering, last_slot: 0, last_serial: 0, free, objects }
    }

    /// Adds an object and returns its handle's number.
    pub(crate) fn insert(&mut self, object: T) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.last_slot += 1;
            self.last_slot
        });
        self.last_serial += 1;
        self.objects.insert(slot, (self.last_serial, object));
        self.raw(slot)
    }

    /// Puts an object in the place of one that was [withdrawn](Self::withdraw), under its name.
    pub(crate) fn restore(&mut self, name: Name, object: T) {
        if let Some(slot) = self.slot(name.raw) {
            self.objects.insert(slot, (name.serial, object));
        }
    }

    fn raw(&self, slot: u32) -> u64 {
        encode(self.kind, Id { machine: self.numbering.machine, slot })
    }

    fn slot(&self, raw: u64) -> Option<u32> {
        decode(self.kind, raw).filter(|id| id.machine == self.numbering.machine).map(|id| id.slot)
    }

    pub(crate) fn get(&self, raw: u64) -> Option<&T> {
        self.objects.get(&self.slot(raw)?).map(|(_, object)| object)
    }

    pub(crate) fn get_mut(&mut self, raw: u64) -> Option<&mut T> {
        let slot = self.slot(raw)?;
        self.objects.get_mut(&slot).map(|(_, object)| object)
    }

    /// The name of the live object with this handle, which stays valid when the handle is reused.
    pub(crate) fn name(&self, raw: u64) -> Option<Name> {
        let (serial, _) = self.objects.get(&self.slot(raw)?)?;
        Some(Name { raw, serial: *serial })
    }

    /// The named object, if it is still alive.
    pub(crate) fn named(&self, name: Name) -> Option<&T> {
        let (serial, object) = self.objects.get(&self.slot(name.raw)?)?;
        (*serial == name.serial).then_some(object)
    }

    /// The named object, if it is still alive.
    pub(crate) fn named_mut(&mut self, name: Name) -> Option<&mut T> {
        let slot = self.slot(name.raw)?;
        let (serial, object) = self.objects.get_mut(&slot)?;
        (*serial == name.serial).then_some(object)
    }

    /// Removes an object and gives its handle away.
    pub(crate) fn remove(&mut self, raw: u64) -> Option<T> {
        let removed = self.withdraw(raw)?;
        if self.numbering.recycle {
            self.free.extend(self.slot(raw));
        }
        Some(removed)
    }

    /// Removes an object whose handle stays its own.
    pub(crate) fn withdraw(&mut self, raw: u64) -> Option<T> {
        let slot = self.slot(raw)?;
        self.objects.remove(&slot).map(|(_, object)| object)
    }

    pub(crate) fn contains(&self, raw: u64) -> bool {
        self.get(raw).is_some()
    }

    /// The live handles, oldest first.
    pub(crate) fn handles(&self) -> Vec<u64> {
        let mut slots: Vec<_> =
            self.objects.iter().map(|(slot, (serial, _))| (*serial, *slot)).collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| self.raw(slot)).collect()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.objects.values().map(|(_, object)| object)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.objects.values_mut().map(|(_, object)| object)
    }
}

/// The number behind an opaque pointer.
pub(crate) fn number<T>(handle: *mut T) -> u64 {
    handle.cast::<c_void>().addr() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Numbering = Numbering { machine: 3, recycle: false };

    #[test]
    fn a_handle_survives_the_round_trip_and_nothing_else_decodes() {
        for slot in [1, 2, 0xffff, u32::MAX] {
            for machine in [0, 1, 0xffff, 0x1_0000, MOST_MACHINES - 1] {
                let id = Id { machine, slot };
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
        let mut registry = Registry::new(Kind::Event, KEEP);
        let first = registry.insert('a');
        assert_eq!(registry.remove(first), Some('a'));
        let second = registry.insert('b');
        assert_ne!(first, second);
        assert_eq!(registry.get(first), None);
        assert_eq!(registry.get(second), Some(&'b'));
    }

    #[test]
    fn the_handle_removed_last_comes_back_first_and_its_name_does_not() {
        let mut registry = Registry::new(Kind::Event, Numbering { recycle: true, ..KEEP });
        let (first, second) = (registry.insert('a'), registry.insert('b'));
        let name = registry.name(first).unwrap();
        assert_eq!(registry.remove(second), Some('b'));
        assert_eq!(registry.remove(first), Some('a'));
        assert_eq!(registry.remove(first), None, "a handle is freed once");
        assert_eq!(registry.insert('c'), first);
        assert_eq!(registry.insert('d'), second);
        assert_eq!((registry.named(name), registry.get(first)), (None, Some(&'c')));
        assert_eq!(registry.handles(), [first, second], "the oldest first");
    }

    #[test]
    fn a_withdrawn_handle_is_no_other_objects() {
        let mut registry = Registry::new(Kind::Context, Numbering { recycle: true, ..KEEP });
        let primary = registry.insert('a');
        let name = registry.name(primary).unwrap();
        assert_eq!(registry.withdraw(primary), Some('a'));
        assert_ne!(registry.insert('b'), primary);
        registry.restore(name, 'c');
        assert_eq!(registry.named(name), Some(&'c'));
    }
}
