//! Virtual memory management: physical allocations, reserved addresses, what is mapped where.
//!
//! A physical allocation lives while it has a reference (of `cuMemCreate`, an import or
//! `cuMemRetainAllocationHandle`) or a mapping; its handle keeps its number as long.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wharf_sys::CudaError;

use crate::handle::{Kind as HandleKind, Registry};
use crate::location::Location;
use crate::machine::State;
use crate::memory::Block;
use crate::memory::block::{Backing, Kind};
use crate::memory::physical::{Bytes, Store};
use crate::memory::table::Owner;
use crate::memory::window::Reservation;

/// The virtual memory management of one machine.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) store: Store,
    pub(crate) physicals: Registry<Physical>,
    /// By first address.
    pub(crate) reservations: BTreeMap<u64, Arc<Reservation>>,
    /// Which location may do what with a mapping, by the mapping's block.
    access: HashMap<u64, BTreeMap<Location, u32>>,
    windows: u64,
}

/// A physical allocation.
#[derive(Debug)]
pub(crate) struct Physical {
    pub(crate) bytes: Arc<Bytes>,
    pub(crate) location: Location,
    /// `CUmemAllocationHandleType` bits that it can be exported as.
    pub(crate) handle_types: u32,
    /// The program asked for memory that other hardware reaches.
    pub(crate) rdma: u8,
    /// References of the program.
    pub(crate) references: u32,
    mappings: u32,
    /// Whether this machine's memory was charged for it.
    pub(crate) charged: bool,
}

impl Physical {
    pub(crate) fn new(bytes: Bytes, location: Location, handle_types: u32, rdma: u8, charged: bool) -> Self {
        Self { bytes: Arc::new(bytes), location, handle_types, rdma, references: 1, mappings: 0, charged }
    }

    /// The kind of a mapping of it.
    pub(crate) fn mapping_kind(&self, handle: u64) -> Kind {
        Kind::Mapping { physical: handle, host: self.location.is_host() }
    }
}

impl Space {
    pub(crate) fn new(machine: u16) -> Self {
        Self {
            store: Store::default(),
            physicals: Registry::new(HandleKind::Physical, machine),
            reservations: BTreeMap::new(),
            access: HashMap::new(),
            windows: 0,
        }
    }

    /// The physical allocation that the program holds a reference to as `handle`.
    pub(crate) fn physical(&mut self, handle: u64) -> Result<&mut Physical, CudaError> {
        let physical = self.physicals.get_mut(handle).filter(|physical| physical.references > 0);
        physical.ok_or(CudaError::INVALID_VALUE)
    }

    /// The reservation that contains `address`.
    pub(crate) fn reservation(&self, address: u64) -> Option<&Arc<Reservation>> {
        let (_, reservation) = self.reservations.range(..=address).next_back()?;
        reservation.contains(address, 1).then_some(reservation)
    }

    /// What `location` may do with a mapping.
    pub(crate) fn access(&self, mapping: &Block, location: Location) -> u32 {
        self.access.get(&mapping.id).and_then(|access| access.get(&location)).copied().unwrap_or(0)
    }

    /// Sets what `location` may do with a mapping. `idle` says that no operation names it.
    pub(crate) fn set_access(&mut self, mapping: &Block, location: Location, flags: u32, idle: bool) {
        let access = self.access.entry(mapping.id).or_default();
        access.insert(location, flags);
        mapping.set_access(access.values().fold(0, |all, one| all | one), idle);
    }
}

impl State {
    /// Maps `size` bytes from `offset` of a physical allocation at `address`. All three are
    /// multiples of the granularity and were checked against the allocation's size.
    pub(crate) fn map(
        &mut self,
        address: u64,
        size: usize,
        offset: u64,
        handle: u64,
    ) -> Result<(), CudaError> {
        let reservation = self.vmm.reservation(address).filter(|found| found.contains(address, size));
        let reservation = Arc::clone(reservation.ok_or(CudaError::INVALID_VALUE)?);
        if self.memory.overlaps(address, size) {
            // "Can only create mappings on VA range reservations that are not currently mapped."
            return Err(CudaError::INVALID_VALUE);
        }
        self.vmm.windows += 1;
        let number = self.vmm.windows;
        let physical = self.vmm.physical(handle)?;
        let window = reservation.map(number, address, size, &physical.bytes, offset);
        let window = window.ok_or(CudaError::OUT_OF_MEMORY)?;
        physical.mappings += 1;
        let (kind, ordinal) = (physical.mapping_kind(handle), physical.location.ordinal());
        // Mappings belong to no context: they outlive all.
        let owner = Owner { context: 0, ordinal };
        self.memory.place(kind, address, size, owner, Backing::Window(window));
        Ok(())
    }

    /// The mappings that make up exactly the range, whole ones without a gap.
    pub(crate) fn mappings(&self, address: u64, size: usize) -> Result<Vec<Arc<Block>>, CudaError> {
        let blocks = self.memory.cover(address, size).ok_or(CudaError::INVALID_VALUE)?;
        let all = blocks.iter().map(|block| block.size).sum::<usize>();
        let are_mappings = blocks.iter().all(|block| matches!(block.kind, Kind::Mapping { .. }));
        let begins = blocks.first().is_some_and(|block| block.device == address);
        if size > 0 && are_mappings && begins && all == size {
            Ok(blocks)
        } else {
            Err(CudaError::INVALID_VALUE)
        }
    }

    /// Takes a mapping away.
    pub(crate) fn unmap(&mut self, mapping: &Block) {
        self.memory.remove(mapping);
        self.vmm.access.remove(&mapping.id);
        let Kind::Mapping { physical: handle, .. } = mapping.kind else { return };
        if let Some(physical) = self.vmm.physicals.get_mut(handle) {
            physical.mappings -= 1;
        }
        self.collect_physical(handle);
    }

    /// Gives a reference of the program back.
    pub(crate) fn release_physical(&mut self, handle: u64) -> Result<(), CudaError> {
        self.vmm.physical(handle)?.references -= 1;
        self.collect_physical(handle);
        Ok(())
    }

    /// Frees a physical allocation that has neither references nor mappings.
    fn collect_physical(&mut self, handle: u64) {
        let known = self.vmm.physicals.get(handle);
        if known.is_none_or(|physical| physical.references > 0 || physical.mappings > 0) {
            return;
        }
        if let Some(physical) = self.vmm.physicals.remove(handle)
            && physical.charged
        {
            let size = usize::try_from(physical.bytes.size()).unwrap_or(usize::MAX);
            self.memory.refund(physical.mapping_kind(handle), physical.location.ordinal(), size);
        }
    }
}
