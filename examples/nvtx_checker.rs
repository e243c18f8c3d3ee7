//! A memory checker's side of NVTX's extension for memory, as a library: it writes down what it is
//! told.
//!
//! ```console
//! $ cargo build --features nvtx --example nvtx_checker
//! $ NVTX_INJECTION64_PATH=target/debug/examples/libnvtx_checker.so NVTX_CHECKER_LOG=log PROGRAM
//! ```
//!
//! | line | |
//! |---|---|
//! | `heap HANDLE ADDRESS SIZE NAME` | memory that may be touched in its regions only |
//! | `no-heap HANDLE` | |
//! | `region HANDLE ADDRESS SIZE` | a part of a heap that is in use |
//! | `no-region ADDRESS` | |
//! | `name ADDRESS NAME` | |
//! | `wrong WHAT` | a description that is not as NVTX's headers say |
#![expect(unsafe_code, reason = "implements a tool's side of NVTX")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The words of a description: all of its fields are read by their offsets in NVTX's headers.
#[derive(Clone, Copy)]
struct Words(*const u8);

impl Words {
    /// The description, if its size and compatibility id are those of the headers.
    fn new(raw: *const c_void, name: &str, size: u16) -> Option<Self> {
        let words = Self(raw.cast());
        let (compat, said) = (words.u16(0), words.u16(2));
        if (compat, said) == (0x0102, size) {
            return Some(words);
        }
        tell(&format!("wrong {name}: compatibility {compat:#x}, size {said}"));
        None
    }

    fn u16(self, offset: usize) -> u16 {
        // SAFETY: the caller of NVTX passed a description that is longer than that.
        unsafe { self.0.wrapping_add(offset).cast::<u16>().read_unaligned() }
    }

    fn u32(self, offset: usize) -> u32 {
        // SAFETY: as above.
        unsafe { self.0.wrapping_add(offset).cast::<u32>().read_unaligned() }
    }

    fn word(self, offset: usize) -> usize {
        // SAFETY: as above.
        unsafe { self.0.wrapping_add(offset).cast::<usize>().read_unaligned() }
    }

    /// What the pointer at an offset points to.
    fn at(self, offset: usize) -> Self {
        // SAFETY: as above.
        Self(unsafe { self.0.wrapping_add(offset).cast::<*const u8>().read_unaligned() })
    }

    fn text(self, offset: usize) -> String {
        let text: *const c_char = self.at(offset).0.cast();
        // SAFETY: the field is of a name, which is a C string.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// Writes a line; where it cannot, the test that reads the file fails.
fn tell(line: &str) {
    static LOG: Mutex<Option<File>> = Mutex::new(None);
    let mut log = LOG.lock().unwrap_or_else(|poison| poison.into_inner());
    if log.is_none() {
        let path = std::env::var_os("NVTX_CHECKER_LOG").unwrap_or_default();
        *log = File::options().create(true).append(true).open(path).ok();
    }
    if let Some(log) = log.as_mut() {
        let _ = log.write_all(format!("{line}\n").as_bytes());
    }
}

/// Says so unless a field is as it must be.
fn expect(what: &str, is: impl Into<u64>, must: u64) {
    let is = is.into();
    if is != must {
        tell(&format!("wrong {what}: {is}, not {must}"));
    }
}

/// What NVTX, or a client of the extension, calls first: the functions are put into its table.
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjectionNvtxExtension(module: *const c_void) -> c_int {
    let module = Words(module.cast());
    expect("version of NVTX", module.u16(0), 3);
    expect("size of the module", module.u16(2), 40);
    if (module.u16(4), module.u16(6)) != (1, 0x0102) {
        return 0; // another extension
    }
    expect("segments", module.word(8) as u64, 1);
    let segment = module.at(16);
    expect("slots", segment.word(8) as u64, 63);
    let slots: *mut usize = segment.at(16).0.cast_mut().cast();
    let functions: [(usize, *const c_void); 5] = [
        (0, register_heap as *const c_void),
        (1, unregister_heap as *const c_void),
        (3, register_regions as *const c_void),
        (5, unregister_regions as *const c_void),
        (6, name_regions as *const c_void),
    ];
    for (number, function) in functions {
        // SAFETY: the table has 63 slots, which the client lets the tool write.
        unsafe { slots.wrapping_add(number).write(function.addr()) };
    }
    1
}

extern "C" fn register_heap(_domain: *const c_void, heap: *const c_void) -> usize {
    static HANDLES: AtomicUsize = AtomicUsize::new(1);
    let Some(heap) = Words::new(heap, "heap", 48) else { return 0 };
    expect("usage of a heap", heap.u32(8), 1);
    expect("memory of a heap", heap.u32(12), 1);
    expect("size of a heap's range", heap.word(16) as u64, 16);
    expect("type of a heap's name", heap.u32(36), 1);
    let (range, handle) = (heap.at(24), HANDLES.fetch_add(1, Ordering::Relaxed));
    tell(&format!("heap {handle} {} {} {}", range.word(8), range.word(0), heap.text(40)));
    handle
}

extern "C" fn unregister_heap(_domain: *const c_void, handle: usize) {
    tell(&format!("no-heap {handle}"));
}

extern "C" fn register_regions(_domain: *const c_void, regions: *const c_void) {
    let Some(regions) = Words::new(regions, "regions", 48) else { return };
    expect("memory of regions", regions.u32(4), 1);
    expect("size of a region's range", regions.word(24) as u64, 16);
    let ranges = regions.at(32);
    for number in 0..regions.word(16) {
        let (size, address) = (ranges.word(16 * number), ranges.word(16 * number + 8));
        tell(&format!("region {} {address} {size}", regions.word(8)));
    }
}

extern "C" fn unregister_regions(_domain: *const c_void, regions: *const c_void) {
    let Some(regions) = Words::new(regions, "ended regions", 32) else { return };
    expect("reference to ended regions", regions.u32(4), 1);
    expect("size of a reference", regions.word(16) as u64, 8);
    let addresses = regions.at(24);
    for number in 0..regions.word(8) {
        tell(&format!("no-region {}", addresses.word(8 * number)));
    }
}

extern "C" fn name_regions(_domain: *const c_void, names: *const c_void) {
    let Some(names) = Words::new(names, "names", 40) else { return };
    expect("size of a name", names.word(16) as u64, 32);
    let elements = names.at(24);
    for number in 0..names.word(8) {
        let name = Words(elements.0.wrapping_add(32 * number));
        expect("reference to a named region", name.u32(0), 1);
        expect("type of a region's name", name.u32(4), 1);
        tell(&format!("name {} {}", name.word(8), name.text(16)));
    }
}
