//! The state of a machine, under its lock.

use std::collections::HashMap;
use std::thread::JoinHandle;

use wharf_sys::CudaError;

use crate::array::Array;
use crate::config::Config;
use crate::context::Context;
use crate::event::Event;
use crate::graph::Store;
use crate::handle::{Kind, Name, Numbering, Registry};
use crate::managed::Advice;
use crate::memory::{self, Block};
use crate::module::Modules;
use crate::pool::Pools;
use crate::race::History;
use crate::sched;
use crate::stream::Stream;
use crate::vmm::Space;

/// The operations of a machine.
pub(crate) type Queue = sched::Queue<State>;
/// The work of an operation of a machine.
pub(crate) type Work = sched::Work<State>;
/// A change of a machine's state, which an operation makes.
pub(crate) type Change = sched::work::Change<State>;

/// The state of a machine.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) queue: Queue,
    /// Where order is watched: who touched which bytes last.
    pub(crate) history: History,
    pub(crate) memory: memory::Table,
    pub(crate) vmm: Space,
    pub(crate) pools: Pools,
    pub(crate) advice: Advice,
    pub(crate) arrays: Registry<Array>,
    pub(crate) modules: Modules,
    /// Settings of core dumps, by number.
    pub(crate) coredump: HashMap<u32, Vec<u8>>,
    pub(crate) contexts: Registry<Context>,
    pub(crate) streams: Registry<Stream>,
    pub(crate) events: Registry<Event>,
    pub(crate) graphs: Store,
    /// The primary contexts, active or not, by device number: a device's primary context keeps
    /// its handle when it is released and retained again.
    pub(crate) primaries: HashMap<i32, Name>,
    /// Flags for the primary contexts, by device number; they outlive the contexts.
    pub(crate) primary_flags: HashMap<i32, u32>,
    /// The last number given to a context or stream as its identity.
    pub(crate) next_id: u64,
    pub(crate) threads_started: bool,
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) idle_engines: usize,
    /// Threads for host functions, and how many of them have none.
    pub(crate) hosts: usize,
    pub(crate) idle_hosts: usize,
    pub(crate) stopping: bool,
}

impl State {
    pub(super) fn new(id: u32, config: &Config) -> Self {
        let numbering = Numbering { machine: id, recycle: config.recycles() };
        Self {
            queue: Queue::new(
                config.schedule,
                config.grace,
                config.checks.race || config.checks.value_order,
            ),
            history: History::default(),
            memory: memory::Table::new(config.recycles(), config.least_alignment),
            vmm: Space::new(numbering),
            pools: Pools::new(numbering),
            advice: Advice::default(),
            arrays: Registry::new(Kind::Array, numbering),
            modules: Modules::new(numbering),
            coredump: HashMap::new(),
            contexts: Registry::new(Kind::Context, numbering),
            streams: Registry::new(Kind::Stream, numbering),
            events: Registry::new(Kind::Event, numbering),
            graphs: Store::new(numbering),
            primaries: HashMap::new(),
            primary_flags: HashMap::new(),
            next_id: 0,
            threads_started: false,
            threads: Vec::new(),
            idle_engines: 0,
            hosts: 0,
            idle_hosts: 0,
            stopping: false,
        }
    }

    /// Whether memory of this kind is managed: of `cuMemAllocManaged`, a pool or a graph.
    pub(crate) fn is_managed(&self, kind: memory::Kind) -> bool {
        match kind {
            memory::Kind::Managed { .. } | memory::Kind::Graph { managed: true } => true,
            memory::Kind::Pool { pool, .. } => self.pools.is_managed(pool),
            _ => false,
        }
    }

    /// Takes a block out of the table and gives back what it was charged.
    pub(crate) fn release(&mut self, block: &Block) {
        self.memory.refund(block.kind, block.ordinal, block.size);
        self.memory.remove(block);
        self.advice.forget(block);
    }

    /// Completes the free of `block` when the stream reaches it; the table has forgotten the block.
    pub(crate) fn finish_free(&mut self, block: &Block) {
        self.memory.left(block);
        block.free();
        self.advice.forget(block);
        match block.kind {
            memory::Kind::Pool { .. } => self.pools.give_back(&mut self.memory, block),
            kind => self.memory.refund(kind, block.ordinal, block.size),
        }
    }

    /// Notes that the device faulted in `context`: every later call there returns `code`.
    pub(crate) fn lose(&mut self, context: u64, code: CudaError) {
        if let Some(context) = self.contexts.get_mut(context) {
            context.lost.get_or_insert(code);
        }
    }

    /// The error of a context that is lost.
    pub(crate) fn lost(&self, context: u64) -> Result<(), CudaError> {
        self.contexts.get(context).and_then(|context| context.lost).map_or(Ok(()), Err)
    }

    /// Lets go of the memory that no graph, executable graph or launch uses and that was freed.
    pub(crate) fn collect_graph_memory(&mut self) {
        self.graphs.collect_memory(&mut self.memory, |op| self.queue.is_pending(op));
    }
}
