//! Memory of graphs: allocation and free nodes.
//!
//! "The allocation's address remains fixed across instantiations and launches": an allocation
//! node reserves addresses when it is added, and each launch brings them to life where the node
//! runs and ends that where a free runs. What the statistics count happens at the launch call.
//!
//! ```text
//!            launch                       a free: in the graph, in another, by the program
//!   idle ---------------> outstanding -----------------------------------------------------> idle
//!                             |
//!                             +-- another launch: an error, or a free before it (auto-free)
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wharf_sys::CudaError;

use super::Store;
use super::node::Action;
use super::plan::Plan;
use crate::errors::Status;
use crate::handle::Name;
use crate::memory::table::{Owner, Table};
use crate::memory::{Block, Kind};
use crate::order::OpId;
use crate::pool::Level;

/// Physical memory comes and goes in multiples of this many bytes.
const GRANULE: u64 = 2 << 20;

/// The allocations of graphs on one machine.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    allocations: BTreeMap<u64, Allocation>,
    /// Bytes by device: associated with graphs, and reserved for them.
    levels: HashMap<i32, (Level, Level)>,
}

/// An allocation node's memory.
#[derive(Debug)]
struct Allocation {
    block: Arc<Block>,
    /// The graph with the allocation node, which may be gone.
    graph: Option<Name>,
    /// The graph with the free node, if there is one, which may be gone.
    freed_by: Option<Name>,
    /// Launched, and not freed since.
    outstanding: bool,
    /// Counted as associated with graphs.
    counted: bool,
    /// The end of the last launch that uses it.
    last: OpId,
}

impl Memory {
    /// Bytes associated with graphs and bytes reserved for them on a device.
    pub(crate) fn levels(&mut self, ordinal: i32) -> &mut (Level, Level) {
        self.levels.entry(ordinal).or_default()
    }
}

/// The memory that a launch touches.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) allocated: Vec<Arc<Block>>,
    pub(crate) freed: Vec<Arc<Block>>,
}

impl Touched {
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut touched = Self::default();
        plan.walk(&mut |step| match &step.action {
            Action::Alloc(block) => touched.allocated.push(Arc::clone(block)),
            Action::Free(block) => touched.freed.push(Arc::clone(block)),
            _ => {}
        });
        touched
    }
}

impl Store {
    /// Whether a graph allocates or frees, which forbids much to it.
    pub(crate) fn has_memory(&self, graph: u64) -> bool {
        let is_memory = |node: &u64| match self.nodes.get(*node).map(|node| &node.action) {
            Some(Action::Alloc(_) | Action::Free(_)) => true,
            Some(action) => action.graphs().into_iter().any(|child| self.has_memory(child)),
            None => false,
        };
        self.graphs.get(graph).is_some_and(|graph| graph.nodes.iter().any(is_memory))
    }

    /// The memory at `address` that a node of `graph` may free.
    ///
    /// # Errors
    ///
    /// `INVALID_VALUE`: "an allocation twice in the same graph; an address that was not returned
    /// by an allocation node", or one that another graph frees.
    pub(crate) fn freeable(&self, address: u64) -> Status<Arc<Block>> {
        let allocation = self.memory.allocations.get(&address).ok_or(CudaError::INVALID_VALUE)?;
        if allocation.freed_by.is_some() {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(Arc::clone(&allocation.block))
    }

    /// Notes that a node of `graph` frees the memory at `address`.
    pub(crate) fn set_freed_by(&mut self, address: u64, graph: u64) {
        let graph = self.graphs.name(graph);
        if let Some(allocation) = self.memory.allocations.get_mut(&address) {
            allocation.freed_by = graph;
        }
    }
}

impl Store {
    /// Reserves addresses for an allocation node of `graph`.
    pub(crate) fn place_memory(
        &mut self,
        table: &mut Table,
        graph: u64,
        size: usize,
        ordinal: i32,
        managed: bool,
    ) -> Status<Arc<Block>> {
        // Such memory belongs to its device, not to a context.
        let block = table.allocate(Kind::Graph { managed }, size, Owner { context: 0, ordinal })?;
        block.postpone();
        let allocation = Allocation {
            block: Arc::clone(&block),
            graph: self.graphs.name(graph),
            freed_by: None,
            outstanding: false,
            counted: false,
            last: 0,
        };
        self.memory.allocations.insert(block.device, allocation);
        Ok(block)
    }

