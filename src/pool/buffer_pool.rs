//! The interface of pools, whatever they do behind it.

use std::fmt;

use super::buffer::Buffer;
use super::spec::{BufferSpec, SpecError};
use super::stream_pool::Pool;
use crate::slab::AllocError;
use crate::stream::Stream;

/// Something that hands out buffers by their spec. Object-safe.
///
/// Dropping a buffer is as good as releasing it; `release` is there for pools that keep buffers.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// # let stream = wharf::Stream::new(&context)?;
/// use wharf::memory::{DeviceMemoryResource, MemoryKind};
/// use wharf::pool::{BufferPool, BufferSpec, DType, Pool, SimplePool};
///
/// let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
/// let simple = SimplePool::new(DeviceMemoryResource::new(&context, 1 << 30)?, 10)?;
/// let pools: Vec<Box<dyn BufferPool>> = vec![Box::new(pool), Box::new(simple)];
/// for pool in pools {
///     let spec = BufferSpec::new(&[8, 128], DType::F16, MemoryKind::Device)?;
///     let buffer = pool.allocate(&spec, &stream)?;
///     assert_eq!(buffer.len(), 2048);
///     pool.release(buffer)?;
///     pool.clear();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BufferPool: fmt::Debug + Send + Sync {
    /// Allocates the bytes of a tensor, for use on `stream` first.
    ///
    /// # Errors
    ///
    /// See [`AllocateError`].
    fn allocate(&self, spec: &BufferSpec, stream: &Stream) -> Result<Buffer<u8>, AllocateError>;

    /// Takes a buffer back, to be allocated again.
    ///
    /// # Errors
    ///
    /// [`NotOurs`] with the buffer if it is another pool's.
    fn release(&self, buffer: Buffer<u8>) -> Result<(), NotOurs>;

    /// Gives back what nobody holds and the device is done with.
    fn clear(&self);
}

/// Why a tensor was not allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocateError {
    /// It is no tensor.
    Spec(SpecError),
    /// The pool has another kind of memory, or another device's.
    Place(BufferSpec),
    /// There is no memory, or no room for one more buffer.
    Memory(AllocError),
}

/// A buffer that was given to another pool than its own; nothing was changed.
#[derive(Debug)]
pub struct NotOurs(
    /// The buffer.
    pub Buffer<u8>,
);

impl Pool {
    /// The size of a tensor that this pool can hold.
    pub(super) fn size_of(&self, spec: &BufferSpec) -> Result<usize, AllocateError> {
        let is_here = spec.device.is_none_or(|ordinal| self.ordinal() == Some(ordinal));
        if spec.kind != self.kind() || !is_here {
            return Err(AllocateError::Place(*spec));
        }
        spec.size_bytes().map_err(AllocateError::Spec)
    }
}

impl BufferPool for Pool {
    #[track_caller]
    fn allocate(&self, spec: &BufferSpec, stream: &Stream) -> Result<Buffer<u8>, AllocateError> {
        self.alloc(self.size_of(spec)?, stream).map_err(AllocateError::Memory)
    }

    fn release(&self, buffer: Buffer<u8>) -> Result<(), NotOurs> {
        if self.owns(&buffer) { Ok(()) } else { Err(NotOurs(buffer)) }
    }

    fn clear(&self) {
        self.trim(std::time::Duration::ZERO, 0);
    }
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(error) => error.fmt(f),
            Self::Place(spec) => write!(f, "{spec} asked of a pool of another place"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is another pool's", self.0)
    }
}

impl std::error::Error for AllocateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spec(error) => Some(error),
            Self::Memory(error) => Some(error),
            Self::Place(_) => None,
        }
    }
}

impl std::error::Error for NotOurs {}
