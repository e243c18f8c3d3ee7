#![expect(unsafe_code, reason = "calls NVTX")]
//! Ranges, marks and names for a profiler, by the C interface of NVTX.
//!
//! | word | written by | read by |
//! |---|---|---|
//! | `DOMAIN` | the first range, once | every range; `None` without a tool |
//! | `attributes` | the first range of a name, once | every range of that name |

use core::ffi::CStr;
use core::fmt;
use std::borrow::Cow;

use ::nvtx::sys::ffi;
use ::nvtx::sys::{
    EventAttributes, MessageType, MessageValue, NVTX_EVENT_ATTRIBUTES_SIZE, PayloadType,
    PayloadValue,
};
use wharf_sys::bindings::CUstream;

use super::{Category, terminated};
use crate::sync::OnceLock;

/// The domain, where a tool listens.
static DOMAIN: OnceLock<Option<Domain>> = OnceLock::new();

/// The tool's handle of a domain; never destroyed.
#[derive(Clone, Copy, Debug)]
struct Domain(ffi::nvtxDomainHandle_t);

// SAFETY: the handle is a token of the tool, which takes it on any thread.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    fn get() -> Option<Self> {
        *DOMAIN.get_or_init(Self::create)
    }

    #[cold]
    fn create() -> Option<Self> {
        // SAFETY: the name is a C string; the tool copies it.
        let handle = unsafe { ffi::nvtxDomainCreateA(c"wharf".as_ptr()) };
        if handle.is_null() {
            return None;
        }
        for (category, name) in CATEGORIES {
            // SAFETY: the domain was just made; the name is a C string, which the tool copies.
            unsafe { ffi::nvtxDomainNameCategoryA(handle, category as u32, name.as_ptr()) };
        }
        Some(Self(handle))
    }
}

/// A name, and what a tool knows it by: attributes with the registered string, ready to be passed.
#[derive(Debug)]
pub(super) struct Registered {
    text: Cow<'static, CStr>,
    category: Category,
    attributes: OnceLock<Attributes>,
}

/// The description of a range that is passed to the tool.
#[derive(Clone, Copy)]
struct Attributes(EventAttributes);

// SAFETY: what it points to is the tool's registered string, which lives as long as the domain and
// is only read.
unsafe impl Send for Attributes {}
// SAFETY: as above.
unsafe impl Sync for Attributes {}

impl Registered {
    pub(super) const fn new(text: &'static CStr, category: Category) -> Self {
        Self { text: Cow::Borrowed(text), category, attributes: OnceLock::new() }
    }

    pub(super) fn of(
        operation: &'static CStr,
        category: Category,
        object: impl fmt::Display,
    ) -> Self {
        let text = terminated(&format!("{}({object})", operation.to_string_lossy()));
        Self { text: Cow::Owned(text), category, attributes: OnceLock::new() }
    }

    fn attributes(&self, domain: Domain) -> EventAttributes {
        self.attributes.get_or_init(|| self.register(domain)).0
    }

    #[cold]
    fn register(&self, domain: Domain) -> Attributes {
        // SAFETY: the domain is alive, the text a C string.
        let registered = unsafe { ffi::nvtxDomainRegisterStringA(domain.0, self.text.as_ptr()) };
        Attributes(EventAttributes {
            version: VERSION,
            size: SIZE,
            category: self.category as u32,
            colorType: 0,
            color: 0,
            payloadType: PayloadType::NVTX_PAYLOAD_UNKNOWN.into(),
            reserved0: 0,
            payload: PayloadValue { ullValue: 0 },
            messageType: MessageType::NVTX_MESSAGE_TYPE_REGISTERED.into(),
            message: MessageValue { registered },
        })
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attributes").finish_non_exhaustive()
    }
}

/// A range that is open, if a tool listens.
#[derive(Debug)]
pub(super) struct Open(Option<Domain>);

impl Open {
    #[inline]
    pub(super) fn new(name: &Registered, bytes: Option<usize>) -> Self {
        let domain = Domain::get();
        if let Some(domain) = domain {
            push(domain, name, bytes);
        }
        Self(domain)
    }
}

impl Drop for Open {
    #[inline]
    fn drop(&mut self) {
        if let Some(domain) = self.0 {
            // SAFETY: the domain is alive, and the guard is bound to the thread that pushed.
            unsafe { ffi::nvtxDomainRangePop(domain.0) };
        }
    }
}

fn push(domain: Domain, name: &Registered, bytes: Option<usize>) {
    let mut attributes = name.attributes(domain);
    if let Some(bytes) = bytes {
        attributes.payloadType = PayloadType::NVTX_PAYLOAD_TYPE_UNSIGNED_INT64.into();
        attributes.payload.ullValue = bytes as u64;
    }
    // SAFETY: the domain is alive; the tool reads the attributes before it returns.
    unsafe { ffi::nvtxDomainRangePushEx(domain.0, &raw const attributes) };
}

/// The tool's handle of the domain, null where no tool listens.
pub(super) fn domain() -> ffi::nvtxDomainHandle_t {
    Domain::get().map_or(core::ptr::null_mut(), |domain| domain.0)
}

pub(super) fn is_attached() -> bool {
    Domain::get().is_some()
}

pub(super) fn mark(name: &'static Registered) {
    if let Some(domain) = Domain::get() {
        let attributes = name.attributes(domain);
        // SAFETY: the domain is alive; the tool reads the attributes before it returns.
        unsafe { ffi::nvtxDomainMarkEx(domain.0, &raw const attributes) };
    }
}

pub(super) fn name_thread(name: &CStr) {
    // SAFETY: no precondition.
    let thread = unsafe { libc::gettid() };
    ::nvtx::sys::name_os_thread_ascii(thread.unsigned_abs(), name);
}

pub(super) fn name_stream(raw: CUstream, name: &CStr) {
    // SAFETY: the caller has a `Stream`, so the handle is of one that is alive.
    unsafe { ::nvtx::sys::name_custream_ascii(raw.cast(), name) };
}

const CATEGORIES: [(Category, &CStr); 5] = [
    (Category::Driver, c"driver"),
    (Category::Memory, c"memory"),
    (Category::Staging, c"staging"),
    (Category::Graph, c"graph"),
    (Category::Tier, c"tier"),
];

/// The version and the size of the attributes' layout.
const VERSION: u16 = ::nvtx::sys::NVTX_VERSION.unsigned_abs();
const SIZE: u16 = 48;
const _: () = assert!(SIZE as usize == NVTX_EVENT_ATTRIBUTES_SIZE);
