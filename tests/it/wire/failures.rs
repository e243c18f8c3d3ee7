//! Each call of a transport refused in turn, under random sequences of a pool.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wharf::memory::{DeviceMemoryResource, MemoryResource, UnbackedResource};
use wharf::slab::{AllocError, Block, PoolOptions};
use wharf::{CudaError, Error};

use super::rig::{GIB, MIB, REFUSED, Random, Recorder, registrations, wired};
use crate::backend::{Config, Simulator, on_machine};
use crate::memory_kinds::context_of;

/// How a sequence went.
#[derive(Default)]
struct Run {
    refused: usize,
    lost: usize,
}

/// Random allocations, frees and trims; the pieces that are lost are never given out again.
fn sequence(recorder: &Arc<Recorder>, seed: u64) -> Run {
    let options = PoolOptions::default().piece_bytes(4 * MIB).thread_cache_bytes(0);
    let pool = wired(UnbackedResource::new(GIB).unwrap(), recorder, options.max_bytes(96 * MIB));
    let (mut random, mut run) = (Random(seed), Run::default());
    let mut blocks: Vec<(Block, usize)> = Vec::new();
    for _ in 0..300 {
        if random.below(2) > 0 {
            let size = MIB / 2 + random.size(23);
            match pool.alloc(size) {
                Ok(block) => {
                    assert!(recorder.covers(block.address(), size), "{block:?} of {size}");
                    blocks.push((block, size));
                }
                Err(AllocError::Upstream(error)) => {
                    assert_eq!(error, REFUSED);
                    run.refused += 1;
                }
                Err(AllocError::Exhausted(_)) => {}
                Err(error) => panic!("{error}"),
            }
        } else if !blocks.is_empty() {
            let (block, _) = blocks.swap_remove(random.below(blocks.len()));
            pool.dealloc(block).unwrap();
        }
        if random.below(4) == 0 {
            let trimmed = pool.trim(Duration::ZERO, 0);
            assert_eq!(trimmed.error, (trimmed.lost > 0).then_some(REFUSED));
            run.lost += trimmed.lost;
        }
        let live: usize = recorder.live().iter().map(|piece| piece.len).sum();
        let kept: usize = recorder.book().kept.iter().map(|piece| piece.len).sum();
        // All committed memory is registered, or lost.
        assert_eq!(pool.upstream().upstream().committed(), live + kept);
        assert_eq!(registrations(&pool).pieces(), recorder.live());
        for (block, size) in &blocks {
            let end = block.address() + *size as u64;
            let apart = |lost: &wharf::memory::Piece| {
                end <= lost.address || lost.address + lost.len as u64 <= block.address()
            };
            assert!(recorder.book().kept.iter().all(apart), "a lost piece is in use");
        }
    }
    for (block, _) in blocks {
        pool.dealloc(block).unwrap();
    }
    run.lost += pool.trim(Duration::ZERO, 0).lost;
    drop(pool);
    assert!(recorder.live().is_empty());
    run
}

#[test]
fn each_registration_that_is_refused_undoes_its_commit() {
    let count = {
        let recorder = Recorder::new();
        sequence(&recorder, 3);
        recorder.book().attached
    };
    assert!(count > 10, "{count}");
    for nth in 1..=count {
        let recorder = Recorder::new();
        recorder.book().refuse_attach = nth;
        let run = sequence(&recorder, 3);
        assert_eq!((run.refused, run.lost), (1, 0), "registration {nth}");
        let book = recorder.book();
        assert_eq!(book.attached, book.detached + 1);
    }
}

#[test]
fn each_registration_whose_end_is_refused_loses_its_piece_and_nothing_is_reused() {
    let count = {
        let recorder = Recorder::new();
        sequence(&recorder, 3);
        recorder.book().detached
    };
    let mut trims = 0;
    for nth in 1..=count {
        let recorder = Recorder::new();
        recorder.book().refuse_detach = nth;
        let run = sequence(&recorder, 3);
        let kept = recorder.book().kept.clone();
        assert_eq!((run.refused, kept.len()), (0, 1), "end {nth}");
        trims += usize::from(run.lost == kept[0].len);
        // Generations are counted: no two pieces in one place had the same.
        assert!(kept[0].generation >= 1);
    }
    // All but those that a pool released to make room.
    assert!(trims * 2 > count, "{trims} of {count}");
}

