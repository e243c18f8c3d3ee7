//! What agents say to each other, as NIXL's notifications.
//!
//! ```text
//!   asker                              owner
//!     Ask      blocks by generation  ->           admits each: a lease
//!                                    <-  Granted  and metadata, if the asker's is old
//!     the transport moves the bytes  ->
//!     Done     with the last byte    ->           ends the leases
//!     or: Refused <-                     Cancel: granted, and never begun
//! ```

use wharf::memory::LeaseError;

use crate::error::Refusal;
use crate::region::RemoteBlock;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The sender's metadata, for answers.
    Hello { metadata: Vec<u8> },
    /// Asks for leases. `known` is the version of the owner's metadata that the asker has.
    Ask { id: u64, known: u64, blocks: Vec<RemoteBlock> },
    /// All blocks are leased. Metadata of at least `version` names them; it is empty if the asker
    /// has it.
    Granted { id: u64, version: u64, metadata: Vec<u8> },
    /// No block is leased.
    Refused { id: u64, index: u32, reason: Refusal },
    /// All bytes are there.
    Done { id: u64, text: Vec<u8> },
    /// The transfer never began.
    Cancel { id: u64 },
    /// Bytes of the program's.
    Text { text: Vec<u8> },
}

impl Message {
    /// The message of an agent, whose instance goes with it.
    pub(crate) fn to_bytes(&self, instance: u64) -> Vec<u8> {
        let mut out = Writer(MAGIC.to_vec());
        out.wide(instance);
        match self {
            Self::Hello { metadata } => out.tag(0).rest(metadata),
            Self::Ask { id, known, blocks } => {
                out.tag(1).wide(*id).wide(*known);
                blocks.iter().for_each(|block| _ = out.rest(&block.to_bytes()));
                &mut out
            }
            Self::Granted { id, version, metadata } => {
                out.tag(2).wide(*id).wide(*version).rest(metadata)
            }
            Self::Refused { id, index, reason } => {
                let words = of_refusal(*reason);
                words.iter().fold(out.tag(3).wide(*id).word(*index), |out, word| out.wide(*word))
            }
            Self::Done { id, text } => out.tag(4).wide(*id).rest(text),
            Self::Cancel { id } => out.tag(5).wide(*id),
            Self::Text { text } => out.tag(6).rest(text),
        };
        out.0
    }

    /// The sender's instance, and the message; `None` for bytes that `to_bytes` has not made.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<(u64, Self)> {
        let mut from = Reader(bytes.strip_prefix(MAGIC)?);
        Some((from.wide()?, Self::read(from)?))
    }

    fn read(mut from: Reader<'_>) -> Option<Self> {
        Some(match from.tag()? {
            0 => Self::Hello { metadata: from.rest() },
            1 => {
                let (id, known) = (from.wide()?, from.wide()?);
                let chunks = from.0.chunks(RemoteBlock::SIZE);
                let blocks = chunks.map(|chunk| chunk.try_into().ok().map(RemoteBlock::from_bytes));
                Self::Ask { id, known, blocks: blocks.collect::<Option<_>>()? }
            }
            2 => Self::Granted { id: from.wide()?, version: from.wide()?, metadata: from.rest() },
            3 => {
                let (id, index) = (from.wide()?, from.word()?);
                let words = [from.wide()?, from.wide()?, from.wide()?, from.wide()?];
                Self::Refused { id, index, reason: to_refusal(words)? }
            }
            4 => Self::Done { id: from.wide()?, text: from.rest() },
            5 => Self::Cancel { id: from.wide()? },
            6 => Self::Text { text: from.rest() },
            _ => return None,
        })
    }
}

fn of_refusal(reason: Refusal) -> [u64; 4] {
    match reason {
        Refusal::NoRegion { region } => [0, region.into(), 0, 0],
        Refusal::Lease(LeaseError::Stale { piece, generation, current }) => {
            [1, piece.into(), generation.into(), current.into()]
        }
        Refusal::Lease(LeaseError::OutOfPiece { offset, len, size }) => {
            [2, offset, len, size as u64]
        }
        Refusal::Lease(LeaseError::TooMany { piece }) => [3, piece.into(), 0, 0],
        Refusal::Lease(LeaseError::NotRegistered { address }) => [4, address, 0, 0],
        // Errors of a later version of the library.
        Refusal::Lease(_) => [4, 0, 0, 0],
    }
}

