//! Futures and the poller that wakes them: no wake is lost, and no poll ends what a future has.

use super::model;
use crate::error::Error;
use crate::futures::{Awaited, Poller, Watch};
use crate::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Count;
use std::task::{Context, Poll, Wake, Waker};

/// Work of which a word says that it is complete.
struct Work(Arc<AtomicU64>);

impl Work {
    fn is_done(word: &AtomicU64) -> bool {
        // Acquire: pairs with the Release of the device.
        word.load(Ordering::Acquire) != 0
    }
}

impl Awaited for &Work {
    type Output = ();
    type Error = Error;

    fn attempt(&mut self) -> Result<Option<()>, Error> {
        Ok(Work::is_done(&self.0).then_some(()))
    }

    fn watch(&self) -> Watch {
        let word = Arc::clone(&self.0);
        Watch::new(move || Ok(Work::is_done(&word)))
    }
}

#[derive(Default)]
struct Wakes(Count);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The device completes and its thread polls once, whatever the future is doing: it is ready by
/// then or it is woken.
#[test]
fn poller_loses_no_wake() {
    model("poller_loses_no_wake", || {
        let word = Arc::new(AtomicU64::new(0));
        let (work, poller) = (Work(Arc::clone(&word)), Poller::new());
        let device = {
            let poller = poller.clone();
            thread::spawn(move || {
                // Release: pairs with the Acquire of `is_done`.
                word.store(1, Ordering::Release);
                poller.poll();
            })
        };
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut waiting = poller.wait(&work);
        let first = Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker));
        device.join().unwrap();
        assert!(first.is_ready() || wakes.0.load(Ordering::Relaxed) == 1, "not woken");
        let second = Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker));
        assert!(matches!(second, Poll::Ready(Ok(()))));
        assert_eq!(poller.waiting(), 0);
    });
}

/// A task goes with its work while another thread polls: nothing of the work is left with that.
#[test]
fn poller_ends_nothing_that_it_asks_about() {
    model("poller_ends_nothing_that_it_asks_about", || {
        let work = Work(Arc::new(AtomicU64::new(0)));
        let poller = Poller::new();
        let mut waiting = poller.wait(&work);
        let pending = Pin::new(&mut waiting).poll(&mut Context::from_waker(Waker::noop()));
        assert!(pending.is_pending());
        // Release: pairs with the Acquire of `is_done`.
        work.0.store(1, Ordering::Release);
        let polling = {
            let poller = poller.clone();
            thread::spawn(move || poller.poll())
        };
        drop(waiting);
        assert_eq!(Arc::strong_count(&work.0), 1, "the poll may be the last to have the work");
        polling.join().unwrap();
    });
}
