//! What a transport is told of a resource's memory.

use std::sync::Arc;

use super::MemoryKind;
use crate::error::Error;

/// A transport that registers memory before it moves bytes of it: NIXL, UCX, NCCL, an RDMA card.
///
/// A [`WiredResource`](super::WiredResource) calls it for each piece that it commits and
/// decommits, on the thread that does so: with the memory's context current, so that a transport
/// which asks for it finds it, and with that thread's stream captures relaxed.
///
/// The pool waits for the call, and so do its other threads that need more memory. A call that
/// panics counts as one that refuses. It may ask [`Registrations`](super::Registrations); a call of
/// the pool itself that would have to commit or decommit is refused, since it would wait for
/// itself.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use wharf::Error;
/// use wharf::memory::{
///     DeviceMemoryResource, MemoryResource, Piece, Wire, WiredResource,
/// };
/// use wharf::slab::{PoolOptions, SlabPool};
///
/// /// Counts what a transport would register.
/// #[derive(Debug, Default)]
/// struct Counter(AtomicUsize);
///
/// impl Wire for Counter {
///     type Key = u64;
///
///     fn attach(&self, piece: &Piece) -> Result<u64, Error> {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         Ok(piece.address)
///     }
///
///     fn detach(&self, piece: &Piece, key: u64) -> Result<(), Error> {
///         assert_eq!(piece.address, key);
///         self.0.fetch_sub(1, Ordering::Relaxed);
///         Ok(())
///     }
/// }
///
/// let memory = DeviceMemoryResource::new(&context, 1 << 30)?;
/// let memory = WiredResource::new(memory, Counter::default());
/// let pool = SlabPool::new(memory, PoolOptions::default())?;
/// let block = pool.alloc(3 << 20)?;
/// assert_eq!(pool.upstream().wire().0.load(Ordering::Relaxed), 1);
/// let registrations = pool.upstream().registrations().ok_or("no transport")?;
/// let lease = registrations.lease(block.address(), 3 << 20)?;
/// // A transfer takes place; a trim does not take the memory away.
/// pool.dealloc(block)?;
/// assert_eq!(pool.trim(std::time::Duration::ZERO, 0).released, 0);
/// drop(lease);
/// assert!(pool.trim(std::time::Duration::ZERO, 0).released > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Wire: Send + Sync {
    /// What the transport knows a registration by.
    type Key: Send;

    /// Registers a piece that was committed.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`], or another: the commit is undone, and returns the error.
    fn attach(&self, piece: &Piece) -> Result<Self::Key, Error>;

    /// Ends the registration of a piece that is about to be decommitted.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`], or another: the piece is lost. It stays committed for ever and its
    /// addresses are not used again, since the transport may still use them.
    fn detach(&self, piece: &Piece, key: Self::Key) -> Result<(), Error>;
}

/// One transport for several resources.
impl<W: Wire> Wire for Arc<W> {
    type Key = W::Key;

    fn attach(&self, piece: &Piece) -> Result<Self::Key, Error> {
        W::attach(self, piece)
    }

    fn detach(&self, piece: &Piece, key: Self::Key) -> Result<(), Error> {
        W::detach(self, piece, key)
    }
}

/// No transport: pieces are known by generation, and leased. For memory that other processes map,
/// see [`ShareableHandle`](super::ShareableHandle).
impl Wire for () {
    type Key = ();

    fn attach(&self, _piece: &Piece) -> Result<(), Error> {
        Ok(())
    }

    fn detach(&self, _piece: &Piece, (): ()) -> Result<(), Error> {
        Ok(())
    }
}

/// A range of memory that was committed by one call, and is registered by one.
///
/// Two pieces with the same index and generation, of one resource, are the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Piece {
    /// Where it begins in its resource, in granules of the resource.
    pub index: u32,
    /// How often a piece began there so far: from 1 on.
    pub generation: u32,
    /// Its first address.
    pub address: u64,
    /// Its length in bytes.
    pub len: usize,
    /// The kind of memory.
    pub kind: MemoryKind,
    /// The device whose memory it is, or that it is registered with.
    pub ordinal: Option<i32>,
}