fn to_refusal([kind, a, b, c]: [u64; 4]) -> Option<Refusal> {
    let word = |wide: u64| u32::try_from(wide).ok();
    Some(Refusal::Lease(match kind {
        0 => return Some(Refusal::NoRegion { region: word(a)? }),
        1 => LeaseError::Stale { piece: word(a)?, generation: word(b)?, current: word(c)? },
        2 => LeaseError::OutOfPiece { offset: a, len: b, size: c.try_into().ok()? },
        3 => LeaseError::TooMany { piece: word(a)? },
        4 => LeaseError::NotRegistered { address: a },
        _ => return None,
    }))
}

/// Numbers, least byte first.
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn tag(&mut self, tag: u8) -> &mut Self {
        self.rest(&[tag])
    }

    pub(crate) fn word(&mut self, word: u32) -> &mut Self {
        self.rest(&word.to_le_bytes())
    }

    pub(crate) fn wide(&mut self, wide: u64) -> &mut Self {
        self.rest(&wide.to_le_bytes())
    }

    pub(crate) fn rest(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// What a [`Writer`] wrote; `None` where it ends too early.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn tag(&mut self) -> Option<u8> {
        self.bytes().map(|[tag]| tag)
    }

    pub(crate) fn word(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(crate) fn wide(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }
}

/// No other program's notifications begin so.
const MAGIC: &[u8] = b"wharf\x01";

#[cfg(test)]
mod tests {
    use wharf::memory::Descriptor;

    use super::*;
    use crate::region::Region;

    #[test]
    fn messages_survive_the_way_there_and_back() {
        let descriptor = Descriptor { piece: 3, generation: 9, offset: 1 << 40, len: 77 };
        let block = RemoteBlock { region: Region(5), descriptor };
        let stale = LeaseError::Stale { piece: 1, generation: 2, current: 3 };
        let out = LeaseError::OutOfPiece { offset: u64::MAX, len: 5, size: 6 };
        let refused = |reason| Message::Refused { id: 7, index: 1, reason };
        for message in [
            Message::Hello { metadata: vec![1, 2] },
            Message::Ask { id: u64::MAX, known: 4, blocks: vec![block; 3] },
            Message::Ask { id: 0, known: 0, blocks: vec![] },
            Message::Granted { id: 1, version: 2, metadata: vec![] },
            refused(Refusal::NoRegion { region: 8 }),
            refused(Refusal::Lease(stale)),
            refused(Refusal::Lease(out)),
            refused(Refusal::Lease(LeaseError::TooMany { piece: 6 })),
            refused(Refusal::Lease(LeaseError::NotRegistered { address: 1 << 63 })),
            Message::Done { id: 5, text: b"kv".to_vec() },
            Message::Cancel { id: 5 },
            Message::Text { text: vec![] },
        ] {
            assert_eq!(Message::from_bytes(&message.to_bytes(8)), Some((8, message)));
        }
    }

    /// No bytes that a peer sends do more than be refused.
    #[test]
    fn bytes_that_are_cut_short_or_foreign_are_no_message() {
        let descriptor = Descriptor { piece: 3, generation: 9, offset: 0, len: 77 };
        let blocks = vec![RemoteBlock { region: Region(5), descriptor }; 2];
        let ask = Message::Ask { id: 1, known: 2, blocks }.to_bytes(8);
        let whole = |len: usize| {
            let head = MAGIC.len() + 8 + 1 + 16;
            len >= head && (len - head).is_multiple_of(RemoteBlock::SIZE)
        };
        for len in 0..ask.len() {
            assert_eq!(Message::from_bytes(&ask[..len]).is_some(), whole(len), "{len}");
        }
        for tag in 7..=u8::MAX {
            assert_eq!(Message::from_bytes(&[MAGIC, &[tag; 64]].concat()), None);
        }
        assert_eq!(Message::from_bytes(b"kv"), None);
        let kind = [MAGIC, &[0; 8], &[3], &[0; 12], &[9; 32]].concat();
        assert_eq!(Message::from_bytes(&kind), None);
    }
}
