//! The mappings of the process, as the kernel lists them.

use std::fs::File;
use std::io::{BufRead, BufReader};

/// Whether the program may write every page of a range of its memory that is mapped.
///
/// Nothing is touched: a page that was never used stays uncommitted. Where the list cannot be
/// read the range counts as writable. What the list leaves out is no answer: an emulator's (QEMU's)
/// lacks what changes while it is made.
pub(crate) fn is_writable(address: u64, size: usize) -> bool {
    let Ok(list) = File::open("/proc/self/maps") else { return true };
    !has_read_only(BufReader::new(list), address, address.saturating_add(size as u64))
}

/// Whether a mapping within `[first, end)` is not writable. The list is in the order of addresses.
fn has_read_only(list: impl BufRead, first: u64, end: u64) -> bool {
    let mappings = list.lines().map_while(Result::ok).filter_map(|line| parse(&line));
    let mut within =
        mappings.skip_while(|(_, to, _)| *to <= first).take_while(|(from, ..)| *from < end);
    within.any(|(_, _, writable)| !writable)
}

/// `7f1c2e000000-7f1c2e021000 rw-p 00000000 00:00 0`
fn parse(line: &str) -> Option<(u64, u64, bool)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(from)?, hex(to)?, rest.as_bytes().get(1) == Some(&b'w')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "1000-3000 rw-p 0 00:00 0\n3000-4000 rw-s 0 00:00 0\n\
                        4000-5000 r--p 0 00:00 0\n6000-7000 rw-p 0 00:00 0\n";

    #[test]
    fn a_range_is_writable_where_all_its_mappings_are() {
        let is = |from, to| !has_read_only(LIST.as_bytes(), from, to);
        assert!(is(0x1000, 0x4000) && is(0x2fff, 0x3001) && is(0x6000, 0x7000));
        assert!(!is(0x3000, 0x4001) && !is(0x4000, 0x5000), "a page that may only be read");
        assert!(is(0x5000, 0x6001) && is(0x7000, 0x8000), "a gap says nothing");
        assert!(!is(0x3000, 0x8000) && !is(0x4fff, 0x6000));
    }

    #[test]
    fn the_programs_own_memory_is_writable_and_its_code_is_not() {
        let here = [0_u8; 64];
        assert!(is_writable(here.as_ptr().addr() as u64, 64));
        let code = is_writable as *const ();
        assert!(!is_writable(code.addr() as u64, 1));
    }
}
