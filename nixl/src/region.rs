//! Names of memory between processes.

use wharf::memory::Descriptor;

/// The memory of one [`WiredResource`](wharf::memory::WiredResource), among an agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(pub(crate) u32);

impl Region {
    /// The name of a block of this region for peers.
    pub fn name(self, descriptor: Descriptor) -> RemoteBlock {
        RemoteBlock { region: self, descriptor }
    }
}

/// Names a block of another process.
///
/// Its owner makes it, by [`Region::name`] of an
/// [`Exported`](wharf::pool::Exported) block's descriptor, and sends it by any means. It is a name
/// and no right: the owner admits it, by its generation, when a transfer asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemoteBlock {
    /// Which of the owner's regions.
    pub region: Region,
    /// The block in it.
    pub descriptor: Descriptor,
}

impl RemoteBlock {
    /// The length of the encoded form, in bytes.
    pub const SIZE: usize = 4 + Descriptor::SIZE;

    /// The name as bytes, for a message.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let (region, descriptor) = bytes.split_at_mut(4);
        region.copy_from_slice(&self.region.0.to_le_bytes());
        descriptor.copy_from_slice(&self.descriptor.to_bytes());
        bytes
    }

    /// The name in bytes that [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, descriptor @ ..] = bytes;
        let region = Region(u32::from_le_bytes([a, b, c, d]));
        Self { region, descriptor: Descriptor::from_bytes(descriptor) }
    }
}