/// Both at once, in all seeds' orders: what is attached is detached or kept.
#[test]
fn registrations_are_balanced_under_any_sequence() {
    for seed in 1..40 {
        let recorder = Recorder::new();
        {
            let mut book = recorder.book();
            book.refuse_attach = 2 + usize::try_from(seed).unwrap() % 9;
            book.refuse_detach = 1 + usize::try_from(seed).unwrap() % 5;
        }
        sequence(&recorder, seed);
        let book = recorder.book();
        let refused = usize::from(book.attached >= book.refuse_attach);
        assert_eq!(book.attached, book.detached + refused, "seed {seed}");
    }
}

/// The calls of the driver, in turn: a commit that failed is attached to nothing.
#[test]
fn a_commit_that_the_driver_refuses_is_no_registration() {
    for call in ["cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemUnmap"] {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let (context, recorder) = (context_of(driver), Recorder::new());
            let memory = DeviceMemoryResource::new(&context, GIB).unwrap();
            let options = PoolOptions::default().piece_bytes(4 * MIB).thread_cache_bytes(0);
            let pool = wired(memory, &recorder, options);
            machine.fail(call, 1, CudaError::INVALID_VALUE);
            let outcome = pool.alloc(MIB);
            if call == "cuMemUnmap" {
                pool.dealloc(outcome.unwrap()).unwrap();
                let trimmed = pool.trim(Duration::ZERO, 0);
                assert_eq!((trimmed.released, trimmed.lost), (0, 4 * MIB));
            } else {
                assert!(matches!(outcome, Err(AllocError::Upstream(_))), "{outcome:?}");
            }
            assert!(recorder.live().is_empty(), "{call}");
            let block = pool.alloc(MIB).unwrap();
            assert!(recorder.covers(block.address(), MIB));
            pool.dealloc(block).unwrap();
            drop(pool);
            assert!(recorder.live().is_empty());
        });
        assert_eq!(machine.leaks(), Vec::<String>::new(), "{call}");
    }
}

/// A transport that keeps a registration may still use the memory: not even the end of the pool
/// takes it away, and the context is told.
#[test]
fn a_piece_that_is_lost_is_leaked_and_told() {
    let machine = Arc::new(Simulator::new(Config::default()));
    let leaked = on_machine(&machine, |driver| {
        let (context, recorder) = (context_of(driver), Recorder::new());
        let memory = DeviceMemoryResource::new(&context, GIB).unwrap();
        let options = PoolOptions::default().piece_bytes(4 * MIB).thread_cache_bytes(0);
        let pool = wired(memory, &recorder, options);
        let block = pool.alloc(MIB).unwrap();
        pool.dealloc(block).unwrap();
        recorder.book().refuse_detach = 1;
        let trimmed = pool.trim(Duration::ZERO, 0);
        assert_eq!((trimmed.released, trimmed.lost, trimmed.error), (0, 4 * MIB, Some(REFUSED)));
        let before = context.drop_errors();
        drop(pool);
        context.drop_errors() - before
    });
    assert_eq!(leaked, 1);
    assert!(!machine.leaks().is_empty(), "the mapping is still there");
}

/// A resource with a transport keeps the contract of resources.
#[test]
#[expect(unsafe_code, reason = "commits and decommits what a pool would not")]
fn a_wired_resource_refuses_what_is_not_free_or_not_committed() {
    let recorder = Recorder::new();
    let memory = wharf::memory::WiredResource::new(UnbackedResource::new(GIB).unwrap(), recorder);
    let unit = memory.granularity();
    // SAFETY: nothing else uses the resource; what breaks the contract is refused.
    let commit = |at: usize, len: usize| unsafe { memory.commit(at * unit, len * unit) };
    // SAFETY: as above.
    let decommit = |at: usize, len: usize| unsafe { memory.decommit(at * unit, len * unit) };
    let is_invalid = |outcome: Result<(), Error>| {
        outcome.is_err_and(|error| error.code() == Some(CudaError::INVALID_VALUE))
    };
    commit(2, 3).unwrap();
    assert!(is_invalid(commit(2, 1)) && is_invalid(decommit(2, 2)) && is_invalid(decommit(3, 2)));
    assert!(is_invalid(decommit(0, 1)) && is_invalid(commit(1 << 20, 1)));
    decommit(2, 3).unwrap();
    assert!(is_invalid(decommit(2, 3)));
    let seen = BTreeSet::from([memory.registrations().unwrap().pieces().len()]);
    assert_eq!(seen, BTreeSet::from([0]));
}
