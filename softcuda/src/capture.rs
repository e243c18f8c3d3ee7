//! Stream capture: what it forbids.

use crate::abi::{Call, Status};
use crate::machine::State;

impl Call {
    /// Refuses a call that a capture in progress forbids: one that may synchronise or that
    /// touches the legacy default stream. `context` is what it would wait for, if anything.
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "captures come with graphs")]
    pub(crate) fn forbid_while_capturing(self, _state: &mut State, _context: Option<u64>) -> Status {
        Ok(())
    }

    /// Refuses a copy or memset without a stream while a capture in progress forbids it.
    pub(crate) fn forbid_synchronous(self) -> Status {
        self.forbid_while_capturing(&mut self.lock(), None)
    }

    pub(crate) fn forbid_on_capturing(self, _state: &mut State, _stream: u64) -> Status {
        Ok(())
    }
    pub(crate) fn capture_record(
        self,
        _state: &mut State,
        _event: u64,
        _stream: u64,
        _external: bool,
    ) -> Status<bool> {
        Ok(false)
    }
    pub(crate) fn capture_wait(
        self,
        _state: &mut State,
        _event: u64,
        _stream: u64,
        _external: bool,
    ) -> Status<bool> {
        Ok(false)
    }
    pub(crate) fn captured_event(self, _state: &mut State, _event: u64) -> Status {
        Err(wharf_sys::CudaError::CAPTURED_EVENT)
    }
}
