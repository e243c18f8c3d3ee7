//! From an executable graph to operations.
//!
//! ```text
//!   stream's tail, exec's last launch           later work of the stream,
//!            |                                  later launches of the exec
//!            v                                          ^
//!          begin ----> the plan's operations ----------> end
//! ```
//!
//! A launch enqueues `begin` and `end`, and `begin` adds the plan's operations when it runs, so
//! a launch costs its caller the same whatever the graph's size. Two things cannot wait that
//! long: an event that the graph records must be waited for by calls that follow the launch,
//! so its operation is added at once; and checks must see sources and allocations as they are
//! at the launch, so with checks on the copies are resolved at once.

use std::sync::{Arc, Weak};
use std::vec::IntoIter;

use wharf_sys::CudaError;

use crate::call::Call;
use crate::errors::Status;
use crate::event::EventState;
use crate::graph::memory::Touched;
use crate::graph::node::Action;
use crate::graph::plan::{Plan, Step};
use crate::machine::{Machine, State, Work};
use crate::memory::Kind;
use crate::order::OpId;
use crate::prepare::When;
use crate::race::Track;
use crate::sched::Origin;
use crate::sched::work::Record;
use crate::task::Task;

/// The data that `begin` needs to add a plan's operations.
struct Expansion {
    /// Weak: a launch waits in the machine's own queue.
    machine: Weak<Machine>,
    origin: Origin,
    /// The works of the steps in the order of [`Plan::walk`], where they were made at the launch.
    works: Option<IntoIter<Work>>,
    /// The operations that record or wait for events, in the same order.
    events: IntoIter<OpId>,
    /// The tracks of the steps, in the same order, where order is watched.
    tracks: IntoIter<Track>,
}

impl Call<'_> {
    /// Launches an executable graph in a stream that is not capturing.
    pub(crate) fn launch(self, state: &mut State, exec: u64, stream: u64) -> Status {
        let known = state.graphs.exec(exec)?;
        let (plan, last) = (Arc::clone(&known.plan), known.last);
        let touched = self.touch_memory(state, exec, stream)?;
        let mut after = state.stream_tail(stream)?;
        after.push(last);
        let context = state.streams.get(stream).map_or(0, |stream| stream.context);
        let origin = Origin { call: self.name, context, stream };
        let kept = Arc::clone(&plan);
        let end = state.queue.add(origin, Work::Apply(Box::new(move |_| drop(kept))), &after);
        let works = self.prepare_now(state, &plan, context);
        let tracks = state.step_tracks(exec, stream, &plan).into_iter();
        let events = state.add_events(origin, &after, &plan);
        let begin = begin_work(end, plan, {
            let (machine, events) = (Arc::downgrade(self.machine), events.clone().into_iter());
            Expansion { machine, origin, works, events, tracks }
        });
        let begin = state.queue.add(origin, begin, &after);
        // The lock is held, so none of them has started.
        for op in events {
            state.queue.add_dependency(op, begin);
        }
        state.queue.add_dependency(end, begin);
        if let Some(stream) = state.streams.get_mut(stream) {
            stream.tail = end;
        }
        state.graphs.keep_memory(&touched, end);
        state.graphs.exec_mut(exec)?.last = end;
        Ok(())
    }

    /// Accounts for the memory that a launch allocates and frees, and frees in the order of the
    /// stream what an earlier launch left.
    fn touch_memory(self, state: &mut State, exec: u64, stream: u64) -> Status<Touched> {
        let known = state.graphs.exec(exec)?;
        if !known.plan.has_memory {
            return Ok(Touched::default());
        }
        let touched = Touched::of(&known.plan);
        let (graph, auto_free) = (known.graph, known.frees_on_launch());
        let left = state.graphs.launch_memory(
            &mut state.memory,
            graph,
            &touched,
            auto_free,
            self.machine.limit(Kind::Graph { managed: false }),
        )?;
        // An earlier launch left it allocated: it is freed in the stream, before this launch
        // allocates it again.
        for block in left {
            state.enqueue(self.name, stream, Work::End(block, |_, block| block.free()), &[])?;
        }
        Ok(touched)
    }

    /// The works of all steps, where checks compare the launch with the execution.
    fn prepare_now(self, state: &State, plan: &Plan, context: u64) -> Option<IntoIter<Work>> {
        let checks = &self.machine.config.checks;
        if !checks.source_stable && !checks.use_after_free && !checks.bounds {
            return None;
        }
        let mut works = Vec::new();
        let origin = (self.name, context, When::Launch);
        plan.walk(&mut |step| works.push(self.machine.step_work(state, step, origin)));
        Some(works.into_iter())
    }
}

fn begin_work(end: OpId, plan: Arc<Plan>, mut expansion: Expansion) -> Work {
    Work::Apply(Box::new(move |state| {
        let last = expansion.add(state, &plan, &[]);
        for op in last {
            state.queue.add_dependency(end, op);
        }
    }))
}

