//! The patches of one step to one table: ranges that do not overlap, ascending.
//!
//! ```text
//!   table          |.....aaaa......bb.|      the step's area    |aaaabb....|
//! ```
//!
//! A patch of what the step has patched already goes to the same place of the area, so that the
//! later one counts, whatever the order of the copies. In ascending order a patch costs no search.

/// A range of a table that a step changes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Where it starts in the table.
    pub(crate) start: usize,
    pub(crate) size: usize,
    /// Where its bytes are in the step's area.
    pub(crate) at: usize,
}

impl Patch {
    pub(crate) fn end(&self) -> usize {
        self.start + self.size
    }
}

/// The patches of one step to one table.
#[derive(Debug, Default)]
pub(crate) struct Patches {
    list: Vec<Patch>,
    /// The bytes of all.
    used: usize,
}

/// A part of what was patched: where it goes in the area, where it comes from, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: usize,
    pub(crate) from: usize,
    pub(crate) size: usize,
}

impl Patches {
    /// Adds a patch of the bytes from `start` on, of which `put` is told where they go. `room` is
    /// the area's size.
    ///
    /// # Errors
    ///
    /// There is no room; the size that the area would need. Nothing has changed.
    pub(crate) fn put(
        &mut self,
        start: usize,
        size: usize,
        room: usize,
        mut put: impl FnMut(Piece),
    ) -> Result<(), usize> {
        let end = start + size;
        let mut index = match self.list.last() {
            Some(last) if last.end() > start => {
                self.list.partition_point(|patch| patch.end() <= start)
            }
            _ => self.list.len(),
        };
        let after = self.list[index..].iter().take_while(|patch| patch.start < end);
        let known: usize = after.map(|it| end.min(it.end()) - start.max(it.start)).sum();
        let needed = self.used + size - known;
        if needed > room {
            return Err(needed);
        }
        let mut next = start;
        while next < end {
            let stop = match self.list.get(index) {
                Some(patch) if patch.start <= next => {
                    let stop = end.min(patch.end());
                    put(Piece {
                        at: patch.at + next - patch.start,
                        from: next - start,
                        size: stop - next,
                    });
                    index += 1;
                    stop
                }
                other => {
                    let stop = other.map_or(end, |patch| end.min(patch.start));
                    put(Piece { at: self.used, from: next - start, size: stop - next });
                    index = self.add(index, next, stop - next);
                    stop
                }
            };
            next = stop;
        }
        Ok(())
    }

    /// Adds a range that no patch has, before the one of `index`. Returns the next one's index.
    fn add(&mut self, index: usize, start: usize, size: usize) -> usize {
        let at = self.used;
        self.used += size;
        if let Some(before) = index.checked_sub(1).and_then(|before| self.list.get_mut(before))
            && before.end() == start
            && before.at + before.size == at
        {
            before.size += size;
            return index;
        }
        self.list.insert(index, Patch { start, size, at });
        index + 1
    }

    pub(crate) fn list(&self) -> &[Patch] {
        &self.list
    }

    /// Forgets all, and keeps the memory of the list.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.used = 0;
    }
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// The table after some patches, as the copies in any order make it; and how many copies.
    fn applied(patches: &[(usize, &[u8])], room: usize) -> (Vec<u8>, usize) {
        let (mut list, mut area) = (Patches::default(), vec![0; room]);
        for (start, bytes) in patches {
            let put = |Piece { at, from, size }: Piece| {
                area[at..at + size].copy_from_slice(&bytes[from..from + size]);
            };
            list.put(*start, bytes.len(), room, put).unwrap();
        }
        let mut table = vec![0; 16];
        for patch in list.list().iter().rev() {
            table[patch.start..patch.end()].copy_from_slice(&area[patch.at..][..patch.size]);
        }
        for pair in list.list().windows(2) {
            assert!(pair[0].end() <= pair[1].start, "{pair:?}");
        }
        (table, list.list().len())
    }

    #[test]
    fn the_later_patch_counts_and_none_overlap() {
        let all: &[(usize, &[u8])] =
            &[(4, &[1, 1]), (8, &[2, 2, 2]), (3, &[3, 3, 3, 3, 3, 3]), (10, &[4, 4]), (0, &[5])];
        let wanted = [5, 0, 0, 3, 3, 3, 3, 3, 3, 2, 4, 4, 0, 0, 0, 0];
        assert_eq!(applied(all, 16).0, wanted);
        // Every subset of the order is the same as writing one behind the other.
        for count in 0..all.len() {
            let mut wanted = vec![0; 16];
            for (start, bytes) in &all[..count] {
                wanted[*start..start + bytes.len()].copy_from_slice(bytes);
            }
            assert_eq!(applied(&all[..count], 16).0, wanted);
        }
    }

    #[test]
    fn neighbours_are_one_copy() {
        assert_eq!(applied(&[(2, &[1, 2]), (4, &[3]), (5, &[4, 5])], 5).1, 1);
        assert_eq!(applied(&[(4, &[3]), (2, &[1, 2])], 5).1, 2);
    }

    #[test]
    fn what_is_patched_twice_takes_room_once() {
        let mut list = Patches::default();
        list.put(2, 4, 6, |_| ()).unwrap();
        list.put(3, 3, 6, |_| ()).unwrap();
        assert_eq!(list.put(0, 8, 7, |_| panic!("nothing was to change")), Err(8));
        list.put(4, 4, 6, |_| ()).unwrap();
        assert_eq!(list.list(), [Patch { start: 2, size: 6, at: 0 }]);
    }
}
