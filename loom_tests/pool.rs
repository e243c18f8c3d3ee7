//! The pool's hand-over of blocks: the real pool with the real streams of a driver, on one block.

use super::Guarded;
use super::machine::{Machine, model, spawn};
use crate::memory::UnbackedResource;
use crate::pool::{Buffer, Pool};
use crate::slab::{AllocError, PoolOptions};
use crate::stream::Stream;
use loom::sync::Arc;
use softcuda::Schedule;
use std::time::Duration;

/// The size of the only block.
const BLOCK: usize = 2 << 20;

struct Scene {
    pool: Pool,
    /// The bytes of the block.
    memory: Guarded,
    streams: [Stream; 2],
    _machine: Machine,
}

impl Scene {
    fn new() -> Self {
        let machine = Machine::new(Schedule::Eager);
        let slabs = PoolOptions::default().thread_cache_bytes(0);
        // No allocation waits and no pass begins because time has passed: executions are
        // repeatable.
        let builder = Pool::builder().slabs(slabs).max_bytes(BLOCK);
        let builder = builder.wait(Duration::ZERO).keep_idle(Duration::MAX);
        let pool = builder.build(UnbackedResource::new(4 * BLOCK).unwrap()).unwrap();
        let streams = [machine.stream(), machine.stream()];
        Self { pool, memory: Guarded::new(1), streams, _machine: machine }
    }

    /// Allocates the block for a stream, and uses it as its only owner.
    fn alloc(&self, stream: usize) -> Result<Buffer<u8>, AllocError> {
        let buffer = self.pool.alloc(BLOCK, &self.streams[stream])?;
        self.memory.own(0);
        Ok(buffer)
    }
}

/// Two threads hold one buffer: what each did is over for the thread that gets the block next.
#[test]
fn pool_last_of_two_handles() {
    model("pool_last_of_two_handles", || {
        let scene = Arc::new(Scene::new());
        let one = scene.alloc(0).unwrap();
        let Some(another) = one.slice(..) else { unreachable!() };
        let other = scene.clone();
        let thread = spawn(move || {
            other.memory.share(0);
            another.record_use(&other.streams[1]).unwrap();
            drop(another);
        });
        scene.memory.share(0);
        drop(one);
        let early = scene.alloc(0);
        thread.join().unwrap();
        let block = early.or_else(|_| scene.alloc(0));
        assert!(block.is_ok(), "refused while the only block is free: {block:?}");
    });
}
