//! Prints the picture of a staging graph of twelve slots.
//!
//! `cargo run --features svg --example graph_svg > graph.svg`

use softcuda::{Config, Simulator};
use wharf::staging::{InputBuffers, Len};
use wharf::{Context, Driver};

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api()?)?;
    let context = Context::retain(&driver.device(0)?)?;
    let inputs = InputBuffers::builder(&context)
        .vllm_slots(64)
        .slot::<f32>("temperatures", Len::Requests)
        .slot::<f32>("top_p", Len::Requests)
        .slot::<i32>("top_k", Len::Requests)
        .slot::<u64>("seeds", Len::Requests)
        .slot::<i32>("adapter_ids", Len::Tokens)
        .buckets([256])
        .build()?;
    println!("{}", inputs.embed(256)?.graph().to_svg());
    Ok(())
}
