//! Which devices reach which memory.

use super::MemoryKind;
use crate::driver::Context;
use crate::error::Error;

impl MemoryKind {
    /// Makes sure that work of a context may use memory of this kind, whose device is `ordinal` and
    /// whose peers are `peers`, which are asked for where it is another device's alone.
    ///
    /// Memory of a device is mapped for that device and its peers. Host memory is pinned for all
    /// contexts (`CU_MEMHOSTREGISTER_PORTABLE`, `CU_MEMHOSTALLOC_PORTABLE`), and its device address
    /// "is guaranteed to have the same value across all contexts that support unified addressing"
    /// (Driver API, Unified Addressing). Managed memory "can be accessed by any stream on any
    /// device" (`CU_MEM_ATTACH_GLOBAL`).
    ///
    /// # Errors
    ///
    /// [`Error::OtherDevice`]: it is memory of another device.
    #[inline]
    pub(crate) fn check_reach<'a>(
        self,
        ordinal: Option<i32>,
        peers: impl FnOnce() -> &'a [i32],
        context: &Context,
    ) -> Result<(), Error> {
        let stream = context.device().ordinal();
        match (self, ordinal) {
            (Self::Device, Some(memory)) if memory != stream && !peers().contains(&stream) => {
                Err(Error::OtherDevice { stream, memory })
            }
            _ => Ok(()),
        }
    }
}
