//! `wharf map`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use wharf::memory::Budget;
use wharf_cli::doctor::size;
use wharf_cli::map::{self, Kind, Mapped};
use wharf_cli::output::{
    Collision, Kept, Named, Output, create_folder, distinct, for_people, open_pipes,
};
use wharf_cli::target::{Software, Target};

use crate::arguments::Map;
use crate::failure::Failure;
use crate::replay::source::{Taken, steps_of};
use crate::signals::Signals;

/// Runs the workload, prints what the pools hold, and draws it.
pub(crate) fn run(options: &Map) -> Result<(), Failure> {
    let mut kinds = options.kind.clone();
    let mut seen = Vec::new();
    kinds.retain(|kind| {
        !seen.contains(kind) && {
            seen.push(*kind);
            true
        }
    });
    check(options, &kinds)?;
    let software = Software { schedule: options.schedule, verify: false };
    let target = Target::new(options.driver, software)?;
    target.tell_instead_of();
    // Before signals are caught, since it may wait.
    let _readers = pipes(options, &kinds).map_err(Failure::File)?;
    let signals = Signals::install()?;
    run_on(&target, options, &kinds, &signals).map_err(|failure| failure.unless_stopped(&signals))
}

fn run_on(
    target: &Target,
    options: &Map,
    kinds: &[Kind],
    signals: &Signals,
) -> Result<(), Failure> {
    // Created before the run: a path that cannot be written must not cost the run.
    let files = Files::create(options, kinds).map_err(Failure::File)?;
    let taken = Taken::default();
    let steps = steps_of(&options.requests, options.steps, &taken, Some(signals))?;
    taken.note();
    let budget = Budget::new(options.budget.unwrap_or(usize::MAX));
    let mut map = map::run(target, kinds, options.max_bytes, &budget, steps, &signals.stop)?;
    map.trace = taken.origin();
    map.seed = map.trace.is_none().then_some(options.requests.seed);
    // The table first, whatever becomes of the files, and the files, whatever becomes of it.
    let printed = print(&mut for_people(&[&options.json]), &map, options);
    let mut kept = files.keep(&map);
    kept.note(printed);
    kept.result()?;
    match signals.which.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Failure::Stopped { signal: u8::try_from(signal).unwrap_or(0) }),
    }
}

/// Sees that no file that a run writes is another one, or the trace.
fn check(options: &Map, kinds: &[Kind]) -> Result<(), Collision> {
    let trace: Vec<_> = options.requests.input().into_iter().collect();
    distinct(&trace, &outputs(options, kinds))
}

/// Waits for the readers of what a run writes, as [`open_pipes`].
fn pipes(options: &Map, kinds: &[Kind]) -> io::Result<Vec<File>> {
    open_pipes(&outputs(options, kinds))
}

fn outputs(options: &Map, kinds: &[Kind]) -> Vec<Named> {
    let named = |argument, path: &Path| Named { argument, path: path.to_owned() };
    let mut outputs: Vec<_> = options.json.iter().map(|path| named("--json", path)).collect();
    if let Some(folder) = &options.svg {
        outputs.extend(kinds.iter().map(|kind| named("--svg", &picture(folder, *kind))));
    }
    outputs
}

/// The picture of a pool.
fn picture(folder: &Path, kind: Kind) -> PathBuf {
    folder.join(format!("{}.svg", kind.name()))
}

/// The files that were asked for, begun before anything runs so that one that cannot be written is
/// told at once.
struct Files {
    json: Option<Output>,
    /// One for each pool.
    pictures: Vec<Output>,
}

impl Files {
    fn create(options: &Map, kinds: &[Kind]) -> io::Result<Self> {
        let mut pictures = Vec::new();
        if let Some(folder) = &options.svg {
            create_folder(folder)?;
            for kind in kinds {
                pictures.push(Output::create(&picture(folder, *kind))?);
            }
        }
        // After the folder, since it may lie in it.
        let json = options.json.as_deref().map(Output::create).transpose()?;
        Ok(Self { json, pictures })
    }

    /// Finishes the files, each whatever became of the others.
    fn keep(self, map: &map::Map) -> Kept {
        let mut kept = Kept::default();
        if let Some(json) = self.json {
            let text = serde_json::to_string_pretty(map).map_err(io::Error::from);
            kept.note(text.and_then(|text| json.keep_text(&text)));
        }
        for (picture, pool) in self.pictures.into_iter().zip(&map.pools) {
            kept.note(picture.keep_text(pool.snapshot.to_svg().trim_end()));
        }
        kept
    }
}

fn print(output: &mut impl Write, map: &map::Map, options: &Map) -> io::Result<()> {
    let stopped = if map.stopped { ", stopped early" } else { "" };
    writeln!(output, "driver    {}, device 0: {}", map.driver, map.device)?;
    writeln!(output, "steps     {}{stopped}", map.steps)?;
    writeln!(
        output,
        "\npool       reserved       live      waste    retired     cached  slabs  blocks  \
         allocated  refused"
    )?;
    for Mapped { allocations, refused, snapshot: pool } in &map.pools {
        let [reserved, live, waste, retired, cached] =
            [pool.reserved, pool.live, pool.waste, pool.retired, pool.cached]
                .map(|bytes| size(bytes as u64));
        let (slabs, blocks) = (pool.slabs.len(), pool.blocks.len());
        writeln!(
            output,
            "{:<8} {reserved:>10} {live:>10} {waste:>10} {retired:>10} {cached:>10} {slabs:>6} \
             {blocks:>7} {allocations:>10} {refused:>8}",
            pool.name
        )?;
    }
    let peak = size(map.together.peak as u64);
    let used: usize = map.together.uses.iter().map(|of| of.used).sum();
    let limit = map.together.limit.map(|limit| format!(" of a budget of {}", size(limit as u64)));
    let (used, limit) = (size(used as u64), limit.unwrap_or_default());
    writeln!(output, "together {used:>10}{limit}, {peak} at most")?;
    if options.svg.is_none() && options.json.is_none() {
        writeln!(output, "\n--svg FOLDER draws each pool, --json FILE lists every slab and block")?;
    }
    Ok(())
}
