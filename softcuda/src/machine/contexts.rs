//! Contexts from their making to their end, with what belongs to them.

use super::State;
use crate::context::Context;

impl State {
    /// Makes a context: a primary one that was so often retained, or another.
    pub(crate) fn new_context(&mut self, ordinal: i32, flags: u32, retained: Option<u32>) -> u64 {
        self.next_id += 1;
        self.contexts.insert(Context::new(ordinal, flags, self.next_id, retained))
    }

    /// The handle of the device's primary context, made active if it is not.
    pub(crate) fn activate_primary(&mut self, ordinal: i32) -> u64 {
        let flags = self.primary_flags.get(&ordinal).copied().unwrap_or(0);
        let Some(name) = self.primaries.get(&ordinal).copied() else {
            let handle = self.new_context(ordinal, flags, Some(0));
            self.primaries.extend(self.contexts.name(handle).map(|name| (ordinal, name)));
            return handle;
        };
        if self.contexts.named(name).is_none() {
            self.next_id += 1;
            self.contexts.restore(name, Context::new(ordinal, flags, self.next_id, Some(0)));
        }
        name.raw
    }

    /// The device's primary context, if it is active.
    pub(crate) fn active_primary(&self, ordinal: i32) -> Option<u64> {
        self.primaries
            .get(&ordinal)
            .map(|name| name.raw)
            .filter(|handle| self.contexts.contains(*handle))
    }

    /// Takes a context down with everything in it. Operations in flight keep what they use.
    pub(crate) fn destroy_context(&mut self, context: u64) {
        for stream in self.streams.handles() {
            if self.streams.get(stream).is_some_and(|stream| stream.context == context) {
                self.graphs.abandon_capture(stream);
                self.streams.remove(stream);
            }
        }
        for event in self.events.handles() {
            if self.events.get(event).is_some_and(|event| event.context == context) {
                self.events.remove(event);
            }
        }
        let owned: Vec<_> =
            self.memory.blocks().filter(|block| block.context == context).cloned().collect();
        for block in owned {
            self.release(&block);
        }
        for array in self.arrays.handles() {
            if self.arrays.get(array).is_some_and(|array| array.block.context == context) {
                self.arrays.remove(array);
            }
        }
        for variable in self.modules.forget_context(context) {
            self.release(&variable);
        }
        for other in self.contexts.values_mut() {
            other.peers.retain(|peer| *peer != context);
        }
        // "The primary context" of a device is always the same: its handle is no other context's.
        if self.primaries.values().any(|primary| primary.raw == context) {
            self.contexts.withdraw(context);
        } else {
            self.contexts.remove(context);
        }
    }
}
