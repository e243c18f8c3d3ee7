#![expect(unsafe_code, reason = "the dynamic linker is a C interface")]
//! Opens a driver library and asks it for the rows of the table.
//!
//! A row is looked for in three places, the first that knows it wins:
//! `cuGetProcAddress_v2` (CUDA 12), `cuGetProcAddress` (CUDA 11.3), and the exported symbol,
//! whose name carries the version. A library that has given its table stays open for the life of
//! the process: a driver keeps threads and exit handlers, which outlive every table.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::ManuallyDrop;
use core::ptr;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::bindings::{
    CUresult, PFN_cuDriverGetVersion_v2020, PFN_cuGetProcAddress_v11030,
    PFN_cuGetProcAddress_v12000,
};
use crate::entry::Signature;
use crate::load_error::LoadError;
use crate::table::{Api, Row};

/// The oldest driver that has every required row, as 1000 * major + 10 * minor.
pub const OLDEST_VERSION: u32 = 11_040;

/// The environment variable that names the driver library. Ignored in programs that run
/// with more rights than their caller (see `secure_getenv(3)`).
pub const LIBRARY_VARIABLE: &CStr = c"WHARF_LIBCUDA";

impl Api {
    /// Loads the driver: the library that `WHARF_LIBCUDA` names, or `libcuda.so.1`, or
    /// `libcuda.so`.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Library`]: none of them can be opened.
    /// * [`LoadError::NotCuda`], [`LoadError::TooOld`], [`LoadError::Missing`]: one was opened
    ///   and cannot be used.
    ///
    /// # References
    ///
    /// [Driver entry point
    /// access](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DRIVER__ENTRY__POINT.html)
    pub fn load() -> Result<Self, LoadError> {
        if let Some(path) = environment(LIBRARY_VARIABLE) {
            return Self::load_from(Path::new(&path));
        }
        Library::open(OsStr::new("libcuda.so.1"))
            .or_else(|error| Library::open(OsStr::new("libcuda.so")).map_err(|_| error))
            .and_then(Self::from_library)
    }

    /// Loads the driver from the library at `path`.
    ///
    /// # Errors
    ///
    /// As [`Api::load`].
    pub fn load_from(path: &Path) -> Result<Self, LoadError> {
        Library::open(path.as_os_str()).and_then(Self::from_library)
    }

    /// Builds the table from `resolve`, which is asked for every row and returns null for
    /// what it does not have.
    ///
    /// # Errors
    ///
    /// [`LoadError::Missing`]: `resolve` has no address for a required row.
    ///
    /// # Safety
    ///
    /// * What `resolve` returns for a row is null or a function with the signature that the
    ///   row's name and version have in NVIDIA's `cudaTypedefs.h`.
    /// * The functions stay callable as long as the table.
    pub unsafe fn from_fns(resolve: impl FnMut(&Row) -> *mut c_void) -> Result<Self, LoadError> {
        // SAFETY: the caller's promise is the callee's precondition.
        unsafe { Self::resolve(resolve) }
    }

    fn from_library(library: Library) -> Result<Self, LoadError> {
        let found = library.version()?;
        if found < OLDEST_VERSION {
            return Err(LoadError::TooOld { found, needed: OLDEST_VERSION });
        }
        let resolver = Resolver::new(&library);
        let addresses: Vec<_> =
            crate::table::ROWS.iter().map(|row| resolver.address(&library, row)).collect();
        let mut addresses = addresses.into_iter();
        // SAFETY: the addresses are in the order of the rows, each from the library's answer to
        // its row's name and version, and the library stays open once the table is there.
        let table = unsafe { Self::resolve(|_| addresses.next().unwrap_or(ptr::null_mut())) }?;
        let _open_for_ever = ManuallyDrop::new(library);
        Ok(table)
    }
}

/// An open shared library, closed on drop.
struct Library {
    handle: *mut c_void,
    name: OsString,
}

