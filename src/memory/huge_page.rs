//! Pages larger than usual: fewer entries in every table between the host and the device.

use std::fs;

use super::host_span::HostSpan;
use crate::error::Error;

/// The kinds of pages, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PageTier {
    /// Huge pages of 2 MiB from the system's pool (`vm.nr_hugepages`), which are never swapped or
    /// split, and which the administrator has set aside.
    Explicit,
    /// Pages that the system is asked to make huge where it can.
    #[default]
    Transparent,
    /// Pages of the usual size.
    Plain,
}

impl PageTier {
    /// The best tier from `self` on that this system has at all.
    pub(super) fn available(self) -> Self {
        if self == Self::Transparent && !has_transparent() { Self::Plain } else { self }
    }

    /// Opens a range of `span` in pages of the best tier from `self` on that can be had, which is
    /// returned.
    pub(super) fn open(self, span: &HostSpan, offset: usize, len: usize) -> Result<Self, Error> {
        if self == Self::Explicit && span.open_huge(offset, len).is_ok() {
            return Ok(Self::Explicit);
        }
        span.open(offset, len)?;
        let wanted = if self == Self::Explicit { Self::Transparent.available() } else { self };
        if wanted == Self::Transparent && span.advise(offset, len, libc::MADV_HUGEPAGE).is_ok() {
            return Ok(Self::Transparent);
        }
        Ok(Self::Plain)
    }

    /// The tier with the number `self as u8`.
    pub(super) fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Explicit,
            1 => Self::Transparent,
            _ => Self::Plain,
        }
    }
}

/// Returns whether the system makes pages huge on request.
fn has_transparent() -> bool {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    setting.is_ok_and(|setting| !setting.contains("[never]"))
}
