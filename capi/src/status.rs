#![expect(unsafe_code, reason = "exports symbols; calls the caller's log")]
//! What calls return, the thread's last error, the log.

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, RwLock};

use wharf::ErrorKind;

/// What a call returns. The numbers never change their meaning; later versions may add some.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wharf_status {
    /// The call did what it says.
    Ok = 0,
    /// An argument is wrong, or an object is used in a way that it does not allow.
    Invalid = 1,
    /// The handle or address names nothing that exists: it was given back before.
    Stale = 2,
    /// The object belongs to another pool, set, context or device.
    WrongOwner = 3,
    /// A limit, the device, the host or a file system has no room.
    OutOfMemory = 4,
    /// Something is in use for the moment.
    WouldBlock = 5,
    /// The device did not get there before the deadline.
    TimedOut = 6,
    /// A stream is being captured, and the call is not for captures, or the capture failed.
    Capturing = 7,
    /// The driver or the device lacks what the call needs.
    Unsupported = 8,
    /// There is no CUDA driver, or no device.
    NoDriver = 9,
    /// The driver returned an error that no other status names: wharf_last_driver_error().
    Driver = 10,
    /// The context is lost after a fault of the device.
    ContextLost = 11,
    /// The operating system refused.
    System = 12,
    /// The process is a fork of the one that loaded the driver.
    Forked = 13,
    /// A pointer that is needed is NULL, or a handle is {0}.
    Null = 100,
    /// A fault of wharf itself. The objects of the call may be unusable, and are not corrupted.
    Panic = 101,
}

/// Receives the text of calls that failed, and what went wrong where no call could return it, such
/// as in drops and in wharf_torch_malloc. Called on any thread, several at once; must not throw,
/// which ends the process, and must not call wharf: what fails in a call of the log's is not told.
pub type wharf_log =
    Option<unsafe extern "C" fn(user: *mut c_void, status: wharf_status, text: *const c_char)>;

/// Returns the version of the library, as "0.1.0".
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn wharf_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Returns the name of a status, as "WHARF_STATUS_STALE"; "unknown" for other numbers.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn wharf_status_name(status: i32) -> *const c_char {
    let named = NAMES.iter().find(|(known, _)| *known as i32 == status);
    named.map_or(c"unknown", |(_, name)| name).as_ptr()
}

/// Returns the text of the calling thread's last failure: what was asked, what happened, what to
/// do. Empty before the first; good until the thread's next failure.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn wharf_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().text.as_ptr()).unwrap_or(c"".as_ptr())
}

/// Returns the CUresult that the driver returned in the calling thread's last failure; 0 if the
/// failure was not the driver's.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn wharf_last_driver_error() -> u32 {
    LAST.try_with(|last| last.borrow().driver).unwrap_or(0)
}

/// Sets the log of the process; NULL for none. `user` is given to each call of it.
/// WHARF_STATUS_INVALID in the log itself, whose end it would wait for.
///
/// Thread-safe. When it returns, no thread is inside the log before it.
///
/// # Safety
///
/// `log` can be called with `user` until another is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_set_log(log: wharf_log, user: *mut c_void) -> wharf_status {
    call(|| {
        if IS_TOLD.try_with(Cell::get).unwrap_or(false) {
            let text = "wharf_set_log was called in the log, and waits for its end";
            return Err(Failure::new(wharf_status::Invalid, text));
        }
        let log = log.map(|call| Log { call, user });
        *LOG.write().unwrap_or_else(PoisonError::into_inner) = log;
        Ok(())
    })
}

/// A call that failed. One word, so that calls that succeed do not pay for it.
#[derive(Debug)]
pub(crate) struct Failure(Box<Reason>);

#[derive(Debug)]
struct Reason {
    status: wharf_status,
    driver: u32,
    text: String,
}

impl Failure {
    #[cold]
    pub(crate) fn new(status: wharf_status, text: impl Into<String>) -> Self {
        Self(Box::new(Reason { status, driver: 0, text: text.into() }))
    }

    /// The failure that an error of the library is.
    pub(crate) fn of(kind: ErrorKind, error: &(dyn StdError + 'static)) -> Self {
        let mut chain = std::iter::successors(Some(error), |&error| error.source());
        let code = chain.find_map(|error| error.downcast_ref::<wharf::Error>()?.code());
        let driver = code.map_or(0, wharf::CudaError::code);
        Self(Box::new(Reason { status: status_of(kind), driver, text: error.to_string() }))
    }
}

macro_rules! failures {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            #[cold]
            fn from(error: $error) -> Self {
                Self::of(error.kind(), &error)
            }
        })+
    };
}

failures!(
    wharf::Error,
    wharf::LoadError,
    wharf::driver::DeferredError,
    wharf::graph::GraphError,
    wharf::pool::FreeError,
    wharf::pool::HostError,
    wharf::pool::LeakReport,
    wharf::pool::RawError,
    wharf::slab::AllocError,
    wharf::slab::PoolError,
    wharf::staging::BuildError,
    wharf::staging::SlotError,
    wharf::staging::StageError,
    wharf::timeline::WaitError,
);

/// Runs the body of a function: no panic leaves it, and a failure becomes the thread's last.
#[inline]
pub(crate) fn call(body: impl FnOnce() -> Result<(), Failure>) -> wharf_status {
    let body = || body().map_or_else(fail, |()| wharf_status::Ok);
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| fail(panicked(&*panic)))
}

