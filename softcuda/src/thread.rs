#![expect(unsafe_code, reason = "thread state is leaked on purpose and reached by pointer")]
//! What the driver keeps for each thread: its stack of contexts, its capture mode.
//!
//! Programs call the driver from the destructors of their own thread-local variables, so the
//! variable here has no destructor: it points at a leaked allocation, one a thread.

use core::cell::{Cell, RefCell};
use core::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use wharf_sys::bindings::CUstreamCaptureMode;

/// One thread's state.
pub(crate) struct Thread {
    /// Names the thread's per-thread default streams; never used twice.
    pub(crate) id: u64,
    /// The machine that the thread is bound to, where no context says it.
    pub(crate) bound: Cell<Option<u16>>,
    /// The stack of current contexts, the top one last. Zero stands for "none".
    pub(crate) contexts: RefCell<Vec<u64>>,
    /// How this thread's unsafe calls interact with captures.
    pub(crate) capture_mode: Cell<CUstreamCaptureMode>,
    /// Set while a host function or a destructor runs on this thread.
    pub(crate) in_callback: Cell<bool>,
}

impl Thread {
    /// The calling thread's state.
    pub(crate) fn current() -> &'static Self {
        let pointer = CURRENT.get();
        if pointer.is_null() {
            return Self::first();
        }
        // SAFETY: not null, so set by `first` to a leaked allocation of this thread.
        unsafe { &*pointer }
    }

    #[cold]
    fn first() -> &'static Self {
        let state = Box::leak(Box::new(Self {
            // Relaxed: only uniqueness counts.
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            bound: Cell::new(None),
            contexts: RefCell::new(Vec::new()),
            capture_mode: Cell::new(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL),
            in_callback: Cell::new(false),
        }));
        CURRENT.set(ptr::from_ref(state));
        state
    }

    /// The current context's handle, or zero.
    pub(crate) fn context(&self) -> u64 {
        self.contexts.borrow().last().copied().unwrap_or(0)
    }

    /// Replaces the top of the stack; zero takes it off.
    pub(crate) fn set_context(&self, context: u64) {
        let mut contexts = self.contexts.borrow_mut();
        contexts.pop();
        if context != 0 {
            contexts.push(context);
        }
    }

    pub(crate) fn push_context(&self, context: u64) {
        self.contexts.borrow_mut().push(context);
    }

    pub(crate) fn pop_context(&self) -> Option<u64> {
        self.contexts.borrow_mut().pop()
    }

    /// Runs `callback` with calls into the driver forbidden.
    pub(crate) fn inside_callback(&self, callback: impl FnOnce()) {
        let before = self.in_callback.replace(true);
        callback();
        self.in_callback.set(before);
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static CURRENT: Cell<*const Thread> = const { Cell::new(ptr::null()) };
}
