//! A tool that NVTX attaches in process, and what it was told.
//!
//! A tool is a function that NVTX calls at the first NVTX call of the process and that puts its own
//! functions into the tables of the client. Nsight Systems does the same from a library of its own.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::{ptr, slice};

/// What happened, in the order in which it did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Push { name: String, category: String, payload: Option<u64> },
    Pop,
    Mark { name: String, category: String },
    Stream { handle: usize, name: String },
    Thread { id: u32, name: String },
}

#[derive(Default)]
struct Heard {
    events: Vec<(ThreadId, Event)>,
    /// Registered strings, by handle from 1 on.
    strings: Vec<String>,
    categories: BTreeMap<u32, String>,
    domains: Vec<String>,
}

static HEARD: Mutex<Heard> = Mutex::new(Heard {
    events: Vec::new(),
    strings: Vec::new(),
    categories: BTreeMap::new(),
    domains: Vec::new(),
});

/// What the calling thread told so far, and takes it away.
pub(crate) fn told_here() -> Vec<Event> {
    let here = thread::current().id();
    let mut heard = heard();
    let (ours, others) = heard.events.drain(..).partition(|(thread, _)| *thread == here);
    heard.events = others;
    let ours: Vec<(ThreadId, Event)> = ours;
    ours.into_iter().map(|(_, event)| event).collect()
}

pub(crate) fn domains() -> Vec<String> {
    heard().domains.clone()
}

pub(crate) fn strings() -> Vec<String> {
    heard().strings.clone()
}

fn heard() -> MutexGuard<'static, Heard> {
    HEARD.lock().unwrap()
}

fn tell(event: Event) {
    heard().events.push((thread::current().id(), event));
}

type Table = *const *mut *const c_void;

#[repr(C)]
struct Callbacks {
    size: usize,
    module: unsafe extern "C" fn(c_int, *mut Table, *mut u32) -> c_int,
}

/// NVTX asks for this symbol before it looks for a library.
#[unsafe(no_mangle)]
#[expect(unreachable_pub, reason = "the linker finds it by its name")]
pub static InitializeInjectionNvtx2_fnptr: unsafe extern "C" fn(
    unsafe extern "C" fn(u32) -> *const c_void,
) -> c_int = attach;

unsafe extern "C" fn attach(export: unsafe extern "C" fn(u32) -> *const c_void) -> c_int {
    // SAFETY: NVTX passes its own function; 1 asks for the callbacks.
    let callbacks: *const Callbacks = unsafe { export(1) }.cast();
    // SAFETY: the table for 1 is of this shape and static.
    let callbacks = unsafe { &*callbacks };
    let fill = |module: c_int, functions: &[(usize, *const c_void)]| {
        let (mut table, mut size): (Table, u32) = (ptr::null(), 0);
        // SAFETY: both outlive the call.
        assert_eq!(unsafe { (callbacks.module)(module, &raw mut table, &raw mut size) }, 1);
        // SAFETY: NVTX gave the table and its size; it is static.
        let table = unsafe { slice::from_raw_parts(table, size as usize) };
        for (id, function) in functions {
            // SAFETY: the place is the client's pointer to the function with this number.
            unsafe { table[*id].write(*function) };
        }
    };
    fill(1, &[(14, name_thread as *const c_void)]);
    fill(2, &[(5, name_stream as *const c_void)]);
    let domain: [(usize, *const c_void); 6] = [
        (1, domain_mark as *const c_void),
        (4, domain_push as *const c_void),
        (5, domain_pop as *const c_void),
        (8, name_category as *const c_void),
        (10, register_string as *const c_void),
        (12, create_domain as *const c_void),
    ];
    fill(5, &domain);
    1
}

/// The attributes of NVTX 3, with the payload as the whole number that wharf sends.
#[repr(C)]
struct Attributes {
    version: u16,
    size: u16,
    category: u32,
    color_type: i32,
    color: u32,
    payload_type: i32,
    reserved: i32,
    payload: u64,
    message_type: i32,
    message: usize,
}

impl Attributes {
    fn read(raw: *const Self) -> (String, String, Option<u64>) {
        // SAFETY: NVTX passes on what wharf passed, for the length of the call.
        let this = unsafe { &*raw };
        assert_eq!((this.version, usize::from(this.size)), (3, size_of::<Self>()));
        assert_eq!(this.message_type, 3, "the name is registered");
        let heard = heard();
        let payload = (this.payload_type == 1).then_some(this.payload);
        (heard.strings[this.message - 1].clone(), heard.categories[&this.category].clone(), payload)
    }
}

fn text(raw: *const c_char) -> String {
    // SAFETY: NVTX passes on a C string, for the length of the call.
    unsafe { CStr::from_ptr(raw) }.to_str().unwrap().to_owned()
}

extern "C" fn create_domain(name: *const c_char) -> usize {
    let mut heard = heard();
    heard.domains.push(text(name));
    heard.domains.len()
}

extern "C" fn name_category(domain: usize, category: u32, name: *const c_char) {
    assert_eq!(domain, 1);
    heard().categories.insert(category, text(name));
}

extern "C" fn register_string(domain: usize, string: *const c_char) -> usize {
    assert_eq!(domain, 1);
    let mut heard = heard();
    heard.strings.push(text(string));
    heard.strings.len()
}

extern "C" fn domain_push(domain: usize, attributes: *const Attributes) -> c_int {
    assert_eq!(domain, 1);
    let (name, category, payload) = Attributes::read(attributes);
    tell(Event::Push { name, category, payload });
    0
}

extern "C" fn domain_pop(domain: usize) -> c_int {
    assert_eq!(domain, 1);
    tell(Event::Pop);
    0
}

extern "C" fn domain_mark(domain: usize, attributes: *const Attributes) {
    assert_eq!(domain, 1);
    let (name, category, _) = Attributes::read(attributes);
    tell(Event::Mark { name, category });
}

extern "C" fn name_stream(handle: usize, name: *const c_char) {
    tell(Event::Stream { handle, name: text(name) });
}

extern "C" fn name_thread(id: u32, name: *const c_char) {
    tell(Event::Thread { id, name: text(name) });
}
