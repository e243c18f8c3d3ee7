//! Changes of executable graphs: what may change, and which node is whose.
//!
//! A whole update pairs the nodes of the new graph with the plan's: the ones that nothing waits
//! for in the order in which they were added, and from there what they wait for in the order of
//! the edges (`cuGraphExecUpdate`). Either way a change makes a new plan, so launches before it
//! are not affected.

use std::collections::HashMap;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUgraphExecUpdateResult;

use super::Store;
use super::node::Action;
use super::operand::{Location, Locations, locations};
use super::plan::{Plan, Step};
use crate::errors::Status;
use crate::handle::Name;
use crate::memory::table::Table;
use crate::task::{FillTask, MemOpTask};

/// Why a graph does not fit an executable graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) result: CUgraphExecUpdateResult,
    /// The node of the new graph that does not fit.
    pub(crate) node: u64,
    /// The dependency of it that does not.
    pub(crate) from: u64,
}

impl Misfit {
    fn topology(node: u64, from: u64) -> Self {
        Self {
            result: CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED,
            node,
            from,
        }
    }

    fn kind(node: u64) -> Self {
        let result = CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
        Self { result, node, from: 0 }
    }

    fn params(node: u64) -> Self {
        let result = CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
        Self { result, node, from: 0 }
    }

    /// A handle that names nothing.
    pub(crate) fn invalid() -> Self {
        Self { result: CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR, node: 0, from: 0 }
    }
}

/// The two ways to change a node, which do not allow the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A call for this node: copies must be of one row and of some length.
    Node,
    /// A whole graph.
    Graph,
}

impl Store {
    /// Lets the step of `node` do `action` in later launches.
    ///
    /// # Errors
    ///
    /// `INVALID_VALUE`: the node is not in the graph any more, or cannot change so.
    pub(crate) fn update_node(
        &mut self,
        memory: &Table,
        exec: u64,
        node: u64,
        action: Action,
    ) -> Status {
        let (name, step) = self.step_of(exec, node)?;
        if step.action.kind() != action.kind() {
            return Err(CudaError::INVALID_VALUE);
        }
        let locations = locations(memory, &action);
        if !may_change(step, &action, locations, Way::Node) {
            return Err(CudaError::INVALID_VALUE);
        }
        let child = match (&step.child, &action) {
            (Some(plan), Action::Child(graph)) => {
                Some(self.updated(memory, plan, *graph).map_err(|_| CudaError::INVALID_VALUE)?)
            }
            _ => None,
        };
        let known = self.exec_mut(exec)?;
        let step = Arc::make_mut(&mut known.plan).step_mut(name).ok_or(CudaError::INVALID_VALUE)?;
        match child {
            // The node still runs its own graph, with other parameters.
            Some(_) => step.child = child,
            None => (step.action, step.locations) = (action, locations),
        }
        Ok(())
    }

    /// The step of a node that is still in the graph that `exec` was made from.
    pub(crate) fn step_of(&self, exec: u64, node: u64) -> Status<(Name, &Step)> {
        let plan = &self.exec(exec)?.plan;
        let name = self.nodes.name(node).ok_or(CudaError::INVALID_VALUE)?;
        Ok((name, plan.step(name).ok_or(CudaError::INVALID_VALUE)?))
    }

    /// Enables or disables a node in later launches.
    pub(crate) fn enable_node(&mut self, exec: u64, node: u64, enabled: bool) -> Status {
        let (name, step) = self.step_of(exec, node)?;
        if !step.can_be_disabled() {
            return Err(CudaError::INVALID_VALUE);
        }
        let known = self.exec_mut(exec)?;
        let step = Arc::make_mut(&mut known.plan).step_mut(name).ok_or(CudaError::INVALID_VALUE)?;
        step.enabled = enabled;
        Ok(())
    }

    /// Lets `exec` do in later launches what `graph` does, which has the same shape.
    pub(crate) fn update_exec(
        &mut self,
        memory: &Table,
        exec: u64,
        graph: u64,
    ) -> Result<(), Misfit> {
        let known = self.exec(exec).map_err(|_| Misfit::invalid())?;
        let plan = self.updated(memory, &known.plan, graph)?;
        let known = self.exec_mut(exec).map_err(|_| Misfit::invalid())?;
        known.plan = Arc::new(plan);
        Ok(())
    }

    /// The plan with the parameters of `graph`.
    fn updated(&self, memory: &Table, plan: &Plan, graph: u64) -> Result<Plan, Misfit> {
        let pairs = self.pair(plan, graph)?;
        let mut updated = plan.clone();
        for (index, node) in pairs {
            let action = &self.node(node).map_err(|_| Misfit::invalid())?.action;
            let step = &plan.steps[index];
            let locations = locations(memory, action);
            if !may_change(step, action, locations, Way::Graph) {
                return Err(Misfit::params(node));
            }
            let changed = &mut updated.steps[index];
            match (&step.child, action) {
                (Some(child), Action::Child(graph)) => {
                    changed.child = Some(self.updated(memory, child, *graph)?);
                }
                (Some(child), Action::Conditional(branches)) => {
                    let chosen = branches.chosen().ok().flatten().ok_or(Misfit::params(node))?;
                    changed.child = Some(self.updated(memory, child, chosen)?);
                }
                _ => (changed.action, changed.locations) = (action.clone(), locations),
            }
        }
        // "The references in the new source graph are cloned and replace the references in the
        // target graph" (CUDA C++ Programming Guide, user objects).
        let objects = &self.graph(graph).map_err(|_| Misfit::invalid())?.objects;
        updated.objects = Arc::new(objects.clone());
        updated.has_events = updated.steps.iter().any(Step::has_events);
        Ok(updated)
    }

