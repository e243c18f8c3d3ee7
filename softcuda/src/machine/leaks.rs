//! Leaks: objects that are alive when a machine ends.

use super::Machine;
use crate::report::{Check, Violation};
use crate::stream::Role;
use wharf_sys::CudaError;

impl Machine {
    /// The live objects, one line each.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let mut state = self.lock();
        state.collect_graph_memory();
        let mut lines = Vec::new();
        for handle in state.contexts.handles() {
            if let Some(context) = state.contexts.get(handle) {
                lines.push(format!("context {handle:#x} of device {}", context.ordinal));
            }
        }
        // Default streams belong to their context.
        for handle in state.streams.handles() {
            if state.streams.get(handle).is_some_and(|stream| stream.role == Role::Created) {
                lines.push(format!("stream {handle:#x}"));
            }
        }
        lines.extend(state.graphs.owned_graphs().iter().map(|handle| format!("graph {handle:#x}")));
        let execs = state.graphs.execs.handles();
        lines.extend(execs.iter().map(|handle| format!("executable graph {handle:#x}")));
        let objects = state.graphs.live_objects();
        lines.extend(objects.iter().map(|handle| format!("user object {handle:#x}")));
        lines.extend(state.events.handles().iter().map(|handle| format!("event {handle:#x}")));
        lines.extend(state.pools.created().iter().map(|handle| format!("memory pool {handle:#x}")));
        lines.extend(state.arrays.handles().iter().map(|handle| format!("array {handle:#x}")));
        lines.extend(
            state.modules.libraries.handles().iter().map(|handle| format!("library {handle:#x}")),
        );
        for handle in state.modules.modules.handles() {
            if state.modules.modules.get(handle).is_some_and(|module| module.library.is_none()) {
                lines.push(format!("module {handle:#x}"));
            }
        }
        let physicals = state.vmm.physicals.handles();
        lines.extend(physicals.iter().map(|handle| format!("physical memory {handle:#x}")));
        let reserved = state.vmm.reservations.keys();
        lines.extend(reserved.map(|address| format!("reserved addresses {address:#x}")));
        for block in state.memory.blocks() {
            lines.push(format!(
                "{:?} memory {:#x} of {} bytes",
                block.kind, block.device, block.size
            ));
        }
        lines
    }

    /// Reports every live object as a violation.
    pub(crate) fn report_leaks(&self) {
        for line in self.leaks() {
            self.violate(Check::Leak, || Violation {
                check: Check::Leak,
                call: "at the end",
                what: format!("{line} is still alive"),
                stream: 0,
            });
        }
    }

    /// Loses every context to `code`.
    pub(crate) fn fault_devices(&self, code: CudaError) {
        let mut state = self.lock();
        for context in state.contexts.values_mut() {
            context.lost.get_or_insert(code);
        }
        drop(state);
        self.progress.notify_all();
    }

    /// Ends the machine's threads and waits for them.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.engines.notify_all();
        self.hosts.notify_all();
        self.destructors.stop();
        for thread in threads {
            // A thread that panicked has ended, which is all that is asked.
            let _ = thread.join();
        }
    }
}
