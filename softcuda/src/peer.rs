//! Which device reaches which memory.
//!
//! | memory | what another device needs |
//! |---|---|
//! | of `cuMemMap` | `cuMemSetAccess` for that device, as its own device does |
//! | of a pool | `cuMemPoolSetAccess` for that device |
//! | of a device, a module, an array | `cuCtxEnablePeerAccess`; nothing for copies |
//! | managed, of the host, of a graph | nothing |
//!
//! The driver stages copies between devices that do not reach each other.
//!
//! "All allocations from `peerContext` will immediately be accessible" does not hold for the first
//! two, whose memory belongs to no context.

use std::sync::Arc;

use wharf_sys::CudaError;

use crate::location::Location;
use crate::machine::{Machine, State};
use crate::memory::block::{READ, READ_WRITE};
use crate::memory::{Block, Kind};
use crate::report::{Check, Violation};

/// An operation on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The source of a copy.
    CopyFrom,
    /// The destination of a copy.
    CopyTo,
    /// A read of any other operation.
    Read,
    /// A write of any other operation.
    Write,
}

impl Use {
    fn writes(self) -> bool {
        matches!(self, Self::CopyTo | Self::Write)
    }

    fn copies(self) -> bool {
        matches!(self, Self::CopyFrom | Self::CopyTo)
    }
}

impl State {
    /// The access of operations of `context` to an allocation: bits of `CUmemAccess_flags`.
    fn access(&self, context: u64, block: &Block, usage: Use) -> u32 {
        let known = self.contexts.get(context);
        let ordinal = known.map_or(block.ordinal, |context| context.ordinal);
        let is_own = ordinal == block.ordinal;
        let granted = |allowed: bool| if allowed { READ_WRITE } else { 0 };
        match block.kind {
            Kind::Mapping { .. } => self.vmm.access(block, Location::Device(ordinal)),
            Kind::Pool { pool, host: false } if !is_own => {
                self.pools.access(pool, Location::Device(ordinal))
            }
            // The driver stages copies between devices, but no other access.
            Kind::Device | Kind::Array | Kind::Global if !is_own && !usage.copies() => {
                granted(known.is_some_and(|context| context.peers.contains(&block.context)))
            }
            _ => block.access(),
        }
    }
}

impl Machine {
    /// Refuses an operation of `context` on memory that its device does not reach.
    pub(crate) fn check_access(
        &self,
        state: &State,
        call: &'static str,
        context: u64,
        (blocks, address): (&[Arc<Block>], u64),
        usage: Use,
    ) -> Result<(), CudaError> {
        let needed = if usage.writes() { READ_WRITE } else { READ };
        let lacks = |block: &&Arc<Block>| state.access(context, block, usage) & needed != needed;
        let Some(block) = blocks.iter().find(lacks) else { return Ok(()) };
        if matches!(block.kind, Kind::Registered { .. }) {
            // Read-only to every device, which is no question of peers.
            return Err(CudaError::INVALID_VALUE);
        }
        let ordinal = state.contexts.get(context).map_or(0, |context| context.ordinal);
        self.violate(Check::PeerAccess, || Violation {
            check: Check::PeerAccess,
            call,
            what: format!(
                "device {ordinal} may not {} {:#x}: {} {:#x} of {} bytes of device {} needs {}",
                if usage.writes() { "write" } else { "read" },
                address,
                if matches!(block.kind, Kind::Mapping { .. }) { "mapping" } else { "allocation" },
                block.device,
                block.size,
                block.ordinal,
                remedy(block.kind),
            ),
            stream: 0,
        });
        Err(CudaError::INVALID_VALUE)
    }
}

/// The call that gives a device access to memory of this kind.
fn remedy(kind: Kind) -> &'static str {
    match kind {
        Kind::Mapping { .. } => "cuMemSetAccess for the device that uses it",
        Kind::Pool { .. } => "cuMemPoolSetAccess for the device that uses it",
        _ => "cuCtxEnablePeerAccess from the context that uses it",
    }
}
