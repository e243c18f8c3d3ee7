//! The command `wharf`.
//!
//! A module names only modules above it in this table; `tests/layering.rs` enforces it.
//!
//! | module | holds |
//! |---|---|
//! | `arguments` | the command line |
//! | `signals`, `input` | SIGINT, SIGTERM and SIGHUP; traces that come while the command runs |
//! | `failure` | exit statuses |
//! | `replay`, `map`, `bench`, `doctor`, `qualify` | the subcommands |

mod arguments;
mod bench;
mod doctor;
mod failure;
mod input;
mod map;
mod qualify;
mod replay;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use self::arguments::{Arguments, Command};

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Replay(options) => replay::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Map(options) => map::run(&options),
        Command::Qualify(options) => qualify::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
