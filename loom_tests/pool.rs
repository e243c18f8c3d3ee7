//! The pool's hand-over of blocks: the real pool with the real streams of a driver, on one block.

use super::Guarded;
use super::machine::{Machine, model, model_within, spawn};
use crate::memory::UnbackedResource;
use crate::pool::{Buffer, Pool, PoolBuilder};
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
        Self::with(Pool::builder())
    }

    fn with(builder: PoolBuilder) -> Self {
        let machine = Machine::new(Schedule::Eager);
        let slabs = PoolOptions::default().thread_cache_bytes(0);
        // No allocation waits and no pass begins because time has passed: executions are
        // repeatable.
        let builder = builder.slabs(slabs).max_bytes(BLOCK);
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

/// The last buffer ends beside the pool, and leaves its reference in a list or not: nothing is left
/// of the pool then.
#[test]
fn pool_ends_with_its_last_buffer() {
    // The end of a pool passes every list of a stream.
    model_within(Some(1), "pool_ends_with_its_last_buffer", || {
        // What the pool keeps as long as there is any of it.
        let kept = std::sync::Arc::new(());
        let keeps = kept.clone();
        let scene = Scene::with(
            Pool::builder().on_pressure(move |_| std::sync::Arc::strong_count(&keeps) == 0),
        );
        let Scene { _machine, streams: [stream, _other], pool, .. } = scene;
        let buffer: Buffer<u8> = pool.alloc(BLOCK, &stream).unwrap();
        let thread = spawn(move || drop(buffer));
        drop(pool);
        thread.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&kept), 1, "the pool is kept by what it keeps");
    });
}

/// A buffer is first used by a stream that the pool has not seen, beside the pool's end: what it
/// leaves in the lists of that stream keeps nothing.
#[test]
fn pool_ends_beside_a_new_stream() {
    // The end of a pool passes every list of a stream.
    model_within(Some(1), "pool_ends_beside_a_new_stream", || {
        let kept = std::sync::Arc::new(());
        let keeps = kept.clone();
        let scene = Scene::with(
            Pool::builder().on_pressure(move |_| std::sync::Arc::strong_count(&keeps) == 0),
        );
        let Scene { _machine, streams: [stream, other], pool, .. } = scene;
        let buffer: Buffer<u8> = pool.alloc(BLOCK, &stream).unwrap();
        let thread = spawn(move || {
            buffer.record_use(&other).unwrap();
            drop(buffer);
            other
        });
        drop(pool);
        thread.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&kept), 1, "the pool is kept by what it keeps");
    });
}
