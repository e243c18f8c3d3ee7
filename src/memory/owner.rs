//! The context of a resource with its account, and the one way into the driver.

use std::time::Instant;

use wharf_sys::Api;

use super::report::Tally;
use crate::driver::{Context, ContextScope, RelaxedCapture};
use crate::error::Error;

/// The context of a resource, which it keeps alive, and its account.
#[derive(Debug)]
pub(super) struct Owner {
    context: Context,
    pub(super) tally: Tally,
}

impl Owner {
    pub(super) fn new(context: &Context) -> Self {
        context.driver().sweep();
        Self { context: context.clone(), tally: Tally::default() }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn api(&self) -> &Api {
        self.context.driver().api()
    }

    pub(super) fn ordinal(&self) -> i32 {
        self.context.device().ordinal()
    }

    /// Makes the context current and sets the thread free of captures, for calls to the driver.
    ///
    /// # Errors
    ///
    /// * [`Error::Forked`]: this process is a child of the resource's.
    /// * [`Error::Driver`]: the context is lost or destroyed.
    pub(super) fn enter(&self) -> Result<Section<'_>, Error> {
        let scope = self.context.make_current()?;
        let relaxed = self.context.driver().relax_capture()?;
        Ok(Section { owner: self, _relaxed: relaxed, _scope: scope })
    }

    /// Takes note of an outcome that no caller is told of. Returns whether it is a success.
    pub(super) fn note(&self, outcome: Result<(), Error>) -> bool {
        let succeeded = outcome.is_ok();
        self.context.release().note(self.context.driver(), outcome);
        succeeded
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.context.driver().sweep();
    }
}

/// The time during which the calling thread may call the driver for a resource.
#[derive(Debug)]
pub(super) struct Section<'a> {
    owner: &'a Owner,
    _relaxed: RelaxedCapture<'a>,
    _scope: ContextScope<'a>,
}

impl Section<'_> {
    /// Makes one call to the driver; counts and times it.
    pub(super) fn call(&self, call: impl FnOnce(&Api) -> Result<(), Error>) -> Result<(), Error> {
        let start = Instant::now();
        let outcome = call(self.owner.api());
        self.owner.tally.call(start.elapsed());
        outcome
    }

    /// Makes a call that takes back something whose error is already known, so that its own can
    /// only be noted. Returns whether it succeeded.
    pub(super) fn undo(&self, call: impl FnOnce(&Api) -> Result<(), Error>) -> bool {
        self.owner.note(self.call(call))
    }

    pub(super) fn owner(&self) -> &Owner {
        self.owner
    }
}
