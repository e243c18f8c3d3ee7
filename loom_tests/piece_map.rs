//! The account of a span's granules: ranges that meet are committed and decommitted side by side.

use super::model;
use crate::memory::piece_map::PieceMap;
use loom::thread;
use std::sync::Arc;

const GRANULE: usize = 4096;

/// A range is exactly one commit's, whatever becomes of the range above it.
#[test]
fn piece_map_decommit_against_commit_above() {
    model("piece_map_decommit_against_commit_above", || {
        let map = Arc::new(PieceMap::new(3 * GRANULE, GRANULE).unwrap());
        assert!(map.claim(0, GRANULE));
        let other = map.clone();
        let thread = thread::spawn(move || {
            assert!(other.claim(GRANULE, 2 * GRANULE));
            assert!(other.is_one_claim(GRANULE, 2 * GRANULE));
            other.release(GRANULE, 2 * GRANULE);
        });
        assert!(map.is_one_claim(0, GRANULE));
        map.release(0, GRANULE);
        assert!(!map.is_committed(0, GRANULE));
        thread.join().unwrap();
    });
}
