//! The end of a stream's work, for what has to come after it and does not hold the stream.

use std::fmt;
use std::sync::Arc;

use super::Timeline;
use crate::driver::Event;
use crate::error::Error;
use crate::sync::atomic::Ordering::Relaxed;

/// Where a stream's work ends at the time of asking; for a stream that is gone, where it ended.
///
/// Making and holding one makes no driver call. A stream that goes meanwhile records an event
/// first, so that device work can still be ordered behind it.
pub(crate) struct Tail(Timeline);

impl Timeline {
    /// The end of the stream's work.
    pub(crate) fn tail(&self) -> Tail {
        // Relaxed: the stream goes after its last use, which came after this.
        self.0.tails.fetch_add(1, Relaxed);
        Tail(self.clone())
    }
}

impl Tail {
    /// An event behind everything that the stream has been given. `None` while it is captured: an
    /// event would be a part of the graph.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused, or earlier work failed.
    pub(crate) fn event(&self) -> Result<Option<Arc<Event>>, Error> {
        let inner = &*self.0.0;
        inner.check_process()?;
        inner.pen.end(inner.is_on_its_thread(), &inner.context)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.0.0.tails.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tail").field(&self.0).finish()
    }
}
