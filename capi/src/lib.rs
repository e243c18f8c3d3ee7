//! wharf for engines in C and C++.
//!
//! The interface is `include/wharf.h`, which cbindgen makes of this crate, and `include/wharf.hpp`
//! over it. Each function checks what it is given, calls the library, and turns what comes of it
//! into a status; nothing here has a policy of its own.
//!
//! # Map, lowest first
//!
//! * `status`: what calls return, the thread's last error, the log.
//! * `table`: objects behind handles.
//! * `cell`: places for what one call at a time may use.
//! * `args`: pointers and options of the caller.
//! * `slots`: how a slot is described.
//! * `context`, `stream`, `pool`, `buffer`, `step`, `inputs`, `reader`, `results`, `outputs`: the
//!   functions, by their objects.
//! * `torch`: PyTorch's pluggable allocator.

#![expect(
    non_camel_case_types,
    clippy::doc_markdown,
    reason = "the names are C's, and the documentation is the header's"
)]

mod args;
mod buffer;
mod cell;
mod context;
mod inputs;
mod outputs;
mod pool;
mod reader;
mod results;
mod slots;
mod status;
mod step;
mod stream;
mod table;
mod torch;

pub use buffer::*;
pub use context::*;
pub use inputs::*;
pub use outputs::*;
pub use pool::*;
pub use reader::*;
pub use results::*;
pub use slots::*;
pub use status::*;
pub use step::*;
pub use stream::*;
pub use torch::*;
