//! Transports that panic, and that call the pool whose memory they are told of.

use std::fmt::Debug;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use wharf::Error;
use wharf::memory::{MemoryResource, Piece, UnbackedResource, Wire, WiredResource};
use wharf::pool::Pool;
use wharf::slab::{AllocError, PoolOptions, SlabPool};
use wharf::{Stream, pool::Buffer};

use super::rig::{GIB, MIB};
use crate::backend::{Config, Simulator, on_machine};
use crate::memory_kinds::context_of;

/// Panics in a call, when it is told to.
#[derive(Debug, Default)]
struct Panicking {
    attach: Mutex<bool>,
    detach: Mutex<bool>,
}

fn take(flag: &Mutex<bool>) -> bool {
    std::mem::take(&mut *flag.lock().unwrap())
}

impl Wire for Panicking {
    type Key = ();

    fn attach(&self, _: &Piece) -> Result<(), Error> {
        assert!(!take(&self.attach), "expected by the test");
        Ok(())
    }

    fn detach(&self, _: &Piece, (): ()) -> Result<(), Error> {
        assert!(!take(&self.detach), "expected by the test");
        Ok(())
    }
}

fn options() -> PoolOptions {
    PoolOptions::default().piece_bytes(4 * MIB).max_bytes(64 * MIB).thread_cache_bytes(0)
}

#[test]
fn a_transport_that_panics_counts_as_one_that_refuses() {
    let wire = Arc::new(Panicking::default());
    let memory = WiredResource::new(UnbackedResource::new(GIB).unwrap(), Arc::clone(&wire));
    let pool = SlabPool::new(memory, options()).unwrap();
    let committed = || pool.upstream().upstream().committed();
    *wire.attach.lock().unwrap() = true;
    let refused = pool.alloc(3 * MIB).unwrap_err();
    assert!(matches!(refused, AllocError::Upstream(Error::Transport { .. })), "{refused}");
    assert_eq!((committed(), pool.stats().reserved), (0, 0), "the commit is undone");
    let block = pool.alloc(3 * MIB).unwrap();
    let address = block.address();
    pool.dealloc(block).unwrap();
    *wire.detach.lock().unwrap() = true;
    let trimmed = pool.trim(Duration::ZERO, 0);
    assert_eq!((trimmed.released, trimmed.lost), (0, 4 * MIB));
    assert!(matches!(trimmed.error, Some(Error::Transport { .. })), "{trimmed:?}");
    let block = pool.alloc(3 * MIB).unwrap();
    assert_ne!(block.address(), address, "a lost piece is not used again");
    pool.dealloc(block).unwrap();
    assert_eq!(pool.trim(Duration::ZERO, 0).released, 4 * MIB);
}

type Call = Box<dyn Fn() + Send + Sync>;

/// Calls what it is given, in each call.
#[derive(Default)]
struct Calling(Mutex<Option<Arc<Call>>>);

impl Calling {
    fn call(&self) {
        let call = self.0.lock().unwrap().clone();
        call.into_iter().for_each(|call| call());
    }
}

impl Wire for Calling {
    type Key = ();

    fn attach(&self, _: &Piece) -> Result<(), Error> {
        self.call();
        Ok(())
    }

    fn detach(&self, _: &Piece, (): ()) -> Result<(), Error> {
        self.call();
        Ok(())
    }
}

/// What the calls inside of calls were answered.
type Answers = Arc<Mutex<Vec<String>>>;

fn note(answers: &Answers, answer: impl Debug) {
    answers.lock().unwrap().push(format!("{answer:?}"));
}

/// All but one in each call are refused: no pool waits for itself.
fn all_refused(answers: &Answers, calls: usize) {
    let answers = answers.lock().unwrap();
    assert_eq!(answers.len(), calls, "{answers:?}");
    assert!(answers.iter().all(|it| it.contains("NOT_PERMITTED")), "{answers:?}");
}

