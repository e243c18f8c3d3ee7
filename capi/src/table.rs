#![expect(
    unsafe_code,
    reason = "hands out what other threads may take out, by the caller's promise"
)]
//! Objects behind handles.
//!
//! ```text
//!   handle   life (32) | place (32)        0: none
//!   entry    its handle, or EMPTY | object
//!   table    first 64 entries | the last place given back | chunks of 64, made as they are needed
//! ```
//!
//! An entry stays where it is for the life of the process, and each object that is put into it is a
//! life of its own: so a handle of an object that was taken out is found by one comparison, without
//! a lock and without a count that threads would share.
//!
//! * handle: written by `insert`, `remove` and `end`; read by any call. The `Release` of `insert`
//!   pairs with the `Acquire` of `get`: the object is whole. The `AcqRel` of `claim` makes one call
//!   the taker.
//! * spare: written by `insert` and `give_back`; read by the same. The `Release` of `give_back`
//!   pairs with the `Acquire` of `insert`: the object before is gone.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::status::{Failure, wharf_status};

/// A kind of handle.
pub(crate) trait Handle: Copy {
    /// What it stands for.
    type Object: 'static;

    /// The objects of this kind.
    fn table() -> &'static Table<Self::Object>;

    /// The number in it.
    fn id(self) -> u64;

    /// The handle of a number.
    fn of(id: u64) -> Self;

    /// The kind, in words.
    const NAME: &str;
}

/// Makes a handle's object known; the handle.
#[inline]
pub(crate) fn insert<H: Handle>(object: H::Object) -> Result<H, Failure> {
    H::table().insert(object).map(H::of).ok_or_else(full::<H>)
}

/// The object of a handle.
///
/// # Safety
///
/// No thread takes the object out as long as the result is used.
#[inline]
pub(crate) unsafe fn get<'a, H: Handle>(handle: H) -> Result<&'a H::Object, Failure> {
    // SAFETY: the caller's promise.
    unsafe { H::table().get(handle.id()) }.ok_or_else(|| absent(handle))
}

/// Takes the object of a handle out, which is stale from here on.
///
/// # Safety
///
/// No other thread uses the object.
pub(crate) unsafe fn remove<H: Handle>(handle: H) -> Result<H::Object, Failure> {
    // SAFETY: the caller's promise.
    unsafe { H::table().remove(handle.id()) }.ok_or_else(|| absent(handle))
}

/// Drops the object of a handle where it is; the handle is stale from here on.
///
/// # Safety
///
/// No other thread uses the object.
#[inline]
pub(crate) unsafe fn end<H: Handle>(handle: H) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    if unsafe { H::table().end(handle.id()) } { Ok(()) } else { Err(absent(handle)) }
}

#[cold]
fn full<H: Handle>() -> Failure {
    let most = CHUNK * CHUNKS;
    let text = format!("the process has {most} {} handles, the most there can be", H::NAME);
    Failure::new(wharf_status::OutOfMemory, text)
}

#[cold]
fn absent<H: Handle>(handle: H) -> Failure {
    let name = H::NAME;
    if handle.id() == 0 {
        return Failure::new(wharf_status::Null, format!("the {name} handle is {{0}}"));
    }
    Failure::new(wharf_status::Stale, format!("the {name} handle was released before, or is none"))
}

/// The objects of one kind.
#[repr(C)] // The entries that are found without a look at a chunk come first.
pub(crate) struct Table<T> {
    /// Found without a look at a chunk: most processes have no more of a kind.
    first: [Entry<T>; CHUNK],
    /// The handle that the next object has, of the place that was given back last; 0 for none.
    /// Where each object goes before the next one comes, nothing else is looked at.
    spare: AtomicU64,
    chunks: [OnceLock<Box<[Entry<T>; CHUNK]>>; CHUNKS],
    /// The same of other places without an object.
    free: Mutex<Vec<u64>>,
    made: AtomicU32,
}