/// Notes a failure for the calling thread, and tells the log.
#[cold]
pub(crate) fn fail(failure: Failure) -> wharf_status {
    let Reason { status, driver, text } = *failure.0;
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    tell(status, &text);
    // A thread that is ending has no last error any more.
    _ = LAST.try_with(|last| *last.borrow_mut() = Last { driver, text });
    status
}

/// Tells the log of something that no call returns.
pub(crate) fn tell(status: wharf_status, text: &CStr) {
    // A log that is told of its own failures never ends, and waits for a lock that it holds.
    // A thread that is ending has no flag, and no log.
    if IS_TOLD.try_with(|told| told.replace(true)).unwrap_or(true) {
        return;
    }
    let log = LOG.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(Log { call, user }) = &*log {
        // SAFETY: `wharf_set_log` was promised that it can be called with `user` until another is
        // set, which waits for this guard; the text is alive.
        unsafe { call(*user, status, text.as_ptr()) };
    }
    _ = IS_TOLD.try_with(|told| told.set(false));
}

/// Tells the log of an error in a drop.
pub(crate) fn tell_drop(error: &wharf::Error) {
    let text = CString::new(error.to_string()).unwrap_or_default();
    tell(status_of(error.kind()), &text);
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    Failure::new(wharf_status::Panic, format!("wharf failed, which is a fault of its own: {text}"))
}

fn status_of(kind: ErrorKind) -> wharf_status {
    match kind {
        ErrorKind::Invalid => wharf_status::Invalid,
        ErrorKind::Stale => wharf_status::Stale,
        ErrorKind::WrongOwner => wharf_status::WrongOwner,
        ErrorKind::OutOfMemory => wharf_status::OutOfMemory,
        ErrorKind::WouldBlock => wharf_status::WouldBlock,
        ErrorKind::TimedOut => wharf_status::TimedOut,
        ErrorKind::Capturing => wharf_status::Capturing,
        ErrorKind::Unsupported => wharf_status::Unsupported,
        ErrorKind::NoDriver => wharf_status::NoDriver,
        ErrorKind::ContextLost => wharf_status::ContextLost,
        ErrorKind::System => wharf_status::System,
        ErrorKind::Forked => wharf_status::Forked,
        // Also what a newer library may add: the text says what it is.
        _ => wharf_status::Driver,
    }
}

#[derive(Default)]
struct Last {
    driver: u32,
    text: CString,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
    /// Whether this thread is inside the log.
    static IS_TOLD: Cell<bool> = const { Cell::new(false) };
}

struct Log {
    call: unsafe extern "C" fn(*mut c_void, wharf_status, *const c_char),
    user: *mut c_void,
}

// SAFETY: `wharf_set_log` was promised that the log can be called on any thread.
unsafe impl Send for Log {}
// SAFETY: as above, on several threads at once.
unsafe impl Sync for Log {}

static LOG: RwLock<Option<Log>> = RwLock::new(None);

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

const NAMES: [(wharf_status, &CStr); 16] = [
    (wharf_status::Ok, c"WHARF_STATUS_OK"),
    (wharf_status::Invalid, c"WHARF_STATUS_INVALID"),
    (wharf_status::Stale, c"WHARF_STATUS_STALE"),
    (wharf_status::WrongOwner, c"WHARF_STATUS_WRONG_OWNER"),
    (wharf_status::OutOfMemory, c"WHARF_STATUS_OUT_OF_MEMORY"),
    (wharf_status::WouldBlock, c"WHARF_STATUS_WOULD_BLOCK"),
    (wharf_status::TimedOut, c"WHARF_STATUS_TIMED_OUT"),
    (wharf_status::Capturing, c"WHARF_STATUS_CAPTURING"),
    (wharf_status::Unsupported, c"WHARF_STATUS_UNSUPPORTED"),
    (wharf_status::NoDriver, c"WHARF_STATUS_NO_DRIVER"),
    (wharf_status::Driver, c"WHARF_STATUS_DRIVER"),
    (wharf_status::ContextLost, c"WHARF_STATUS_CONTEXT_LOST"),
    (wharf_status::System, c"WHARF_STATUS_SYSTEM"),
    (wharf_status::Forked, c"WHARF_STATUS_FORKED"),
    (wharf_status::Null, c"WHARF_STATUS_NULL"),
    (wharf_status::Panic, c"WHARF_STATUS_PANIC"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_number_of_its_kind() {
        for kind in [
            ErrorKind::Invalid,
            ErrorKind::Stale,
            ErrorKind::WrongOwner,
            ErrorKind::OutOfMemory,
            ErrorKind::WouldBlock,
            ErrorKind::TimedOut,
            ErrorKind::Capturing,
            ErrorKind::Unsupported,
            ErrorKind::NoDriver,
            ErrorKind::Driver,
            ErrorKind::ContextLost,
            ErrorKind::System,
            ErrorKind::Forked,
        ] {
            assert_eq!(status_of(kind) as i32, kind.code(), "{kind:?}");
        }
    }

    #[test]
    fn a_failure_has_the_driver_s_code_and_a_panic_ends_here() {
        let error = wharf::Error::Driver { call: "cuX", code: wharf::CudaError::LAUNCH_FAILED };
        let status = call(|| Err(wharf::slab::AllocError::Upstream(error).into()));
        assert_eq!((status, wharf_last_driver_error()), (wharf_status::ContextLost, 719));
        assert_eq!(call(|| panic!("of a test")), wharf_status::Panic);
        // SAFETY: the text is this thread's, and good until its next failure.
        let text = unsafe { CStr::from_ptr(wharf_last_error()) };
        assert!(text.to_str().unwrap().ends_with("of a test"), "{text:?}");
        assert_eq!(wharf_last_driver_error(), 0);
    }
}
