//! Forecasts of sizes, so that blocks and graphs are ready before they are asked for.
//!
//! An engine makes a [`ContextModel`] or a [`Plan`] and gives it to
//! [`staging::Prewarm`](crate::staging::Prewarm) or
//! [`pool::BlockPrewarm`](crate::pool::BlockPrewarm).
//!
//! An engine [records](Forecast::record_usage) the size of every step and asks for the sizes that
//! are [likely next](Forecast::predict_next_sizes). A size is a number in the caller's own unit:
//! padded tokens, bytes of a block.
//!
//! | source | knows | for |
//! |---|---|---|
//! | [`Plan`] | the sizes of an earlier run, in order | runs that repeat |
//! | [`ContextModel`] | what followed the last one, two and three sizes | serving traffic |
//! | [`Frequency`] | the last 100 sizes | comparison with the original's rule |
//!
//! All take bounded memory, allocate only when they are made, and belong to one thread.
//!
//! A [`WarmSet`] decides by a forecast which sizes are made ready ahead of their use: blocks of a
//! pool with [`pool::BlockPrewarm`](crate::pool::BlockPrewarm), graphs of input buffers with
//! [`staging::Prewarm`](crate::staging::Prewarm). Their number is bounded, and they are given back
//! when the forecast changes.
//!
//! # Examples
//!
//! ```
//! use wharf::forecast::{ContextModel, Forecast};
//!
//! let mut sizes = ContextModel::new();
//! for size in [8, 16, 256].repeat(40) {
//!     sizes.record_usage(size);
//! }
//! assert_eq!(sizes.predict_next_sizes(1), [8]);
//! ```

mod context;
mod counts;
mod frequency;
mod lead;
mod plan;
mod recent;
mod scores;
mod warm;

use core::fmt;

pub use self::context::ContextModel;
pub use self::frequency::Frequency;
pub use self::plan::{Plan, PlanRecorder, Run};
pub use self::warm::{Change, WarmSet, WarmStats};

/// A source of forecasts.
#[doc(alias = "PredictiveBufferManager")]
pub trait Forecast: fmt::Debug + Send {
    /// Takes note that `size` was used.
    fn record_usage(&mut self, size: u32);

    /// Writes the sizes that are likely next into `sizes`, each once, the likeliest first, and
    /// returns how many there are: fewer than fit when not so many are known.
    fn predict(&self, sizes: &mut [u32]) -> usize;

    /// The `count` sizes that are likely next, the likeliest first; fewer when not so many are
    /// known.
    fn predict_next_sizes(&self, count: usize) -> Vec<u32> {
        let mut sizes = vec![0; count];
        let known = self.predict(&mut sizes);
        sizes.truncate(known);
        sizes
    }
}

impl<F: Forecast + ?Sized> Forecast for Box<F> {
    fn record_usage(&mut self, size: u32) {
        (**self).record_usage(size);
    }

    fn predict(&self, sizes: &mut [u32]) -> usize {
        (**self).predict(sizes)
    }
}

/// Appends those of `more` that `sizes` does not have among its first `known`, and returns how many
/// it has then.
fn append(sizes: &mut [u32], mut known: usize, more: impl IntoIterator<Item = u32>) -> usize {
    for size in more {
        if known == sizes.len() {
            break;
        }
        if !sizes[..known].contains(&size) {
            sizes[known] = size;
            known += 1;
        }
    }
    known
}
