//! Blocks that are freed by address: once, and only the block that begins there.

use super::Guarded;
use super::machine::{Machine, model, spawn};
use crate::memory::UnbackedResource;
use crate::pool::Pool;
use crate::slab::PoolOptions;
use loom::sync::Arc;
use softcuda::Schedule;
use std::time::Duration;

/// The size of the only block.
const BLOCK: usize = 2 << 20;

/// Two threads free one address; the one that does allocates the block again, by address too. What
/// each owner does with the block is over for the next.
#[test]
fn pool_address_freed_twice() {
    model("pool_address_freed_twice", || {
        let machine = Machine::new(Schedule::Eager);
        let slabs = PoolOptions::default().thread_cache_bytes(0);
        let builder = Pool::builder().slabs(slabs).max_bytes(BLOCK);
        let builder = builder.wait(Duration::ZERO).keep_idle(Duration::MAX);
        let pool = builder.build(UnbackedResource::new(4 * BLOCK).unwrap()).unwrap();
        let scene = Arc::new((pool, machine.stream(), Guarded::new(1)));
        let address = scene.0.alloc_address(BLOCK, &scene.1).unwrap();
        scene.2.own(0);
        let free = move |(pool, stream, memory): &(Pool, _, Guarded)| {
            let freed = pool.take_address(address);
            let Ok(buffer) = freed else { return false };
            memory.own(0);
            drop(buffer);
            // A life of its own, which the other thread may take for the first.
            let again = pool.alloc(BLOCK, stream);
            if let Ok(again) = again {
                let _: crate::pool::Buffer<u8> = again;
                memory.own(0);
            }
            true
        };
        let other = scene.clone();
        let thread = spawn(move || free(&other));
        let freed = free(&scene);
        assert!(freed ^ thread.join().unwrap(), "an address is freed once");
    });
}