    /// Notes a launch of the graph `graph` that touches memory, and returns what is to be freed
    /// before it.
    ///
    /// # Errors
    ///
    /// * `INVALID_VALUE`: an allocation of an earlier launch was not freed, or one that is to be
    ///   freed is not there.
    /// * `OUT_OF_MEMORY`: the device has fewer than `limit` bytes left.
    pub(crate) fn launch_memory(
        &mut self,
        table: &mut Table,
        graph: Name,
        touched: &Touched,
        auto_free: bool,
        limit: u64,
    ) -> Status<Vec<Arc<Block>>> {
        let known = &self.memory.allocations;
        let is_out =
            |block: &Arc<Block>| known.get(&block.device).is_some_and(|known| known.outstanding);
        let left: Vec<_> =
            touched.allocated.iter().filter(|block| is_out(block)).cloned().collect();
        let is_own =
            |block: &Arc<Block>| touched.allocated.iter().any(|other| other.id == block.id);
        let missing = touched.freed.iter().any(|block| !is_own(block) && !is_out(block));
        if missing || !left.is_empty() && !auto_free {
            return Err(CudaError::INVALID_VALUE);
        }
        // Charged before anything is marked: a launch that fails must change nothing.
        for block in &touched.allocated {
            self.count_memory(table, block, limit)?;
        }
        for block in &touched.allocated {
            if let Some(known) = self.memory.allocations.get_mut(&block.device) {
                known.outstanding = known.freed_by != Some(graph);
            }
        }
        for block in &touched.freed {
            self.settle_memory(block);
        }
        Ok(left)
    }

    /// Notes the last operation of a launch.
    pub(crate) fn keep_memory(&mut self, touched: &Touched, last: OpId) {
        for block in touched.allocated.iter().chain(&touched.freed) {
            if let Some(known) = self.memory.allocations.get_mut(&block.device) {
                known.last = last;
            }
        }
    }

    fn count_memory(&mut self, table: &mut Table, block: &Block, limit: u64) -> Status {
        let Some(known) = self.memory.allocations.get_mut(&block.device) else {
            return Ok(());
        };
        if known.counted {
            return Ok(());
        }
        let bytes = granules(block);
        let (used, reserved) = self.memory.levels.entry(block.ordinal).or_default();
        // Memory of earlier launches stays reserved and is used first.
        let growth = (used.now + bytes).saturating_sub(reserved.now);
        let account = table.account(block.kind, block.ordinal);
        if account.checked_add(growth).is_none_or(|after| after > limit) {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        *account += growth;
        reserved.add(growth);
        used.add(bytes);
        known.counted = true;
        Ok(())
    }

    /// Takes a launched allocation as freed from this call on.
    ///
    /// # Errors
    ///
    /// `INVALID_VALUE`: it is not outstanding, or its own graph frees it.
    pub(crate) fn free_memory(&mut self, block: &Block) -> Status {
        let known = self.memory.allocations.get(&block.device).ok_or(CudaError::INVALID_VALUE)?;
        if !known.outstanding || known.freed_by.is_some() && known.freed_by == known.graph {
            return Err(CudaError::INVALID_VALUE);
        }
        self.settle_memory(block);
        Ok(())
    }

    fn settle_memory(&mut self, block: &Block) {
        if let Some(known) = self.memory.allocations.get_mut(&block.device) {
            known.outstanding = false;
        }
    }

    /// Lets go of the memory that no graph, executable graph or launch uses and that was freed.
    pub(crate) fn collect_memory(&mut self, table: &mut Table, is_pending: impl Fn(OpId) -> bool) {
        let allocations = &self.memory.allocations;
        let made_of =
            |graph: Option<Name>| self.execs.values().any(|exec| Some(exec.graph) == graph);
        let is_idle = |known: &Allocation| {
            !known.outstanding && !made_of(known.graph) && !is_pending(known.last)
        };
        let idle: Vec<_> =
            allocations.iter().filter(|(_, known)| is_idle(known)).map(|(at, _)| *at).collect();
        for address in idle {
            let Some(known) = self.memory.allocations.get_mut(&address) else { continue };
            let (block, graph) = (Arc::clone(&known.block), known.graph);
            if std::mem::take(&mut known.counted) {
                self.memory.levels(block.ordinal).0.now -= granules(&block);
            }
            // While the graph exists its address stays reserved: it is the same in every launch.
            if graph.and_then(|graph| self.graphs.named(graph)).is_none() {
                self.memory.allocations.remove(&address);
                table.remove(&block);
            }
        }
    }

    /// "Free unused memory that was cached on the specified device for use with graphs."
    pub(crate) fn trim_memory(&mut self, table: &mut Table, ordinal: i32) {
        let (used, reserved) = self.memory.levels(ordinal);
        let surplus = reserved.now.saturating_sub(used.now);
        reserved.now -= surplus;
        table.refund(
            Kind::Graph { managed: false },
            ordinal,
            usize::try_from(surplus).unwrap_or(usize::MAX),
        );
    }
}

fn granules(block: &Block) -> u64 {
    (block.size.max(1) as u64).next_multiple_of(GRANULE)
}
