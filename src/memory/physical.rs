//! How much memory there is to commit.

#![expect(unsafe_code, reason = "calls the driver")]

use super::owner::Owner;

/// Physical memory that there is to commit, in bytes, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PhysicalMemory {
    /// The bytes that are left.
    pub free: usize,
    /// All bytes, those in use included.
    pub total: usize,
}

/// The memory of a resource's device; `None` if the driver does not say.
pub(super) fn device_memory(owner: &Owner) -> Option<PhysicalMemory> {
    let section = owner.enter().ok()?;
    let (mut free, mut total) = (0, 0);
    // SAFETY: both are valid for writes for the whole call.
    let asked = section.call(|api| unsafe { api.mem_get_info.call(&raw mut free, &raw mut total) });
    asked.ok().map(|()| PhysicalMemory { free, total })
}
