//! Virtual memory management: physical allocations, reserved addresses, what is mapped where.
//!
//! A physical allocation lives while it has a reference (of `cuMemCreate`, an import or
//! `cuMemRetainAllocationHandle`) or a mapping; its handle keeps its number as long.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wharf_sys::CudaError;

use crate::handle::{Kind as HandleKind, Numbering, Registry};
use crate::location::Location;
use crate::memory::Block;
use crate::memory::block::{Backing, Kind};
use crate::memory::physical::{Bytes, Store};
use crate::memory::table::{Owner, Table};
use crate::memory::window::{Range, Reservation};

/// The virtual memory management of one machine.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) store: Store,
    pub(crate) physicals: Registry<Physical>,
    /// By first address.
    pub(crate) reservations: BTreeMap<u64, Arc<Reservation>>,
    /// Where freed addresses come back: those that will, the last ones freed at the end.
    recycled: Option<Vec<Arc<Range>>>,
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
    pub(crate) fn new(
        bytes: Bytes,
        location: Location,
        handle_types: u32,
        rdma: u8,
        charged: bool,
    ) -> Self {
        Self {
            bytes: Arc::new(bytes),
            location,
            handle_types,
            rdma,
            references: 1,
            mappings: 0,
            charged,
        }
    }

    /// The kind of a mapping of it.
    pub(crate) fn mapping_kind(&self, handle: u64) -> Kind {
        Kind::Mapping { physical: handle, host: self.location.is_host() }
    }
}

impl Space {
    pub(crate) fn new(numbering: Numbering) -> Self {
        Self {
            store: Store::default(),
            physicals: Registry::new(HandleKind::Physical, numbering),
            reservations: BTreeMap::new(),
            recycled: numbering.recycle.then(Vec::new),
            access: HashMap::new(),
            windows: 0,
        }
    }

    /// The physical allocation that the program holds a reference to as `handle`.
    pub(crate) fn physical(&mut self, handle: u64) -> Result<&mut Physical, CudaError> {
        let physical = self.physicals.get_mut(handle).filter(|physical| physical.references > 0);
        physical.ok_or(CudaError::INVALID_VALUE)
    }

    /// Reserves addresses, at `hint` where it is not zero and that can be.
    pub(crate) fn reserve(&mut self, size: usize, align: usize, hint: u64) -> Option<u64> {
        let free = self.recycled.as_mut();
        let known = free.and_then(|free| {
            let index = free.iter().rposition(|range| range.fits(size, align, hint))?;
            Some(Reservation::of(free.remove(index), size))
        });
        let reservation = known.or_else(|| Reservation::new(size, align, hint))?;
        let address = reservation.address();
        self.reservations.insert(address, Arc::new(reservation));
        Some(address)
    }

    /// Gives a reservation's addresses back.
    pub(crate) fn unreserve(&mut self, address: u64) {
        let Some(reservation) = self.reservations.remove(&address) else { return };
        if let Some(free) = &mut self.recycled {
            if free.len() == MOST_RECYCLED {
                free.remove(0);
            }
            free.push(Arc::clone(reservation.range()));
        }
    }

    /// The reservation that contains `address`.
    pub(crate) fn reservation(&self, address: u64) -> Option<&Arc<Reservation>> {
        let (_, reservation) = self.reservations.range(..=address).next_back()?;
        reservation.contains(address, 1).then_some(reservation)
    }

    /// The access of `location` to a mapping.
    pub(crate) fn access(&self, mapping: &Block, location: Location) -> u32 {
        self.access.get(&mapping.id).and_then(|access| access.get(&location)).copied().unwrap_or(0)
    }

    /// Sets what `location` may do with a mapping. `idle` says that no operation names it.
    pub(crate) fn set_access(
        &mut self,
        mapping: &Block,
        location: Location,
        flags: u32,
        idle: bool,
    ) {
        let access = self.access.entry(mapping.id).or_default();
        access.insert(location, flags);
        mapping.set_access(access.values().fold(0, |all, one| all | one), idle);
    }
}

/// The number of freed ranges that are kept.
const MOST_RECYCLED: usize = 64;

impl Space {
    /// Maps `size` bytes from `offset` of a physical allocation at `address`. All three are
    /// multiples of the granularity and were checked against the allocation's size.
    pub(crate) fn map(
        &mut self,
        memory: &mut Table,
        address: u64,
        size: usize,
        offset: u64,
        handle: u64,
    ) -> Result<(), CudaError> {
        let reservation = self.reservation(address).filter(|found| found.contains(address, size));
        let reservation = Arc::clone(reservation.ok_or(CudaError::INVALID_VALUE)?);
        if memory.overlaps(address, size) {
            // "Can only create mappings on VA range reservations that are not currently mapped."
            return Err(CudaError::INVALID_VALUE);
        }
        self.windows += 1;
        let number = self.windows;
        let physical = self.physical(handle)?;
        let window = reservation.map(number, address, size, &physical.bytes, offset);
        let window = window.ok_or(CudaError::OUT_OF_MEMORY)?;
        physical.mappings += 1;
        let (kind, ordinal) = (physical.mapping_kind(handle), physical.location.ordinal());
        // Mappings belong to no context: they outlive all.
        let owner = Owner { context: 0, ordinal };
        memory.place(kind, address, size, owner, Backing::Window(window));
        Ok(())
    }

    /// Takes a mapping away.
    pub(crate) fn unmap(&mut self, memory: &mut Table, mapping: &Block) {
        memory.remove(mapping);
        self.access.remove(&mapping.id);
        let Kind::Mapping { physical: handle, .. } = mapping.kind else { return };
        if let Some(physical) = self.physicals.get_mut(handle) {
            physical.mappings -= 1;
        }
        self.collect(memory, handle);
    }

    /// Gives a reference of the program back.
    pub(crate) fn release(&mut self, memory: &mut Table, handle: u64) -> Result<(), CudaError> {
        self.physical(handle)?.references -= 1;
        self.collect(memory, handle);
        Ok(())
    }

    /// Frees a physical allocation that has neither references nor mappings.
    fn collect(&mut self, memory: &mut Table, handle: u64) {
        let known = self.physicals.get(handle);
        if known.is_none_or(|physical| physical.references > 0 || physical.mappings > 0) {
            return;
        }
        if let Some(physical) = self.physicals.remove(handle)
            && physical.charged
        {
            let size = usize::try_from(physical.bytes.size()).unwrap_or(usize::MAX);
            memory.refund(physical.mapping_kind(handle), physical.location.ordinal(), size);
        }
    }
}