impl Library {
    fn open(name: &OsStr) -> Result<Self, LoadError> {
        let failed = |source: Box<dyn core::error::Error + Send + Sync>| LoadError::Library {
            name: name.to_owned(),
            source,
        };
        let path = CString::new(name.as_bytes()).map_err(|error| failed(error.into()))?;
        // SAFETY: `path` is a C string. Initialisers of the library run here, as with any
        // load; that it is a trusted library is the caller's choice of name.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(failed(last_error().into()));
        }
        Ok(Self { handle, name: name.to_owned() })
    }

    /// The address of an exported symbol, or null.
    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the handle is open and `name` is a C string.
        unsafe { libc::dlsym(self.handle, name.as_ptr()) }
    }

    fn version(&self) -> Result<u32, LoadError> {
        let symbol = "cuDriverGetVersion";
        let not_cuda = || LoadError::NotCuda { name: self.name.clone(), symbol };
        let address = self.symbol(c"cuDriverGetVersion");
        // SAFETY: null, or what a library exports under this name: the driver's function.
        let function =
            unsafe { PFN_cuDriverGetVersion_v2020::from_address(address) }.ok_or_else(not_cuda)?;
        let mut version: c_int = 0;
        // SAFETY: a library that exports this name is a CUDA driver; `version` outlives the
        // call. The reference allows it before cuInit.
        let result = unsafe { function(&raw mut version) };
        if result != CUresult::CUDA_SUCCESS {
            return Err(not_cuda());
        }
        u32::try_from(version).map_err(|_| not_cuda())
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: opened once in `open`, closed once here, and no table was made of it: only its
        // version was asked for, before cuInit.
        unsafe { libc::dlclose(self.handle) };
    }
}

/// The driver's own look-up, in the newest form it has.
struct Resolver {
    newest: PFN_cuGetProcAddress_v12000,
    first: PFN_cuGetProcAddress_v11030,
}

impl Resolver {
    fn new(library: &Library) -> Self {
        let (newest, first) =
            (library.symbol(c"cuGetProcAddress_v2"), library.symbol(c"cuGetProcAddress"));
        Self {
            // SAFETY: null, or what a CUDA driver exports under the name of this signature.
            newest: unsafe { Signature::from_address(newest) },
            // SAFETY: as above, for CUDA 11.3.
            first: unsafe { Signature::from_address(first) },
        }
    }

    fn address(&self, library: &Library, row: &Row) -> *mut c_void {
        let (Ok(name), Ok(symbol)) = (CString::new(row.name), CString::new(row.symbol)) else {
            return ptr::null_mut();
        };
        let asked = self.ask(&name, row.version);
        if asked.is_null() { library.symbol(&symbol) } else { asked }
    }

    fn ask(&self, name: &CStr, version: u32) -> *mut c_void {
        let mut address = ptr::null_mut();
        let Ok(version) = c_int::try_from(version) else { return address };
        let result = if let Some(newest) = self.newest {
            // SAFETY: `name` is a C string and `address` outlives the call; the status
            // pointer may be null (cuGetProcAddress: "symbolStatus - Optional").
            unsafe { newest(name.as_ptr(), &raw mut address, version, 0, ptr::null_mut()) }
        } else if let Some(first) = self.first {
            // SAFETY: `name` is a C string and `address` outlives the call.
            unsafe { first(name.as_ptr(), &raw mut address, version, 0) }
        } else {
            return address;
        };
        if result == CUresult::CUDA_SUCCESS { address } else { ptr::null_mut() }
    }
}

/// The last error of the dynamic linker on this thread.
fn last_error() -> String {
    // SAFETY: no precondition; null when there was no error.
    let message = unsafe { libc::dlerror() };
    owned(message)
        .map_or_else(|| "unknown error".to_owned(), |text| text.to_string_lossy().into_owned())
}

/// A variable of the environment, unless the program runs with raised rights.
fn environment(name: &CStr) -> Option<OsString> {
    unsafe extern "C" {
        /// `secure_getenv(3)`, which the crate libc does not declare.
        fn secure_getenv(name: *const c_char) -> *mut c_char;
    }
    // SAFETY: `name` is a C string; the result is read at once.
    let value = unsafe { secure_getenv(name.as_ptr()) };
    owned(value).filter(|value| !value.is_empty())
}

fn owned(text: *const c_char) -> Option<OsString> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and both callers pass what libc returned as a C string.
    let text = unsafe { CStr::from_ptr(text) };
    Some(OsStr::from_bytes(text.to_bytes()).to_owned())
}
