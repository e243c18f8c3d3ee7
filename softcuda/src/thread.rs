#![expect(
    unsafe_code,
    reason = "thread state outlives the program's destructors and is reached by pointer"
)]
//! The state of each thread: its stack of contexts, its capture mode.
//!
//! Programs call the driver from the destructors of their own thread-local variables, so the
//! variable here has no destructor: it points at an allocation, one a thread, that the C library
//! gives back after all such destructors (`pthread_key_create`).

use core::cell::{Cell, RefCell};
use core::ffi::c_void;
use core::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use wharf_sys::bindings::CUstreamCaptureMode;

use crate::handle::Name;

/// One thread's state.
pub(crate) struct Thread {
    /// Names the thread's per-thread default streams; never used twice.
    pub(crate) id: u64,
    /// The machine that the thread is bound to, where no context says it.
    pub(crate) bound: Cell<Option<u32>>,
    /// The stack of current contexts, the top one last. The default name stands for "none".
    pub(crate) contexts: RefCell<Vec<Name>>,
    /// The capture mode of this thread, for calls that are unsafe during captures.
    pub(crate) capture_mode: Cell<CUstreamCaptureMode>,
    /// Set while a host function or a destructor runs on this thread.
    pub(crate) in_callback: Cell<bool>,
    /// In how many rounds of the C library's destructors this was met.
    rounds: Cell<u32>,
}

impl Thread {
    /// The calling thread's state, which is there until after the last of the program's
    /// destructors.
    pub(crate) fn current() -> &'static Self {
        let pointer = CURRENT.get();
        if pointer.is_null() {
            return Self::first();
        }
        // SAFETY: not null, so set by `first`, and `end` has not run: it sets null.
        unsafe { &*pointer }
    }

    #[cold]
    fn first() -> &'static Self {
        let state = Box::into_raw(Box::new(Self {
            // Relaxed: only uniqueness counts.
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            bound: Cell::new(None),
            contexts: RefCell::new(Vec::new()),
            capture_mode: Cell::new(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL),
            in_callback: Cell::new(false),
            rounds: Cell::new(0),
        }));
        CURRENT.set(state);
        arm(state.cast());
        // SAFETY: a new allocation, which `end` frees when the thread makes no more calls.
        unsafe { &*state }
    }

    /// The current context, alive or not, or the default name.
    pub(crate) fn context(&self) -> Name {
        self.contexts.borrow().last().copied().unwrap_or_default()
    }

    /// Replaces the top of the stack, or takes it off.
    pub(crate) fn set_context(&self, context: Option<Name>) {
        let mut contexts = self.contexts.borrow_mut();
        contexts.pop();
        contexts.extend(context);
    }

    pub(crate) fn push_context(&self, context: Name) {
        self.contexts.borrow_mut().push(context);
    }

    pub(crate) fn pop_context(&self) -> Option<Name> {
        self.contexts.borrow_mut().pop()
    }

    /// Runs `callback` with calls into the driver forbidden.
    pub(crate) fn inside_callback(&self, callback: impl FnOnce()) {
        let before = self.in_callback.replace(true);
        callback();
        self.in_callback.set(before);
    }
}

/// Lets the C library call [`end`] with `state` in its next round of destructors. Where there is
/// no key left the state is leaked.
fn arm(state: *mut c_void) {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: writes the key; the function lives as long as the program.
        let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(end)) };
        (failed == 0).then_some(key)
    });
    if let Some(key) = key {
        // SAFETY: the key was made above and is never deleted.
        unsafe { libc::pthread_setspecific(*key, state) };
    }
}

/// Frees a thread's state, in the last round but one: the destructors of other keys may call the
/// driver in the rounds before. The last round is that of sanitizers, after which no code of ours
/// may run.
unsafe extern "C" fn end(state: *mut c_void) {
    let thread = state.cast::<Thread>();
    // SAFETY: the state of this thread, which only the line at the end frees.
    let rounds = unsafe { &(*thread).rounds };
    rounds.set(rounds.get() + 1);
    if rounds.get() < ROUNDS {
        return arm(state);
    }
    CURRENT.set(ptr::null());
    // SAFETY: from `Box::into_raw` in `first`; nothing leads to it any more.
    drop(unsafe { Box::from_raw(thread) });
}

/// One less than `PTHREAD_DESTRUCTOR_ITERATIONS` of the C libraries of Linux.
const ROUNDS: u32 = 3;

static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static CURRENT: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}
