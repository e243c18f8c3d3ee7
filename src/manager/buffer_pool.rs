//! The interface of pools, whatever they do behind it.

use std::fmt;
use std::time::Duration;

use super::spec::{BufferSpec, SpecError};
use crate::memory::{MemoryKind, MemoryResource};
use crate::pool::{Buffer, Pool};
use crate::slab::{AllocError, Block, SlabPool, WrongPool};
use crate::stream::Stream;
use crate::tier::{Tier, TierError, TieredObject, TieredPool};

/// A pool that allocates memory by its spec. Object-safe for each kind of handle.
///
/// * [`Pool`] returns a [`Buffer`], reused in the order of streams, of the pool's kind of memory.
/// * [`SimplePool`](super::SimplePool) returns the same, of which it limits the number.
/// * [`TieredPool`] returns a [`TieredObject`], which has an address while it is pinned, and is at
///   first in the tier of the spec's kind of memory.
/// * [`SlabPool`] returns a [`Block`], which is reused at once: the caller releases it when the
///   device is done with it. It is of the pool's kind of memory.
///
/// Dropping a buffer or an object is as good as releasing it; a block has to be released.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// # let stream = wharf::Stream::new(&context)?;
/// use wharf::element::DType;
/// use wharf::manager::{BufferPool, BufferSpec, SimplePool};
/// use wharf::memory::{DeviceMemoryResource, MemoryKind};
/// use wharf::pool::{Buffer, Pool};
///
/// let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
/// let simple = SimplePool::new(DeviceMemoryResource::new(&context, 1 << 30)?, 10)?;
/// type Pools = Vec<Box<dyn BufferPool<Buffer = Buffer<u8>>>>;
/// let pools: Pools = vec![Box::new(pool), Box::new(simple)];
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
    /// What stands for the memory.
    type Buffer;

    /// Allocates the bytes of a tensor, for use on `stream` first.
    ///
    /// # Errors
    ///
    /// See [`AllocateError`].
    fn allocate(&self, spec: &BufferSpec, stream: &Stream) -> Result<Self::Buffer, AllocateError>;

    /// Takes memory back, to be allocated again.
    ///
    /// # Errors
    ///
    /// [`NotOurs`] with the buffer if it is another pool's.
    fn release(&self, buffer: Self::Buffer) -> Result<(), NotOurs<Self::Buffer>>;

    /// Frees buffers without a handle that the device is done with.
    fn clear(&self);
}

/// Why a tensor was not allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocateError {
    /// The spec is invalid, for example because its size overflows.
    Spec(SpecError),
    /// The pool has another kind of memory, or another device's.
    Place(BufferSpec),
    /// There is no memory, or no room for one more buffer.
    Memory(AllocError),
    /// There is no object, or no room in its tier.
    Tier(TierError),
}

/// A buffer that was given to another pool than its own; nothing was changed.
#[derive(Debug)]
pub struct NotOurs<B = Buffer<u8>>(
    /// The buffer.
    pub B,
);

/// The size of a tensor, if it is to be in this kind of memory of this device.
fn size_here(
    spec: &BufferSpec,
    kind: MemoryKind,
    ordinal: Option<i32>,
) -> Result<usize, AllocateError> {
    let is_here = spec.device.is_none_or(|wanted| ordinal == Some(wanted));
    if spec.kind != kind || !is_here {
        return Err(AllocateError::Place(*spec));
    }
    spec.size_bytes().map_err(AllocateError::Spec)
}

impl BufferPool for Pool {
    type Buffer = Buffer<u8>;

    #[track_caller]
    fn allocate(&self, spec: &BufferSpec, stream: &Stream) -> Result<Buffer<u8>, AllocateError> {
        self.alloc(size_here(spec, self.kind(), self.ordinal())?, stream)
            .map_err(AllocateError::Memory)
    }

    fn release(&self, buffer: Buffer<u8>) -> Result<(), NotOurs> {
        if self.owns(&buffer) { Ok(()) } else { Err(NotOurs(buffer)) }
    }

    fn clear(&self) {
        self.trim(Duration::ZERO, 0);
    }
}

/// Slabs know no streams: `stream` is of no consequence.
impl<R: MemoryResource + fmt::Debug + 'static> BufferPool for SlabPool<R> {
    type Buffer = Block;

    fn allocate(&self, spec: &BufferSpec, _stream: &Stream) -> Result<Block, AllocateError> {
        let size = size_here(spec, self.upstream().kind(), self.upstream().ordinal())?;
        self.alloc(size).map_err(AllocateError::Memory)
    }

    fn release(&self, block: Block) -> Result<(), NotOurs<Block>> {
        self.dealloc(block).map_err(|WrongPool(block)| NotOurs(block))
    }

    fn clear(&self) {
        self.trim(Duration::ZERO, 0);
    }
}

/// The stream is of no consequence: an object is pinned for one later.
impl BufferPool for TieredPool {
    type Buffer = TieredObject;

    fn allocate(&self, spec: &BufferSpec, _stream: &Stream) -> Result<TieredObject, AllocateError> {
        let tier = match spec.kind {
            MemoryKind::Device => Tier::Device,
            MemoryKind::Managed => Tier::Managed,
            MemoryKind::Pinned => Tier::Pinned,
            MemoryKind::FileMapped => Tier::FileMapped,
            _ => return Err(AllocateError::Place(*spec)),
        };
        let size = size_here(spec, spec.kind, Some(self.context().device().ordinal()))?;
        self.alloc(size, tier).map_err(AllocateError::Tier)
    }

    fn release(&self, object: TieredObject) -> Result<(), NotOurs<TieredObject>> {
        if self.owns(&object) { Ok(()) } else { Err(NotOurs(object)) }
    }

    /// What the driver refuses stays, and the next call that asks it is told.
    fn clear(&self) {
        let _settled = self.trim();
    }
}

impl fmt::Display for AllocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(error) => error.fmt(f),
            Self::Place(spec) => {
                write!(f, "{spec} does not match this pool's memory kind or device")
            }
            Self::Memory(error) => error.fmt(f),
            Self::Tier(error) => error.fmt(f),
        }
    }
}

impl<B: fmt::Debug> fmt::Display for NotOurs<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is another pool's", self.0)
    }
}

impl std::error::Error for AllocateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Spec(error) => Some(error),
            Self::Memory(error) => Some(error),
            Self::Tier(error) => Some(error),
            Self::Place(_) => None,
        }
    }
}

impl<B: fmt::Debug> std::error::Error for NotOurs<B> {}
