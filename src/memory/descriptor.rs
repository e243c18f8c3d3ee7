//! A range of registered memory as peers name it.

/// Names a range of registered memory to another process.
///
/// A process that gets one from a peer turns it into a [`Lease`](super::Lease) by
/// [`Registrations::admit`](super::Registrations::admit), which refuses one of memory that was
/// decommitted since: by its generation, also where the same addresses are in use again.
///
/// # Examples
///
/// ```
/// use wharf::memory::Descriptor;
///
/// let descriptor = Descriptor { piece: 2, generation: 1, offset: 4096, len: 512 };
/// assert_eq!(Descriptor::from_bytes(descriptor.to_bytes()), descriptor);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// The [index](super::Piece::index) of the piece.
    pub piece: u32,
    /// Its [generation](super::Piece::generation).
    pub generation: u32,
    /// Where the range begins in the piece, in bytes.
    pub offset: u64,
    /// The length of the range, in bytes.
    pub len: u64,
}

impl Descriptor {
    /// The length of the encoded form, in bytes.
    pub const SIZE: usize = 24;

    /// The descriptor as bytes, for a message: its fields in order, least byte first.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.piece.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.generation.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// The descriptor in bytes that [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let word =
            |at: usize| bytes[at..at + 4].iter().rev().fold(0, |n, b| n << 8 | u32::from(*b));
        let wide = |at: usize| u64::from(word(at + 4)) << 32 | u64::from(word(at));
        Self { piece: word(0), generation: word(4), offset: wide(8), len: wide(16) }
    }
}
