//! Inputs by name, step by step, in the order of the Python module that wharf began from
//! (`docs/original.md`): `cargo run --example original_api`.
//!
//! On the software driver, so it needs no GPU. The tests run it too.
#![expect(clippy::print_stdout, reason = "an example prints")]

mod run;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut output = Vec::new();
    let outcome = run::run(&mut output);
    print!("{}", String::from_utf8_lossy(&output));
    outcome
}
