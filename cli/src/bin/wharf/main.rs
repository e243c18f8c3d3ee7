//! The command `wharf`.
//!
//! A module names only modules above it in this table; `tests/layering.rs` enforces it.
//!
//! | module | holds |
//! |---|---|
//! | `arguments` | the command line |
//! | `failure`, `signals` | exit statuses; SIGINT, SIGTERM and SIGHUP |
//! | `replay`, `map`, `bench`, `doctor`, `qualify` | the subcommands |

mod arguments;
mod bench;
mod doctor;
mod failure;
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
