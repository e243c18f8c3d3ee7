//! What a profiler is told of a replay, heard by a tool in this process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]
#![expect(unsafe_code, reason = "the tool implements its side of NVTX")]

#[path = "../../tests/nvtx/tool.rs"]
mod tool;

use std::sync::atomic::AtomicBool;

use tool::Event;
use wharf_cli::generate::Generator;
use wharf_cli::replay::{Settings, run};
use wharf_cli::schedule::Scheduler;
use wharf_cli::target::{Choice, Software, Target};

/// A range as it was told: how deep it lies, its name, category and bytes.
#[derive(Debug)]
struct Range {
    depth: usize,
    name: String,
    category: String,
    bytes: Option<u64>,
}

fn ranges(events: &[Event]) -> Vec<Range> {
    let (mut ranges, mut depth) = (Vec::new(), 0);
    for event in events {
        match event.clone() {
            Event::Push { name, category, payload } => {
                ranges.push(Range { depth, name, category, bytes: payload });
                depth += 1;
            }
            Event::Pop => depth -= 1,
            _ => (),
        }
    }
    assert_eq!(depth, 0, "every range ends");
    ranges
}

#[test]
fn a_replay_of_100_steps_is_told() {
    let target = Target::new(Choice::Softcuda, Software::default()).unwrap();
    let steps = Scheduler::new(Generator::new(1).map(Ok)).take(100);
    let settings = Settings { buckets: vec![8, 64, 512, 2048], ..Settings::default() };
    let mut written = 0;
    let outcome = run(&target, &settings, steps, &AtomicBool::new(false), |record| {
        written += record.bytes;
        Ok(())
    });
    outcome.unwrap();
    let told = tool::told_here();
    let ranges = ranges(&told);
    // A step's range names its set and bucket: `staging::submit(step, 64)`.
    let of = |name: &str| {
        let operation = |it: &str| it.split('(').next() == Some(name);
        ranges.iter().filter(|range| operation(&range.name)).collect::<Vec<_>>()
    };

    for (name, category, count) in [
        ("staging::build", "staging", 1),
        ("staging::begin", "staging", 100),
        ("staging::submit", "staging", 100),
        ("graph::instantiate", "graph", 12),
    ] {
        let found = of(name);
        assert_eq!(found.len(), count, "{name}");
        assert!(found.iter().all(|range| range.category == category), "{found:?}");
    }
    // Graphs are made when the buffers are built, inside that range; a step is in no other.
    assert!(of("graph::instantiate").iter().all(|range| range.depth > 0));
    let steps = of("staging::submit");
    let is_step = |range: &Range| range.name.starts_with("staging::submit(step, ");
    assert!(steps.iter().all(|range| range.depth == 0 && is_step(range)), "{steps:?}");
    let submitted = steps.iter().map(|range| range.bytes.unwrap()).sum::<u64>();
    assert!(submitted >= written, "{submitted} bytes with padding, {written} without");
    let commits = of("memory::pinned::commit");
    assert!(
        !commits.is_empty()
            && commits.iter().all(|range| range.bytes.is_some_and(|bytes| bytes > 0))
    );
    assert!(commits.iter().all(|range| range.category == "memory"));

    assert!(
        told.iter().any(|event| matches!(event, Event::Stream { name, .. } if name == "staging"))
    );
    assert!(
        told.iter().any(|event| matches!(event, Event::Thread { name, .. } if name == "replay"))
    );
    assert_eq!((tool::domains(), tool::strings().is_empty()), (vec!["wharf".to_owned()], false));
}
