//! The memory resources as the tests see them: how each is made, and bytes through the device.
#![expect(unsafe_code, reason = "commits memory; copies by raw addresses")]

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::ptr;
use std::slice;

use wharf::memory::{
    DeviceMemoryResource, FileMappedMemoryResource, ManagedMemoryResource, MemoryKind,
    MemoryResource, PinnedMemoryResource, PinnedOptions, ResourceReport,
    WriteCombinedMemoryResource,
};
use wharf::{Context, Driver, Error};

use crate::backend::Simulator;

/// A memory resource that a test can make without knowing which it is.
pub(crate) trait Kind: MemoryResource + Sized + 'static {
    const KIND: MemoryKind;

    fn make(context: &Context, size: usize) -> Result<Self, Error>;
    fn report(&self) -> ResourceReport;
    fn close(self) -> Result<(), Error>;
}

macro_rules! kinds {
    ($($name:ident $kind:ident |$context:ident, $size:ident| $make:expr;)+) => {$(
        impl Kind for $name {
            const KIND: MemoryKind = MemoryKind::$kind;

            fn make($context: &Context, $size: usize) -> Result<Self, Error> {
                $make
            }

            fn report(&self) -> ResourceReport {
                self.report()
            }

            fn close(self) -> Result<(), Error> {
                self.close()
            }
        }
    )+};
}

kinds! {
    PinnedMemoryResource Pinned |context, size| Self::new(context, size, PinnedOptions::default());
    WriteCombinedMemoryResource WriteCombined |context, size| Self::new(context, size);
    DeviceMemoryResource Device |context, size| Self::new(context, size);
    ManagedMemoryResource Managed |context, size| Self::new(context, size);
    FileMappedMemoryResource FileMapped
        |context, size| Self::scratch(context, &memory_file(), size);
}

/// A file without a name, in memory.
pub(crate) fn memory_file() -> File {
    // SAFETY: the name is a C string.
    let file = unsafe { libc::memfd_create(c"wharf".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(file >= 0, "{}", io::Error::last_os_error());
    // SAFETY: just opened, and owned by nothing else.
    unsafe { File::from_raw_fd(file) }
}

pub(crate) fn context_of(driver: &Driver) -> Context {
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

/// Commits a range that the test has not committed.
pub(crate) fn commit(
    resource: &impl MemoryResource,
    offset: usize,
    len: usize,
) -> Result<(), Error> {
    // SAFETY: the tests keep to ranges of their own, or see a wrong one refused.
    unsafe { resource.commit(offset, len) }
}

/// Suspends a range that the test has committed.
pub(crate) fn suspend(
    resource: &impl MemoryResource,
    offset: usize,
    len: usize,
) -> Result<(), Error> {
    // SAFETY: as above.
    unsafe { resource.suspend(offset, len) }
}

/// Resumes a range that the test has suspended.
pub(crate) fn resume(
    resource: &impl MemoryResource,
    offset: usize,
    len: usize,
) -> Result<(), Error> {
    // SAFETY: as above.
    unsafe { resource.resume(offset, len) }
}

/// Decommits a range that the test has committed and uses no more.
pub(crate) fn decommit(
    resource: &impl MemoryResource,
    offset: usize,
    len: usize,
) -> Result<(), Error> {
    // SAFETY: as above.
    unsafe { resource.decommit(offset, len) }
}

/// Copies bytes to where the device sees them.
pub(crate) fn write(context: &Context, device: u64, bytes: &[u8]) {
    let _scope = context.enter().unwrap();
    let api = context.driver().api();
    // SAFETY: the tests pass addresses of committed memory, at least so long.
    unsafe { api.memcpy_htod.call(device, bytes.as_ptr().cast(), bytes.len()) }.unwrap();
}

/// Copies bytes from where the device sees them.
pub(crate) fn read(context: &Context, device: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let _scope = context.enter().unwrap();
    let api = context.driver().api();
    // SAFETY: as above.
    unsafe { api.memcpy_dtoh.call(bytes.as_mut_ptr().cast(), device, len) }.unwrap();
    bytes
}

/// What the host reads at an address of memory that it can read.
pub(crate) fn host_bytes(address: u64, len: usize) -> Vec<u8> {
    let start = ptr::with_exposed_provenance::<u8>(usize::try_from(address).unwrap());
    // SAFETY: the tests pass addresses of committed memory of the host, at least so long, which
    // nothing writes meanwhile.
    unsafe { slice::from_raw_parts(start, len) }.to_vec()
}

/// Bytes that differ from seed to seed and from place to place.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    let cycle: Vec<u8> = (0..251).map(|index| seed.wrapping_add(index)).collect();
    let mut bytes = cycle.repeat(len.div_ceil(251));
    bytes.truncate(len);
    bytes
}

/// Every call that gives something has one that takes it back.
pub(crate) fn assert_balanced(machine: &Simulator) {
    let sum = |calls: &[&str]| calls.iter().map(|call| machine.calls(call)).sum::<u64>();
    let pairs: [(&[&str], &[&str]); 6] = [
        (&["cuMemAddressReserve"], &["cuMemAddressFree"]),
        (&["cuMemCreate"], &["cuMemRelease"]),
        (&["cuMemMap"], &["cuMemUnmap"]),
        (&["cuMemHostRegister"], &["cuMemHostUnregister"]),
        (&["cuMemHostAlloc"], &["cuMemFreeHost"]),
        (&["cuMemAlloc", "cuMemAllocManaged"], &["cuMemFree"]),
    ];
    for (takes, gives) in pairs {
        assert_eq!(sum(takes), sum(gives), "{takes:?} and {gives:?}");
    }
}
