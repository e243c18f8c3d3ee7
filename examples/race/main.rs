//! Two lines of an engine that are wrong, and what the software driver's check `race` says of them.
//!
//! `cargo run --example race`

mod run;

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("without an event:");
    for line in run::step(false)? {
        println!("  {line}");
    }
    println!("with one: {} violations", run::step(true)?.len());
    Ok(())
}
