//! A pool that holds at most so many buffers.

use std::fmt::Debug;

use super::buffer_pool::{AllocateError, BufferPool, NotOurs};
use super::spec::BufferSpec;
use crate::memory::MemoryResource;
use crate::pool::{Buffer, Pool};
use crate::slab::PoolError;
use crate::stream::Stream;

/// A pool of at most so many buffers, held and kept together.
///
/// A buffer that is released is kept for the next of its size class. When there are as many as
/// there may be, the one that was released first is given up, if the device is past its last use;
/// one that the device still reads is not.
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
///
/// let pool = SimplePool::new(DeviceMemoryResource::new(&context, 1 << 30)?, 1)?;
/// let spec = |len| BufferSpec::new(&[len], DType::F32, MemoryKind::Device);
/// let first = pool.allocate(&spec(1000)?, &stream)?;
/// assert!(pool.allocate(&spec(1000)?, &stream).is_err());
/// pool.release(first)?;
/// // The first one is given up for it.
/// let second = pool.allocate(&spec(100_000)?, &stream)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "SimpleBufferPool")]
pub struct SimplePool(Pool);

impl SimplePool {
    /// A pool of at most `max_buffers`.
    ///
    /// # Errors
    ///
    /// As [`PoolBuilder::build`](crate::pool::PoolBuilder::build).
    pub fn new<R: MemoryResource + Debug + 'static>(
        resource: R,
        max_buffers: usize,
    ) -> Result<Self, PoolError> {
        Pool::builder().max_buffers(max_buffers).build(resource).map(Self)
    }

    /// The pool, with all it can do besides.
    pub fn pool(&self) -> &Pool {
        &self.0
    }
}

impl BufferPool for SimplePool {
    type Buffer = Buffer<u8>;

    #[track_caller]
    fn allocate(&self, spec: &BufferSpec, stream: &Stream) -> Result<Buffer<u8>, AllocateError> {
        self.0.allocate(spec, stream)
    }

    fn release(&self, buffer: Buffer<u8>) -> Result<(), NotOurs> {
        self.0.release(buffer)
    }

    fn clear(&self) {
        self.0.clear();
    }
}
