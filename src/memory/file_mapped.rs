//! Files in the host's memory.

#![expect(unsafe_code, reason = "vouches for addresses")]

use std::fs::File;

use super::file_span::FileSpan;
use super::registration::{READ_ONLY, READ_WRITE};
use super::span::{OwnedSpan, resource_of_span};
use crate::driver::{Context, DeviceAttribute};
use crate::error::Error;
use crate::profile::range;

/// A file in host memory, which the device reaches where the driver can register it.
///
/// A commit reads a piece of the file in and registers it, at most 256 MiB at once. Where the
/// driver registers no such memory, the host has the piece all the same, and copies from it are
/// copies from pageable memory; [`report`](Self::report) says how much is registered.
///
/// Other processes may change the file or cut it short; a read of a page that is no longer in it
/// raises `SIGBUS`. It may be shared between threads. Dropped, it gives everything back; after an
/// error, or when the context is lost, it leaks what the device may still use, which counts in
/// [`Context::drop_errors`].
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// use wharf::Context;
/// use wharf::memory::{FileMappedMemoryResource, MemoryResource};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let weights = std::fs::File::open("Cargo.toml")?;
/// let resource = FileMappedMemoryResource::read_only(&context, &weights)?;
/// // SAFETY: the range is not committed, and nothing else uses this resource.
/// unsafe { resource.commit(0, resource.size()) }?;
/// assert!(resource.device_address(0, 100).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
#[derive(Debug)]
#[doc(alias = "cuMemHostRegister")]
pub struct FileMappedMemoryResource {
    span: OwnedSpan,
}

impl FileMappedMemoryResource {
    /// Maps a file, such as one of weights, for reading by host and device.
    ///
    /// The span is the file rounded up to whole granules of 2 MiB. Bytes behind
    /// the end of the file read as zero; the device does not reach them.
    ///
    /// # Errors
    ///
    /// * [`Error::System`]: the file cannot be mapped, or not for reading.
    /// * [`Error::Driver`]: the device could not be asked what it can do.
    pub fn read_only(context: &Context, file: &File) -> Result<Self, Error> {
        let _range = range!("memory::file_mapped");
        let device = context.device();
        let registers = device.supports(DeviceAttribute::HOST_REGISTER_SUPPORTED)?
            && device.supports(DeviceAttribute::READ_ONLY_HOST_REGISTER_SUPPORTED)?;
        Ok(Self {
            span: OwnedSpan::new(FileSpan::read_only(
                context,
                file,
                registers.then_some(READ_ONLY),
            )?),
        })
    }

    /// Maps the first `size` bytes of a file, rounded up to whole granules of 2 MiB, as memory: to
    /// be read and written by host and device.
    ///
    /// A file that is shorter is made so long. A commit sets blocks of the file system aside, so
    /// that a full one is an error then and no fault later, and a decommit gives them back, with
    /// what they hold: the file is memory, not a record.
    ///
    /// # Errors
    ///
    /// * [`Error::System`]: the file cannot be made so long, or mapped for reading and writing.
    /// * [`Error::Driver`]: the device could not be asked what it can do.
    pub fn scratch(context: &Context, file: &File, size: usize) -> Result<Self, Error> {
        let _range = range!("memory::file_mapped");
        let registers = context.device().supports(DeviceAttribute::HOST_REGISTER_SUPPORTED)?;
        let flags = registers.then_some(READ_WRITE);
        Ok(Self { span: OwnedSpan::new(FileSpan::scratch(context, file, size, flags)?) })
    }
}

resource_of_span!(
    FileMappedMemoryResource,
    FileMapped,
    "memory::file_mapped::commit",
    "memory::file_mapped::decommit"
);
