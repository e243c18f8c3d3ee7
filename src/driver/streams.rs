//! The streams of a context that something knows.
//!
//! A handle names a stream only at a time and in a context, that of a default stream only on a
//! thread: drivers give the handle of a destroyed stream to a new one, and the handles of the
//! default streams are constants. So a stream's data is kept under a number that is never
//! used twice, and found by [`StreamKey`] as long as something refers to it.
//!
//! ```text
//!   Context ──> Streams | key ··> stream |       "··>" weak: users of a stream keep it
//! ```

use core::num::NonZeroU64;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use wharf_sys::bindings::CUstream;
use wharf_sys::constants::{STREAM_LEGACY, STREAM_PER_THREAD};

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{
    Mutex, MutexGuard,
    thread::{self, ThreadId},
};

/// The number of a stream, never used twice in a process.
///
/// A driver gives the handle of a destroyed stream to a new one, and the handles of default streams
/// mean another stream in each context or thread; the number does not. Two
/// [`Stream`](crate::Stream) objects of one number are one stream, so their work runs in the order
/// in which it was submitted.
///
/// Objects of one stream have one number, if they were made with clones of one
/// [`Context`](crate::Context) and the first was still in use, by an object, a ticket or a pool,
/// when the second was made. Otherwise they have two, and count as two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(NonZeroU64);

impl StreamId {
    /// A number that no stream has had.
    pub(crate) fn next() -> Self {
        let number = last().fetch_add(1, Relaxed).wrapping_add(1);
        // 2^64 streams do not come to pass.
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MAX))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// The stream that a handle means on the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StreamKey {
    /// The legacy default stream, which has two handles: null and `CU_STREAM_LEGACY`.
    Legacy,
    /// The default stream of a thread.
    PerThread(ThreadId),
    /// A stream that was created.
    Handle(usize),
}

impl StreamKey {
    /// The stream that `raw` means on the calling thread.
    pub(crate) fn of(raw: CUstream) -> Self {
        if raw.is_null() || raw == STREAM_LEGACY {
            Self::Legacy
        } else if raw == STREAM_PER_THREAD {
            Self::PerThread(thread::current().id())
        } else {
            Self::Handle(raw.addr())
        }
    }

    /// Whether the handle is a constant, which means another stream in another context.
    pub(crate) fn is_default(self) -> bool {
        !matches!(self, Self::Handle(_))
    }

    /// The thread that the stream belongs to, if it belongs to one.
    pub(crate) fn thread(self) -> Option<ThreadId> {
        match self {
            Self::PerThread(thread) => Some(thread),
            Self::Legacy | Self::Handle(_) => None,
        }
    }
}

/// The streams of a context that are in use, by their keys.
#[derive(Default)]
pub(crate) struct Streams(Mutex<HashMap<StreamKey, Weak<dyn Any + Send + Sync>>>);

impl Streams {
    /// The stream of a key if `is_current` holds for it, else the one that `make` makes. Both run
    /// before another thread can take the stream out.
    pub(crate) fn find_or<T: Any + Send + Sync>(
        &self,
        key: StreamKey,
        is_current: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> Arc<T>,
    ) -> Arc<T> {
        // Dropped after the lock, since the end of a stream takes it.
        let _stale: Arc<T>;
        let mut map = self.lock();
        if let Some(known) = map.get(&key).and_then(upgrade::<T>) {
            if is_current(&known) {
                return known;
            }
            _stale = known;
        }
        let made = make();
        map.insert(key, weak(&made));
        made
    }

    /// The stream of a key.
    pub(crate) fn find<T: Any + Send + Sync>(&self, key: StreamKey) -> Option<Arc<T>> {
        self.lock().get(&key).and_then(upgrade::<T>)
    }

    /// Enters a stream that is new, in place of one that had the same handle, which is returned.
    pub(crate) fn insert<T: Any + Send + Sync>(
        &self,
        key: StreamKey,
        new: &Arc<T>,
    ) -> Option<Arc<T>> {
        let old = self.lock().insert(key, weak(new))?;
        upgrade(&old)
    }

    /// Takes a stream out if it is in and `may_go` holds for it, which runs before another thread
    /// can find it or take it out. Returns whether this call took it out.
    pub(crate) fn remove<T: Any + Send + Sync>(
        &self,
        key: StreamKey,
        stream: &T,
        may_go: impl FnOnce() -> bool,
    ) -> bool {
        let mut map = self.lock();
        let is_in = map
            .get(&key)
            .is_some_and(|weak| weak.as_ptr().cast::<T>() == std::ptr::from_ref(stream));
        let goes = is_in && may_go();
        if goes {
            map.remove(&key);
        }
        goes
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Weak<dyn Any + Send + Sync>>> {
        self.0.lock()
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Streams").field(&self.lock().len()).finish()
    }
}

fn weak<T: Any + Send + Sync>(stream: &Arc<T>) -> Weak<dyn Any + Send + Sync> {
    let stream: Weak<T> = Arc::downgrade(stream);
    stream
}

fn upgrade<T: Any + Send + Sync>(stream: &Weak<dyn Any + Send + Sync>) -> Option<Arc<T>> {
    stream.upgrade()?.downcast().ok()
}

crate::sync::global! {
    /// The last number given.
    const fn last() -> &AtomicU64 = AtomicU64::new(0);
}
