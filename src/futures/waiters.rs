//! The list of futures that wait.
//!
//! **No wake is lost.** A future enters the list and then looks at its work again; a poll comes
//! behind the completion that caused it. Both take the lock: either the poll finds the future, or
//! the future finds its work complete.
//!
//! **No poll ends what it asks about.** A question shares its set with the future that asked. It is
//! dropped under the lock while that future is still there: to go, the future has to take the lock.

use std::task::Waker;

use super::awaited::Watch;
use crate::error::Error;
use crate::sync::Mutex;

/// Futures that wait, and pollers that wait for such.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By ascending numbers.
    list: Vec<Waiter>,
    /// The last number that was given.
    last: u64,
    /// To be woken when there is something in the list.
    idle: Vec<Waker>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    watch: Watch,
    waker: Option<Waker>,
    /// What the watch has found, for the future.
    failed: Option<Error>,
}

impl Waiters {
    /// Lets the next poll that finds the work complete wake `waker`, in the place that the future
    /// has already, or in a new one. Returns the number of the place.
    ///
    /// # Errors
    ///
    /// What a poll has found in the meantime. The future has no place then.
    pub(crate) fn enlist(
        &self,
        place: Option<u64>,
        waker: &Waker,
        watch: impl FnOnce() -> Watch,
    ) -> Result<u64, Error> {
        // Others' code runs without the lock: also the drops of wakers.
        let waker = waker.clone();
        if let Some(number) = place {
            let mut state = self.state.lock();
            if let Some(at) = state.at(number) {
                if let Some(error) = state.list[at].failed {
                    let _waiter = state.list.remove(at);
                    return Err(error);
                }
                let replaced = state.list[at].waker.replace(waker);
                drop(state);
                drop(replaced);
                return Ok(number);
            }
        }
        let watch = watch();
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        state.list.push(Waiter { number, watch, waker: Some(waker), failed: None });
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        idle.into_iter().for_each(Waker::wake);
        Ok(number)
    }

    /// Takes a future out of the list, if it is there.
    pub(crate) fn leave(&self, number: u64) {
        let mut state = self.state.lock();
        let left = state.at(number).map(|at| state.list.remove(at));
        drop(state);
        drop(left);
    }

    /// Wakes the futures whose work is complete or has failed, and returns how many wait still.
    pub(crate) fn poll(&self) -> usize {
        let mut woken = Vec::new();
        let mut state = self.state.lock();
        state.list.retain_mut(|waiter| waiter.waits(&mut woken));
        let left = state.waiting();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        left
    }

    /// How many futures wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting()
    }

    /// Whether a future waits; if none does, `waker` is woken when one begins to.
    pub(crate) fn is_awaited(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = self.state.lock();
        let is_awaited = state.waiting() != 0;
        if !is_awaited && !state.idle.iter().any(|other| other.will_wake(&waker)) {
            state.idle.push(waker);
        }
        is_awaited
    }
}

impl State {
    fn at(&self, number: u64) -> Option<usize> {
        self.list.binary_search_by_key(&number, |waiter| waiter.number).ok()
    }

    fn waiting(&self) -> usize {
        self.list.iter().filter(|waiter| waiter.failed.is_none()).count()
    }
}

impl Waiter {
    /// Whether it stays in the list; its waker comes to `woken` if it is to be woken.
    fn waits(&mut self, woken: &mut Vec<Waker>) -> bool {
        if self.failed.is_some() {
            return true;
        }
        let outcome = self.watch.ask();
        if outcome != Ok(false) {
            woken.extend(self.waker.take());
        }
        self.failed = outcome.err();
        outcome != Ok(true)
    }
}
