//! A step: one stream makes a layer's input, another one uses it.

use std::error::Error;

use softcuda::{Checks, Config, Schedule, Simulator};
use wharf::driver::EventKind;
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::{Context, Driver, Event, Stream};

/// Runs the step, with the second stream behind the first or not, and returns what was found.
pub(crate) fn step(waits: bool) -> Result<Vec<String>, Box<dyn Error>> {
    let mut checks = Checks::default();
    checks.race = true;
    // An operation runs when something asks for it: what nothing orders is told by the check, and
    // is not in the right order by luck.
    let config =
        Config { schedule: Schedule::Late, checks, print_violations: false, ..Config::default() };
    let machine = Simulator::new(config);
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api()?)?;
    let context = Context::retain(&driver.device(0)?)?;
    let (copies, model) = (Stream::new(&context)?, Stream::new(&context)?);
    let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 64 << 20)?)?;
    let input: Buffer<u8> = pool.alloc(1 << 20, &copies)?;

    input.fill(1, &copies)?;
    if waits {
        let made = Event::new(&context, EventKind::Ordering)?;
        copies.record(&made)?;
        model.wait_event(&made)?;
    }
    input.fill(2, &model)?;

    context.synchronize()?;
    Ok(machine.violations().iter().map(ToString::to_string).collect())
}