    /// Finds for each step of `plan` the node of `graph` that takes its place.
    fn pair(&self, plan: &Plan, graph: u64) -> Result<Vec<(usize, u64)>, Misfit> {
        let nodes = &self.graph(graph).map_err(|_| Misfit::invalid())?.nodes;
        if nodes.len() != plan.steps.len() {
            return Err(Misfit::topology(0, 0));
        }
        let is_exit =
            |node: &u64| self.nodes.get(*node).is_some_and(|node| node.dependents.is_empty());
        let exits: Vec<_> = nodes.iter().copied().filter(is_exit).collect();
        let old_exits: Vec<_> =
            (0..plan.steps.len()).filter(|index| plan.steps[*index].is_last).collect();
        if let Some(surplus) = exits.get(old_exits.len()) {
            return Err(Misfit::topology(*surplus, 0));
        }
        let mut pairing = Pairing::default();
        for (index, node) in old_exits.into_iter().zip(exits) {
            pairing.add(index, node, node)?;
        }
        let mut next = 0;
        while let Some((index, node)) = pairing.pairs.get(next).copied() {
            next += 1;
            let (step, known) =
                (&plan.steps[index], self.node(node).map_err(|_| Misfit::invalid())?);
            if step.action.kind() != known.action.kind() {
                return Err(Misfit::kind(node));
            }
            if step.dependencies.len() != known.dependencies.len() {
                return Err(Misfit::topology(node, 0));
            }
            for ((index, data), edge) in step.dependencies.iter().zip(&known.dependencies) {
                if *data != edge.data {
                    return Err(Misfit::topology(node, edge.node));
                }
                pairing.add(*index, edge.node, node)?;
            }
        }
        // A step that was not reached waits for nothing that was: the new graph has fewer exits.
        if pairing.pairs.len() == nodes.len() {
            Ok(pairing.pairs)
        } else {
            Err(Misfit::topology(0, 0))
        }
    }
}

/// Which step and which node are each other's.
#[derive(Default)]
struct Pairing {
    /// In the order in which they were found.
    pairs: Vec<(usize, u64)>,
    nodes: HashMap<usize, u64>,
    steps: HashMap<u64, usize>,
}

impl Pairing {
    /// Pairs a step with a node, as a dependency of `of` asks.
    fn add(&mut self, step: usize, node: u64, of: u64) -> Result<(), Misfit> {
        match (self.nodes.get(&step), self.steps.get(&node)) {
            (None, None) => {
                self.nodes.insert(step, node);
                self.steps.insert(node, step);
                self.pairs.push((step, node));
                Ok(())
            }
            (Some(known), Some(other)) if *known == node && *other == step => Ok(()),
            _ => Err(Misfit::topology(of, node)),
        }
    }
}

/// Whether a step may do `new`, which is of the same type and uses memory at `locations`.
fn may_change(step: &Step, new: &Action, locations: Locations, way: Way) -> bool {
    let same_memory =
        step.locations.iter().zip(&locations).all(|(old, new)| is_same(old.as_ref(), new.as_ref()));
    match (&step.action, new) {
        (Action::Copy(old), Action::Copy(new)) => {
            let (old, new) = (&old.task, &new.task);
            let one_row = |height: usize, depth: usize| height <= 1 && depth <= 1;
            let is_line =
                one_row(old.height, old.depth) && one_row(new.height, new.depth) && new.width > 0;
            let same_types = old.dst.place == new.dst.place && old.src.place == new.src.place;
            same_memory && (way == Way::Graph && same_types || way == Way::Node && is_line)
        }
        (Action::Fill(old), Action::Fill(new)) => {
            same_memory && fill_may_change(&old.task, &new.task)
        }
        (Action::MemOps(old), Action::MemOps(new)) => {
            let same_kinds = old.tasks.len() == new.tasks.len()
                && old.tasks.iter().zip(&new.tasks).all(|(old, new)| same_operation(old, new));
            same_kinds && old.context == new.context && old.flags == new.flags
        }
        // "The owning context of the function cannot change."
        (Action::Kernel(old), Action::Kernel(new)) => old.context == new.context,
        (Action::Alloc(old), Action::Alloc(new)) | (Action::Free(old), Action::Free(new)) => {
            old.id == new.id
        }
        _ => true,
    }
}

/// "For 2d memsets, all dimension changes are rejected. For 1d memsets, changes in height are
/// explicitly rejected and other changes are opportunistically allowed." Here they all are.
fn fill_may_change(old: &FillTask, new: &FillTask) -> bool {
    let shape = |task: &FillTask| (task.height, task.width, task.element, task.pitch);
    let is_one_row = old.height <= 1;
    new.width > 0
        && new.height > 0
        && (shape(old) == shape(new) || is_one_row && old.height == new.height)
}

/// Whether two stream memory operations differ in addresses, values and conditions alone.
fn same_operation(old: &MemOpTask, new: &MemOpTask) -> bool {
    match (old, new) {
        (MemOpTask::Barrier, MemOpTask::Barrier) => true,
        (MemOpTask::Write { wide: old, .. }, MemOpTask::Write { wide: new, .. })
        | (MemOpTask::Wait { wide: old, .. }, MemOpTask::Wait { wide: new, .. }) => old == new,
        _ => false,
    }
}

/// Memory that is not known any more may be replaced by any other.
fn is_same(old: Option<&Location>, new: Option<&Location>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    }
}
