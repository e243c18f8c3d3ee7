//! Calls on streams that are captured: what they add to the capture, and what is refused.
//!
//! The captures themselves are part of the graphs: see [`graph::capture`](crate::graph::capture).

mod record;
mod rules;