#[test]
fn a_transport_that_calls_its_pool_is_refused_and_the_pool_does_not_wait_for_itself() {
    let wire = Arc::new(Calling::default());
    let memory = WiredResource::new(UnbackedResource::new(GIB).unwrap(), Arc::clone(&wire));
    let pool = Arc::new(SlabPool::new(memory, options()).unwrap());
    let (weak, answers) = (Arc::downgrade(&pool), Answers::default());
    let (of, heard): (Weak<SlabPool<_>>, _) = (weak, Arc::clone(&answers));
    let call: Call = Box::new(move || {
        let Some(pool) = of.upgrade() else { return };
        note(&heard, pool.alloc(5 * MIB).unwrap_err());
        note(&heard, pool.alloc(64).unwrap_err());
        note(&heard, pool.trim(Duration::ZERO, 0).error);
        assert!(pool.upstream().registrations().unwrap().pieces().is_empty());
        let _stats = pool.stats();
    });
    *wire.0.lock().unwrap() = Some(Arc::new(call));
    let block = pool.alloc(3 * MIB).unwrap();
    all_refused(&answers, 3);
    pool.dealloc(block).unwrap();
    assert_eq!(pool.trim(Duration::ZERO, 0).released, 4 * MIB);
    all_refused(&answers, 6);
    // Another pool is not this one.
    let other = SlabPool::new(UnbackedResource::new(GIB).unwrap(), options()).unwrap();
    let call: Call = Box::new(move || other.dealloc(other.alloc(MIB).unwrap()).unwrap());
    *wire.0.lock().unwrap() = Some(Arc::new(call));
    pool.dealloc(pool.alloc(64).unwrap()).unwrap();
}

#[test]
fn a_transport_that_calls_its_stream_ordered_pool_is_refused() {
    on_machine(&Arc::new(Simulator::new(Config::default())), |driver| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let wire = Arc::new(Calling::default());
        let memory = wharf::memory::DeviceMemoryResource::new(&context, GIB).unwrap();
        let memory = WiredResource::new(memory, Arc::clone(&wire));
        let pool = Pool::builder().slabs(options()).build(memory).unwrap();
        let answers = Answers::default();
        let on = Stream::new(&context).unwrap();
        let (of, heard) = (pool.clone(), Arc::clone(&answers));
        let call: Call = Box::new(move || {
            note(&heard, of.alloc::<u8>(5 * MIB, &on).map(drop).unwrap_err());
            note(&heard, of.alloc::<u8>(64, &on).map(drop).unwrap_err());
            note(&heard, of.trim(Duration::ZERO, 0).error);
            note(&heard, of.reserve_bytes(8 * MIB).map(drop).unwrap_err());
        });
        *wire.0.lock().unwrap() = Some(Arc::new(call));
        let block: Buffer<u8> = pool.alloc(3 * MIB, &stream).unwrap();
        all_refused(&answers, 4);
        drop(block);
        stream.synchronize().unwrap();
        assert_eq!(pool.trim(Duration::ZERO, 0).released, 4 * MIB);
        all_refused(&answers, 8);
        *wire.0.lock().unwrap() = None;
    });
}

/// Waits in its first call until it is let go.
struct Slow(Mutex<Option<(Sender<()>, Receiver<()>)>>);

impl Wire for Slow {
    type Key = ();

    fn attach(&self, _: &Piece) -> Result<(), Error> {
        let held = self.0.lock().unwrap().take();
        if let Some((entered, go)) = held {
            entered.send(()).unwrap();
            go.recv().unwrap();
        }
        Ok(())
    }

    fn detach(&self, _: &Piece, (): ()) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn a_slow_transport_holds_up_no_thread_that_finds_room() {
    let wire = Arc::new(Slow(Mutex::new(None)));
    let memory = WiredResource::new(UnbackedResource::new(GIB).unwrap(), Arc::clone(&wire));
    let pool = SlabPool::new(memory, options()).unwrap();
    let first = pool.alloc(MIB).unwrap();
    let (entered, wait) = channel();
    let (go, held) = channel();
    *wire.0.lock().unwrap() = Some((entered, held));
    thread::scope(|scope| {
        let grows = scope.spawn(|| pool.alloc(6 * MIB).map(|block| pool.dealloc(block)));
        wait.recv().unwrap();
        // Meanwhile: blocks of both kinds, a lease and its end, figures.
        for size in [64, MIB] {
            pool.dealloc(pool.alloc(size).unwrap()).unwrap();
        }
        let registrations = pool.upstream().registrations().unwrap();
        drop(registrations.lease(first.address(), MIB).unwrap());
        assert_eq!(registrations.pieces().len(), 1);
        assert!(pool.stats().reserved >= 4 * MIB);
        go.send(()).unwrap();
        grows.join().unwrap().unwrap().unwrap();
    });
    pool.dealloc(first).unwrap();
}
