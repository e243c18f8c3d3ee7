//! The pool's hand-over of blocks: the real pool with the real streams of a driver, on one block.

use super::Guarded;
use super::machine::{Machine, model, spawn};
use crate::memory::UnbackedResource;
use crate::pool::{Buffer, Pool, PoolBuilder, Pressure};
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

/// A pool of some blocks. No allocation waits and no pass begins because time has passed:
/// executions are repeatable.
fn pool_of(blocks: usize, builder: PoolBuilder) -> Pool {
    let slabs = PoolOptions::default().thread_cache_bytes(0);
    let builder = builder.slabs(slabs).max_bytes(blocks * BLOCK);
    let builder = builder.wait(Duration::ZERO).keep_idle(Duration::MAX);
    builder.build(UnbackedResource::new(4 * BLOCK).unwrap()).unwrap()
}

impl Scene {
    fn new() -> Self {
        let machine = Machine::new(Schedule::Eager);
        let pool = pool_of(1, Pool::builder());
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

/// A pool and a buffer are dropped by two threads: the last buffer ends the pool's memory.
#[test]
fn pool_ends_beside_a_drop() {
    model("pool_ends_beside_a_drop", || {
        let machine = Machine::new(Schedule::Eager);
        let stream = machine.stream();
        let kept = std::sync::Arc::new(());
        let hook = std::sync::Arc::clone(&kept);
        // The pool keeps its hook, and what that holds, to the end.
        let never = move |_: &Pressure| std::sync::Arc::strong_count(&hook) == 0;
        let pool = pool_of(2, Pool::builder().on_pressure(never));
        let [buffer, last] = [(); 2].map(|()| pool.alloc::<u8>(BLOCK, &stream).unwrap());
        let thread = spawn(move || drop(buffer));
        drop(pool);
        thread.join().unwrap();
        drop(last);
        assert_eq!(std::sync::Arc::strong_count(&kept), 1, "a parked reference keeps the pool");
    });
}
