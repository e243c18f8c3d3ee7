//! Blocks that peers use: kept from reuse until a transfer is known to be over.

use super::buffer::Buffer;
use super::stream_pool::Pool;
use crate::element::Element;
use crate::memory::{Descriptor, Lease, LeaseError, Piece, Registrations};

impl Pool {
    /// The pieces of the pool's memory that a transport has registered; `None` if the pool's
    /// resource is no [`WiredResource`](crate::memory::WiredResource).
    pub fn registrations(&self) -> Option<Registrations> {
        self.core.upstream.resource().registrations()
    }
}

impl<T: Element> Buffer<T> {
    /// Hands the elements to a transport: neither is the block reused nor its memory decommitted
    /// before [`Exported::complete`], whatever becomes of this handle.
    ///
    /// It is a use that no stream knows. Before a peer reads, the device has to be past what wrote
    /// the elements: [`wait`](Self::wait) for that. Work that reads what a peer wrote is submitted
    /// after `complete`.
    ///
    /// # Errors
    ///
    /// * [`LeaseError::NotRegistered`]: the pool's memory is not registered with a transport.
    /// * [`LeaseError::OutOfPiece`]: the pool was told not to keep blocks in one piece.
    /// * [`LeaseError::TooMany`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// # use wharf::memory::{DeviceMemoryResource, WiredResource};
    /// # use wharf::pool::{Buffer, Pool};
    /// # use wharf::Stream;
    /// # let transport = ();
    /// let memory = WiredResource::new(DeviceMemoryResource::new(&context, 1 << 30)?, transport);
    /// let pool = Pool::builder().build(memory)?;
    /// let stream = Stream::new(&context)?;
    /// let block: Buffer<f32> = pool.alloc(1024, &stream)?;
    /// block.fill(1.0, &stream)?;
    /// block.wait(std::time::Duration::from_secs(1))?;
    /// let exported = block.export()?;
    /// let message = exported.descriptor().to_bytes();
    /// // A peer gets the message, reads the block, and says that it has.
    /// # assert_eq!(message.len(), 24);
    /// exported.complete();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn export(&self) -> Result<Exported, LeaseError> {
        let address = self.host_address();
        let registrations = self
            .core()
            .upstream
            .resource()
            .registrations()
            .ok_or(LeaseError::NotRegistered { address })?;
        let lease = registrations.lease(address, self.size())?;
        let (descriptor, piece) = (lease.descriptor(), lease.piece());
        let too_many = LeaseError::TooMany { piece: piece.index };
        let block = self.slice(..).and_then(|shared| shared.cast().ok()).ok_or(too_many)?;
        Ok(Exported { descriptor, piece, address, lease: Some(lease), block })
    }
}

/// Elements of a [`Buffer`] that a transport uses.
///
/// Dropped without [`complete`](Self::complete), it leaks the block, and the registration with it:
/// a transfer that is not known to be over may still write. That counts in
/// [`ReclaimStats::leaked`](super::ReclaimStats::leaked).
#[derive(Debug)]
#[must_use = "the block is leaked if the transfer is not completed"]
pub struct Exported {
    descriptor: Descriptor,
    piece: Piece,
    address: u64,
    /// `None` when the transfer is over.
    lease: Option<Lease>,
    block: Buffer<u8>,
}

impl Exported {
    /// The transfer is over: the block is its owners' again, or free if they are gone.
    pub fn complete(mut self) {
        drop(self.lease.take());
    }

    /// What names the elements to a peer.
    pub fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    /// The registered memory that the elements lie in.
    pub fn piece(&self) -> Piece {
        self.piece
    }

    /// The address of the first element: the host's for memory that the host reaches.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The size of the elements, in bytes.
    pub fn size(&self) -> usize {
        self.block.size()
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.leak();
            self.block.core().lose(self.block.record());
        }
    }
}
