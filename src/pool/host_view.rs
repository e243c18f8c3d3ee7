//! Host memory of a buffer, for readers that share it.

#![expect(unsafe_code, reason = "slices of host memory that a view owns; hands out addresses")]

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use wharf_sys::bindings::CUdeviceptr;

use super::buffer::Buffer;
use super::error::HostError;
use crate::address::to_usize;
use crate::element::Element;
use crate::error::Error;
use crate::stream::Stream;

/// The elements of a buffer that the host reaches, to be read by many at once.
///
/// It holds the memory. There may be many, on all threads, and nothing writes the elements while
/// there is one: neither the host, nor a copy or fill of this crate. The device may read them.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// # let stream = wharf::Stream::new(&context)?;
/// use std::time::Duration;
/// use wharf::memory::{PinnedMemoryResource, PinnedOptions};
/// use wharf::pool::{Buffer, Pool};
///
/// let pinned = PinnedMemoryResource::new(&context, 64 << 20, PinnedOptions::default())?;
/// let pool = Pool::builder().build(pinned)?;
/// let logits: Buffer<f32> = pool.alloc(4, &stream)?;
/// logits.fill(0.5, &stream)?;
/// // Waits for the fill.
/// let view = logits.into_host(Duration::from_secs(10)).map_err(|(_, error)| error)?;
/// let reader = std::thread::spawn({
///     let view = view.try_clone().unwrap();
///     move || view.iter().sum::<f32>()
/// });
/// assert_eq!((view.len(), reader.join().unwrap()), (4, 2.0));
/// let mut logits = view.into_buffer().unwrap(); // the last view
/// logits.host_mut(Duration::ZERO)?.fill(0.25);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HostView<T: Element> {
    /// Never given out while there is a view: what writes wants a buffer.
    buffer: Buffer<T>,
}

impl<T: Element> Buffer<T> {
    /// The elements for the host to read, when the device is past all uses; waits for that at most
    /// `limit`.
    ///
    /// # Errors
    ///
    /// As [`host_mut`](Self::host_mut), with the buffer.
    pub fn into_host(mut self, limit: Duration) -> Result<HostView<T>, (Self, HostError)> {
        match self.host_mut(limit).map(drop) {
            Ok(()) => Ok(HostView { buffer: self }),
            Err(error) => Err((self, error)),
        }
    }
}

impl<T: Element> HostView<T> {
    /// The buffer again, if this is the last view; otherwise the view.
    ///
    /// # Errors
    ///
    /// The view: there are others.
    pub fn into_buffer(self) -> Result<Buffer<T>, Self> {
        if self.buffer.record().state.load().handles() == 1 { Ok(self.buffer) } else { Err(self) }
    }

    /// Another view of the same elements; `None` where there are as many as can be counted, 2^28.
    pub fn try_clone(&self) -> Option<Self> {
        self.buffer.slice(..).map(|buffer| Self { buffer })
    }

    /// The device's address of the first element, for work that reads.
    ///
    /// # Errors
    ///
    /// As [`Buffer::as_device_ptr`].
    ///
    /// # Safety
    ///
    /// As [`Buffer::as_device_ptr`], and the work does not write.
    pub unsafe fn as_device_ptr(&self) -> Result<CUdeviceptr, Error> {
        self.buffer.device_address()
    }

    /// As [`Buffer::acquire`].
    ///
    /// # Errors
    ///
    /// As [`Buffer::acquire`].
    pub fn acquire(&self, stream: &Stream) -> Result<(), Error> {
        self.buffer.acquire(stream)
    }

    /// As [`Buffer::record_use`], of work that reads.
    ///
    /// # Errors
    ///
    /// As [`Buffer::record_use`].
    pub fn record_use(&self, stream: &Stream) -> Result<(), Error> {
        self.buffer.record_use(stream)
    }
}

impl<T: Element> Deref for HostView<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let start = std::ptr::with_exposed_provenance(to_usize(self.buffer.host_address()));
        // SAFETY: committed memory that the host reaches, as `host_mut` found, with `len` elements
        // from here on; every pattern of bits is a value. Nothing writes it as long as there is a
        // view: the device was past all uses, and all handles to the block are views.
        unsafe { std::slice::from_raw_parts(start, self.buffer.len()) }
    }
}

impl<T: Element> fmt::Debug for HostView<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostView").field(&self.buffer).finish()
    }
}
