//! A prefill and a decode process: KV blocks go from one to the other while the next request's are
//! computed.
//!
//! ```text
//!   prefill   compute 1 | compute 2       | compute 3      |
//!                       | ask 1, write 1  | ask 2, write 2 |
//!   decode      blocks for 1, admit, ...  | stage the table of 1, read every block, compare
//! ```
//!
//! ```console
//! $ prefill_decode                                 both on this machine
//! $ prefill_decode decode 0.0.0.0:7000             on the one machine
//! $ prefill_decode prefill OTHER:7000              on the other
//! ```
//!
//! The address is that of a socket by which the two exchange the first metadata and nothing else.
//! Further words: `device` has the blocks in device memory, with handles that UCX's CUDA transports
//! can export; `shared` is for `UCX_TLS` of shared memory; `requests=N`, `blocks=N` (the most of a
//! request) and `kib=N` (of a block). `WHARF_TRACE` names a trace of requests, as the Azure LLM
//! inference traces: a request of N tokens has a block for each 16.
//!
//! `libnixl_capi.so` and a CUDA driver are found by `LD_LIBRARY_PATH`.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

mod decode;
mod prefill;
mod process;

use std::env;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use process::Shape;

type Any = Box<dyn std::error::Error>;

/// No step takes so long.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Any> {
    let words: Vec<String> = env::args().skip(1).collect();
    let (role, shape) = Shape::parse(&words)?;
    match role.as_slice() {
        [] => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?.to_string();
            let mut command = Command::new(env::current_exe()?);
            let child = command.args(["prefill", &address]).args(&words).spawn()?;
            let mut child = Prefill(child);
            decode::run(&listener, shape)?;
            child.end()
        }
        ["decode", address] => decode::run(&TcpListener::bind(address)?, shape),
        ["prefill", address] => prefill::run(TcpStream::connect(address)?, shape),
        _ => Err(format!("unknown words: {role:?}").into()),
    }
}

/// The other process, which does not outlive this one.
struct Prefill(Child);

impl Prefill {
    fn end(&mut self) -> Result<(), Any> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("prefill: {status}").into()) }
    }
}

impl Drop for Prefill {
    fn drop(&mut self) {
        // After its end both are errors.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}