impl Expansion {
    /// Adds the operations of `plan` behind `after` and returns the ones that nothing in the
    /// plan waits for.
    fn add(&mut self, state: &mut State, plan: &Plan, after: &[OpId]) -> Vec<OpId> {
        let mut ops = vec![0; plan.steps.len()];
        let mut last = Vec::new();
        for index in &*plan.order {
            let step = &plan.steps[*index];
            let mut before: Vec<_> =
                step.dependencies.iter().map(|(index, _)| ops[*index]).collect();
            // A step without dependencies follows what the whole plan follows.
            if before.is_empty() {
                before.extend_from_slice(after);
            }
            if let Some(child) = &step.child {
                let inner = self.add(state, child, &before);
                if !inner.is_empty() {
                    before = inner;
                }
            }
            let op = self.add_step(state, step, &before);
            ops[*index] = op;
            if step.is_last {
                last.push(op);
            }
        }
        last
    }

    fn add_step(&mut self, state: &mut State, step: &Step, before: &[OpId]) -> OpId {
        let made = self.works.as_mut().and_then(Iterator::next);
        let track = self.tracks.next();
        // Its operation was added at the call: here it only gets its dependencies.
        if matches!(step.action, Action::Record(_) | Action::Wait(_))
            && let Some(op) = self.events.next()
        {
            for earlier in before {
                state.queue.add_dependency(op, *earlier);
            }
            return op;
        }
        let work = match made {
            Some(work) => work,
            None => match self.machine.upgrade() {
                Some(machine) => {
                    let Origin { call, context, .. } = self.origin;
                    machine.step_work(state, step, (call, context, When::Begin))
                }
                None => Work::Nothing,
            },
        };
        let op = state.queue.add(self.origin, work, before);
        state.queue.set_track(op, track);
        op
    }
}

impl Machine {
    /// What a step does, with its addresses resolved. One that resolves to nothing is a device
    /// fault when its turn comes.
    fn step_work(
        &self,
        state: &State,
        step: &Step,
        (call, context, when): (&'static str, u64, When),
    ) -> Work {
        if !step.enabled {
            return Work::Nothing;
        }
        // A node may name a context other than the launching stream's.
        let runs_in = match &step.action {
            Action::Copy(copy) => copy.context,
            Action::Fill(fill) => fill.context,
            Action::MemOps(ops) => ops.context,
            _ => context,
        };
        let task = match &step.action {
            Action::Empty
            | Action::Record(_)
            | Action::Wait(_)
            | Action::Child(_)
            | Action::Conditional(_) => return Work::Nothing,
            Action::Alloc(block) => Task::Alloc(Arc::clone(block)),
            Action::Free(block) => return Work::End(Arc::clone(block), |_, block| block.free()),
            Action::Copy(copy) => Task::Copy(copy.task),
            Action::Fill(fill) => Task::Fill(fill.task),
            Action::Host(host) => Task::Host(host.function, host.data),
            Action::MemOps(ops) => Task::MemOps(ops.tasks.clone()),
            Action::Kernel(kernel) => Task::Kernel(kernel.clone()),
        };
        self.prepare(state, call, runs_in, &task, when).unwrap_or_else(|_| {
            Work::Apply(Box::new(move |state| state.lose(context, CudaError::ILLEGAL_ADDRESS)))
        })
    }
}

impl State {
    /// A track for each step: launches of one executable graph never overlap, so each is a lane.
    fn step_tracks(&mut self, exec: u64, stream: u64, plan: &Plan) -> Vec<Track> {
        let Some(track) = self.track(stream) else { return Vec::new() };
        let mut steps = 0;
        plan.walk(&mut |_| steps += 1);
        let Some(exec) = self.graphs.execs.get_mut(exec) else { return Vec::new() };
        while exec.lanes.len() < steps
            && let Some(lane) = self.queue.new_lane()
        {
            exec.lanes.push(lane);
        }
        exec.lanes.iter().take(steps).map(|lane| track.beside(lane)).collect()
    }

    /// What each wait of `plan` waits for: what its event has recorded now, so that a record
    /// in the same plan does not count.
    fn snapshot_waits(&self, plan: &Plan) -> Vec<OpId> {
        let mut waits = Vec::new();
        plan.walk(&mut |step| {
            if let Action::Wait(event) = step.action {
                waits.push(match self.events.named(event).map(|event| &event.state) {
                    Some(EventState::Recorded { op, .. }) => *op,
                    _ => 0,
                });
            }
        });
        waits
    }

    /// Adds the operations of a plan's event nodes, and marks the events as recorded by them.
    fn add_events(&mut self, origin: Origin, after: &[OpId], plan: &Plan) -> Vec<OpId> {
        let mut ops = Vec::new();
        if !plan.has_events {
            return ops;
        }
        // Taken before the records below change the events.
        let mut waits = self.snapshot_waits(plan).into_iter();
        plan.walk(&mut |step| match step.action {
            Action::Wait(_) => {
                let mut after = after.to_vec();
                after.extend(waits.next());
                ops.push(self.queue.add(origin, Work::Nothing, &after));
            }
            Action::Record(event) => {
                let record = Arc::new(Record::default());
                let op = self.queue.add(origin, Work::Record(Arc::clone(&record)), after);
                if let Some(event) = self.events.named_mut(event) {
                    event.state = EventState::Recorded { op, record };
                }
                ops.push(op);
            }
            _ => {}
        });
        ops
    }
}