/// On a cache line of its own: a thread that makes objects does not disturb those that use others.
#[repr(align(64))]
struct Entry<T> {
    /// The handle of the object; `EMPTY` without one.
    handle: AtomicU64,
    object: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: an object is shared between threads by `get` and handed over by `remove`, ordered by the
// handle of its entry.
unsafe impl<T: Send + Sync> Sync for Entry<T> {}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            first: [const { Entry::new() }; CHUNK],
            spare: AtomicU64::new(0),
            chunks: [const { OnceLock::new() }; CHUNKS],
            free: Mutex::new(Vec::new()),
            made: AtomicU32::new(0),
        }
    }

    #[inline]
    fn insert(&self, object: T) -> Option<u64> {
        // Acquire: pairs with the Release of `give_back`.
        let handle = match self.spare.swap(0, Acquire) {
            0 => self.other_handle()?,
            spare => spare,
        };
        let entry = self.entry(handle)?;
        // SAFETY: the place was free, or is new, so this thread alone knows of it.
        unsafe { &mut *entry.object.get() }.write(object);
        // Release: pairs with the Acquire of `get`.
        entry.handle.store(handle, Release);
        Some(handle)
    }

    /// A handle whose place has no object.
    #[cold]
    fn other_handle(&self) -> Option<u64> {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.or_else(|| {
            let place = self.new_place()?;
            let chunk = place as usize / CHUNK;
            if chunk != 0 {
                self.chunks[chunk].get_or_init(|| Box::new([const { Entry::new() }; CHUNK]));
            }
            Some(1 << 32 | u64::from(place))
        })
    }

    fn new_place(&self) -> Option<u32> {
        let next = |made| ((made as usize) < CHUNK * CHUNKS).then_some(made + 1);
        self.made.fetch_update(Relaxed, Relaxed, next).ok()
    }

    #[inline]
    fn entry(&self, handle: u64) -> Option<&Entry<T>> {
        let place = half(handle) as usize;
        if let Some(entry) = self.first.get(place) {
            return Some(entry);
        }
        Some(&self.chunks.get(place / CHUNK)?.get()?[place % CHUNK])
    }

    /// # Safety
    ///
    /// As the function `get`.
    #[inline]
    unsafe fn get(&self, handle: u64) -> Option<&T> {
        let entry = self.entry(handle)?;
        // Acquire: pairs with the Release of `insert`.
        if entry.handle.load(Acquire) != handle {
            return None;
        }
        // SAFETY: the entry is behind this handle, and no thread takes the object out: the caller's
        // word.
        let object = unsafe { &*entry.object.get() };
        // SAFETY: an entry that is behind a handle has an object.
        Some(unsafe { object.assume_init_ref() })
    }

    /// # Safety
    ///
    /// As the function `remove`.
    unsafe fn remove(&self, handle: u64) -> Option<T> {
        let entry = self.claim(handle)?;
        // SAFETY: taken out by this thread alone, and no other uses it: the caller's word.
        let object = unsafe { &*entry.object.get() };
        // SAFETY: an entry that was behind a handle has an object, which is moved out once.
        let object = unsafe { object.assume_init_read() };
        self.give_back(handle);
        Some(object)
    }

    /// As [`remove`](Self::remove), and drops the object; `false` without one.
    ///
    /// # Safety
    ///
    /// As the function `remove`.
    #[inline]
    unsafe fn end(&self, handle: u64) -> bool {
        let Some(entry) = self.claim(handle) else { return false };
        // SAFETY: taken out by this thread alone, and no other uses it: the caller's word.
        let object = unsafe { &mut *entry.object.get() };
        // SAFETY: an entry that was behind a handle has an object, which is dropped once. If that
        // panics, the place is not used again.
        unsafe { object.assume_init_drop() };
        self.give_back(handle);
        true
    }

    /// The entry of a handle, which is stale from here on.
    #[inline]
    fn claim(&self, handle: u64) -> Option<&Entry<T>> {
        let entry = self.entry(handle)?;
        // AcqRel: of the threads that release one handle, one has the object, as `insert` left it.
        entry.handle.compare_exchange(handle, EMPTY, AcqRel, Relaxed).ok()?;
        Some(entry)
    }

    /// Lets the place of a handle have its next object.
    #[inline]
    fn give_back(&self, handle: u64) {
        // A place whose lives are used up stays empty: a handle never means another object.
        let Some(next) = handle.checked_add(1 << 32) else { return };
        // Release: pairs with the Acquire of `insert`, also of what is kept, by the lock.
        let before = self.spare.swap(next, AcqRel);
        if before != 0 {
            self.keep(before);
        }
    }

    #[cold]
    fn keep(&self, handle: u64) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

