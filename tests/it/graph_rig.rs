#![expect(unsafe_code, reason = "memory by raw address")]
//! Memory, a stream, a gate and owners for tests of graphs.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use wharf::memory::{DeviceMemoryResource, MemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::{Context, Driver, Stream};

use crate::backend::machine;

/// 64-bit cells in pinned memory and as many on the device, and a stream.
pub(crate) struct Cells {
    pub(crate) stream: Stream,
    host: PinnedMemoryResource,
    device: DeviceMemoryResource,
    pub(crate) context: Context,
}

impl Cells {
    pub(crate) fn new(driver: &Driver) -> Self {
        let context = Context::retain(&driver.device(0).unwrap()).unwrap();
        let host = PinnedMemoryResource::new(&context, 1, PinnedOptions::default()).unwrap();
        // SAFETY: the first and only commit.
        unsafe { host.commit(0, host.granularity()) }.unwrap();
        let device = DeviceMemoryResource::new(&context, 1).unwrap();
        // SAFETY: as above.
        unsafe { device.commit(0, device.granularity()) }.unwrap();
        Self { stream: Stream::new(&context).unwrap(), host, device, context }
    }

    pub(crate) fn host(&self) -> *const c_void {
        self.host_at(0)
    }

    pub(crate) fn host_at(&self, offset: usize) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(usize::try_from(self.host.base()).unwrap() + offset)
    }

    pub(crate) fn device(&self) -> u64 {
        self.device.base()
    }

    pub(crate) fn device_of_host(&self, offset: usize) -> u64 {
        self.host.device_address(offset, 8).unwrap()
    }

    pub(crate) fn set(&self, cell: usize, value: u64) {
        // SAFETY: committed memory, which no launch reads at this time.
        unsafe { self.host_at(8 * cell).cast::<u64>().write_volatile(value) }
    }

    pub(crate) fn get(&self, cell: usize) -> u64 {
        // SAFETY: committed memory, which no launch writes at this time.
        unsafe { self.host_at(8 * cell).cast::<u64>().read_volatile() }
    }

    /// Brings the first `size` bytes to the device.
    pub(crate) fn up(&self, size: usize) {
        // SAFETY: the cells live longer than the copy.
        unsafe { self.stream.copy_htod(self.device(), self.host(), size) }.unwrap();
        self.stream.synchronize().unwrap();
    }

    /// Lets the stream wait until the gate is opened.
    pub(crate) fn close_gate(&self) -> Gate {
        Gate::close(&self.stream)
    }
}

/// What a stream waits for.
pub(crate) struct Gate(Sender<()>);

impl Gate {
    pub(crate) fn close(stream: &Stream) -> Self {
        let (open, gate) = channel::<()>();
        stream.add_callback(move |_| _ = gate.recv()).unwrap();
        Self(open)
    }

    pub(crate) fn open(self) {
        self.0.send(()).unwrap();
    }
}

/// A value that tells when it is dropped, and fails if that happens twice.
pub(crate) struct Owner(Arc<AtomicBool>);

/// Whether an [`Owner`] is dropped.
pub(crate) struct Dropped(Arc<AtomicBool>);

impl Owner {
    pub(crate) fn new() -> (Self, Dropped) {
        let dropped = Arc::new(AtomicBool::new(false));
        (Self(Arc::clone(&dropped)), Dropped(dropped))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        assert!(!self.0.swap(true, Ordering::AcqRel));
    }
}

impl Dropped {
    pub(crate) fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Waits for the driver's thread to give the owner up.
pub(crate) fn until_dropped(driver: &Driver, dropped: &Dropped) {
    while !dropped.is() {
        driver.drop_deferred().unwrap();
        thread::yield_now();
    }
}

/// Waits until graphs have given up their shares.
pub(crate) fn until_sole<T>(driver: &Driver, shared: &Arc<T>) {
    while Arc::strong_count(shared) > 1 {
        driver.drop_deferred().unwrap();
        thread::yield_now();
    }
}

/// How many objects of the driver's there are at a time, where that can be asked.
pub(crate) struct Inventory(usize);

impl Inventory {
    pub(crate) fn now() -> Self {
        Self(machine().map_or(0, |machine| machine.leaks().len()))
    }

    /// Waits until there are no more than then: until graphs have given up what they kept alive.
    pub(crate) fn restored(self, driver: &Driver) {
        let more = || machine().is_some_and(|machine| machine.leaks().len() > self.0);
        driver.drop_deferred().unwrap();
        while more() {
            driver.drop_deferred().unwrap();
            thread::yield_now();
        }
    }
}
