//! What an agent tells its peers: how it is reached, and where its pieces are.

use std::collections::BTreeMap;

use wharf::memory::Piece;

use crate::error::Error;
use crate::message::{Reader, Writer};
use crate::region::{Region, RemoteBlock};
use crate::transport::{Place, Segment};

/// Metadata of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// The agent's name.
    pub(crate) name: String,
    /// Tells the agent from others of its name.
    pub(crate) instance: u64,
    /// Counts the changes of the pieces.
    pub(crate) version: u64,
    /// Counts the pieces that have ended. NIXL adds what it loads to what it knows, and keeps the
    /// first key of an address: where this has changed, what it knows is dropped first.
    pub(crate) epoch: u64,
    /// By region, index and generation.
    pub(crate) pieces: BTreeMap<(Region, u32, u32), Segment>,
    /// The transport's part.
    pub(crate) blob: Vec<u8>,
}

impl Metadata {
    /// Where a block lies, if a piece of this metadata holds all of it.
    pub(crate) fn find(&self, block: &RemoteBlock) -> Option<Segment> {
        let it = block.descriptor;
        let piece = self.pieces.get(&(block.region, it.piece, it.generation))?;
        let end = it.offset.checked_add(it.len)?;
        if end > piece.len as u64 {
            return None;
        }
        let len = usize::try_from(it.len).ok()?;
        Some(Segment { address: piece.address.checked_add(it.offset)?, len, place: piece.place })
    }

    pub(crate) fn add(&mut self, region: Region, piece: &Piece, place: Place) {
        let segment = Segment { address: piece.address, len: piece.len, place };
        self.pieces.insert((region, piece.index, piece.generation), segment);
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(MAGIC.to_vec());
        out.wide(self.instance).wide(self.version).wide(self.epoch);
        out.wide(self.name.len() as u64);
        out.rest(self.name.as_bytes()).wide(self.pieces.len() as u64);
        for ((Region(region), index, generation), segment) in &self.pieces {
            let place = match segment.place {
                Place::Host => u32::MAX,
                Place::Device(ordinal) => ordinal,
            };
            out.word(*region).word(*index).word(*generation).word(place);
            out.wide(segment.address).wide(segment.len as u64);
        }
        out.rest(&self.blob);
        sealed(out)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::read(bytes).ok_or(Error::Malformed)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (bytes, sum) = bytes.split_last_chunk()?;
        if digest(bytes) != u64::from_le_bytes(*sum) {
            return None;
        }
        let mut from = Reader(bytes.strip_prefix(MAGIC)?);
        let (instance, version, epoch) = (from.wide()?, from.wide()?, from.wide()?);
        let len = from.wide()?.try_into().ok()?;
        let (name, rest) = from.0.split_at_checked(len)?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        from.0 = rest;
        let mut pieces = BTreeMap::new();
        for _ in 0..from.wide()? {
            let key = (Region(from.word()?), from.word()?, from.word()?);
            let place = from.word()?;
            let place = if place == u32::MAX { Place::Host } else { Place::Device(place) };
            let (address, len) = (from.wide()?, from.wide()?.try_into().ok()?);
            pieces.insert(key, Segment { address, len, place });
        }
        Some(Self { name, instance, version, epoch, pieces, blob: from.rest() })
    }
}

/// Ends bytes with their digest: the transport's part is for NIXL, which does not check what it is
/// given.
fn sealed(mut out: Writer) -> Vec<u8> {
    let sum = digest(&out.0);
    out.wide(sum);
    out.0
}

/// FNV-1a.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const MAGIC: &[u8] = b"wharf-nixl\x01";

#[cfg(test)]
mod tests {
    use wharf::memory::Descriptor;

    use super::*;

    fn sample() -> Metadata {
        let at = |address, place| Segment { address, len: 4096, place };
        let pieces = BTreeMap::from([
            ((Region(0), 2, 1), at(0x1000, Place::Host)),
            ((Region(1), 0, 4), at(u64::MAX - 100, Place::Device(3))),
        ]);
        let (name, blob) = ("decode".to_owned(), vec![7; 100]);
        Metadata { name, instance: 5, version: 9, epoch: 2, pieces, blob }
    }

    #[test]
    fn metadata_survives_the_way_there_and_back() {
        assert_eq!(Metadata::from_bytes(&sample().to_bytes()), Ok(sample()));
    }

    #[test]
    fn metadata_that_is_cut_short_or_changed_never_reaches_the_transport() {
        let bytes = sample().to_bytes();
        for len in 0..bytes.len() {
            assert_eq!(Metadata::from_bytes(&bytes[..len]), Err(Error::Malformed), "{len}");
            let mut changed = bytes.clone();
            changed[len] ^= 1 << (len % 8);
            assert_eq!(Metadata::from_bytes(&changed), Err(Error::Malformed), "{len}");
        }
        // Lengths that no bytes follow: of the name, and of the list of pieces.
        for before in [24, 32] {
            let huge = [MAGIC, &vec![0; before], &[255; 8]].concat();
            assert_eq!(Metadata::from_bytes(&sealed(Writer(huge))), Err(Error::Malformed));
        }
    }

    #[test]
    fn blocks_are_found_by_generation_and_within_their_piece() {
        let find = |region, piece, generation, offset, len| {
            let descriptor = Descriptor { piece, generation, offset, len };
            sample().find(&RemoteBlock { region: Region(region), descriptor })
        };
        let found = find(0, 2, 1, 96, 4000).unwrap();
        assert_eq!((found.address, found.len, found.place), (0x1060, 4000, Place::Host));
        assert_eq!(find(0, 2, 2, 0, 1), None);
        assert_eq!(find(1, 2, 1, 0, 1), None);
        assert_eq!(find(0, 2, 1, 97, 4000), None);
        assert_eq!(find(0, 2, 1, u64::MAX, 2), None);
        assert_eq!(find(1, 0, 4, 200, 1), None, "an address beyond all");
    }
}