impl<T> Entry<T> {
    const fn new() -> Self {
        Self { handle: AtomicU64::new(EMPTY), object: UnsafeCell::new(MaybeUninit::uninit()) }
    }
}

/// The lower half of a word.
#[inline]
fn half(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}

/// Says what a handle of C stands for: its object, its name.
macro_rules! handle {
    ($name:ident, $object:ty, $text:literal) => {
        impl $crate::table::Handle for $name {
            type Object = $object;

            #[inline]
            fn table() -> &'static $crate::table::Table<$object> {
                static TABLE: $crate::table::Table<$object> = $crate::table::Table::new();
                &TABLE
            }

            #[inline]
            fn id(self) -> u64 {
                self.id
            }

            #[inline]
            fn of(id: u64) -> Self {
                Self { id }
            }

            const NAME: &str = $text;
        }
    };
}
pub(crate) use handle;

/// No handle: its place is above all.
const EMPTY: u64 = u64::MAX;
const CHUNK: usize = 64;
const CHUNKS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_good_until_its_object_is_taken_out() {
        let table = Table::new();
        let ids: Vec<_> = (0..200).map(|number| table.insert(number).unwrap()).collect();
        // SAFETY: one thread, here and below.
        let get = |id| unsafe { table.get(id) }.copied();
        assert!(ids.iter().copied().map(get).eq((0..200).map(Some)));
        // SAFETY: as above.
        let remove = |id| unsafe { table.remove(id) };
        assert_eq!((remove(ids[7]), get(ids[7]), remove(ids[7])), (Some(7), None, None));
        let again = table.insert(1000).unwrap();
        assert_eq!(half(again), half(ids[7]), "the place is used again");
        assert_eq!((get(ids[7]), get(again)), (None, Some(1000)));
        // SAFETY: as above.
        let end = |id| unsafe { table.end(id) };
        assert_eq!((end(ids[8]), get(ids[8]), end(ids[8])), (true, None, false));
        for none in [0, 1, u64::from(u32::MAX), u64::MAX, 1 << 32 | 201, 5 << 32] {
            assert_eq!((get(none), remove(none)), (None, None), "{none:#x}");
        }
    }

    #[test]
    fn every_place_that_was_given_back_is_used_before_a_new_one() {
        let table = Table::new();
        let ids: Vec<_> = (0..200).map(|number| table.insert(number).unwrap()).collect();
        // SAFETY: one thread.
        assert!(ids.iter().all(|id| unsafe { table.end(*id) }));
        let mut places: Vec<_> = (0..200).map(|_| half(table.insert(0).unwrap())).collect();
        places.sort_unstable();
        assert!(places.into_iter().eq(0..200));
        assert_eq!(half(table.insert(0).unwrap()), 200);
    }

    #[test]
    fn an_object_is_dropped_when_its_handle_ends() {
        let (table, object) = (Table::new(), std::sync::Arc::new(()));
        let id = table.insert(object.clone()).unwrap();
        // SAFETY: one thread.
        assert!(unsafe { table.end(id) });
        assert_eq!(std::sync::Arc::strong_count(&object), 1);
    }
}
