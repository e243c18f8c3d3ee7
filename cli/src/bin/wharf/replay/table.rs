//! The figures of a replay, for people.

use std::io::{self, Write};

use wharf::memory::BudgetUse;
use wharf_cli::doctor::size;
use wharf_cli::replay::TorchUse;
use wharf_cli::summary::{Kind, Origin, Summary, Together, Torches, WARM_UP};

/// Prints one figure a line.
pub(super) fn print(output: &mut impl Write, summary: &Summary) -> io::Result<()> {
    rows(summary, |name, value| writeln!(output, "{name:<24}{value}"))
}

/// Hands out the name of each figure, empty for a line that goes on, and the figure.
pub(super) fn rows(
    summary: &Summary,
    mut row: impl FnMut(&str, String) -> io::Result<()>,
) -> io::Result<()> {
    steps(&mut row, summary)?;
    memory(&mut row, summary)?;
    torch(&mut row, summary)?;
    foresight(&mut row, summary)
}

fn steps(mut row: impl FnMut(&str, String) -> io::Result<()>, summary: &Summary) -> io::Result<()> {
    let Summary { steps, tokens, requests, seconds, graphs, step_ns, .. } = summary;
    let rate = *steps as f64 / seconds.max(1e-9);
    let stopped = if summary.stopped { ", stopped early" } else { "" };
    row("driver", format!("{}, device 0: {}", summary.driver, summary.device))?;
    if let Some(Origin { path, format, reordered, prefix_cache }) = &summary.run.trace {
        let sorted = if *reordered > 0 { format!(", {reordered} sorted") } else { String::new() };
        let cached = if *prefix_cache { ", prefixes cached" } else { "" };
        row("trace", format!("{path}: {format}{sorted}{cached}"))?;
    }
    row("steps", format!("{steps} in {seconds:.2} s, {rate:.0} a second{stopped}"))?;
    row("requests, tokens", format!("{requests}, {tokens}"))?;
    let calls = summary.driver_calls_per_step.map(|calls| format!("{calls:.1}"));
    let uncounted = || match summary.driver {
        "softcuda" => format!("not known: counted from step {} on", WARM_UP + 1),
        _ => "counted on softcuda only".to_owned(),
    };
    row("driver calls a step", calls.unwrap_or_else(uncounted))?;
    if let Some(all) = summary.driver_calls.filter(|_| *steps > 0) {
        let all = all as f64 / *steps as f64;
        row(
            "",
            format!("{all:.1} with those of set-up, memory and the work that reads the inputs"),
        )?;
    }
    row("staged", format!("{}, {graphs} graphs", size(summary.bytes_staged)))?;
    row(
        "begin and submit",
        format!("{:.0} ns on average, half within {} ns", step_ns.mean, step_ns.p50),
    )?;
    row(
        "",
        format!("p99 {} ns, p99.9 {} ns, longest {} ns", step_ns.p99, step_ns.p999, step_ns.max),
    )?;
    row("ring", format!("{} waits, {}", summary.ring_waits, violations(summary)))?;
    let differ = summary.verify_mismatches.map(|count| count.to_string());
    row(
        "bytes that differ",
        differ.unwrap_or_else(|| "not compared, --verify does that".to_owned()),
    )
}

fn memory(
    mut row: impl FnMut(&str, String) -> io::Result<()>,
    summary: &Summary,
) -> io::Result<()> {
    let memory = &summary.memory;
    for (name, kind) in [("device memory", &memory.device), ("pinned memory", &memory.pinned)] {
        // A server's results are not a pool's.
        if kind.allocations == 0 && summary.results_read.is_some() {
            continue;
        }
        let Kind { peak_live, peak_reserved, waste, idle, allocations, grown } = *kind;
        let (live, reserved, waste, idle) =
            (memory_size(peak_live), memory_size(peak_reserved), waste * 100.0, idle * 100.0);
        row(
            name,
            format!("peak {live} in use, {waste:.0} % of its blocks beyond what was asked for"),
        )?;
        row(
            "",
            format!(
                "{reserved} obtained, {idle:.0} % of it idle at the peak: kept for other sizes"
            ),
        )?;
        row(
            "",
            format!(
                "{allocations} allocations, {} from what was there, {grown} by growth",
                allocations - grown
            ),
        )?;
    }
    if let Some(read) = summary.results_read {
        row("results", format!("of {read} steps fetched, by one launch each, and read"))?;
    }
    let Together { limit, peak, uses } = &summary.device_memory;
    let limit = limit.map(|limit| format!(" of a budget of {}", memory_size(limit as u64)));
    let limit = limit.unwrap_or_default();
    row("all of the device", format!("{} obtained at the peak{limit}", memory_size(*peak as u64)))?;
    for BudgetUse { name, peak, .. } in uses {
        row("", format!("{name}: {}", memory_size(*peak as u64)))?;
    }
    Ok(())
}

/// What PyTorch's allocators would have obtained for the device's allocations.
fn torch(mut row: impl FnMut(&str, String) -> io::Result<()>, summary: &Summary) -> io::Result<()> {
    let Torches { native, expandable } = summary.torch;
    for (name, how, TorchUse { peak_reserved, peak_live, grown }) in
        [("PyTorch for the same", "native", native), ("", "expandable segments", expandable)]
    {
        let (reserved, live) = (memory_size(peak_reserved), memory_size(peak_live));
        row(name, format!("{how}: {reserved} obtained in {grown} calls, {live} in its blocks"))?;
    }
    Ok(())
}

fn foresight(
    mut row: impl FnMut(&str, String) -> io::Result<()>,
    summary: &Summary,
) -> io::Result<()> {
    let forecast = &summary.forecast;
    let (first, third) = (forecast.hit1 * 100.0, forecast.hit3 * 100.0);
    row("forecast", format!("{}: {first:.1} % first, {third:.1} % among three", forecast.source))?;
    if let Some(warm) = &forecast.warm {
        let (share, made, ahead) =
            (warm.instantiated_share * 100.0, warm.instantiated, warm.instantiated_ahead);
        row(
            "",
            format!("{made} graphs made by steps ({share:.2} % of those with one), {ahead} ahead"),
        )?;
        let (made, used, wasted) = (warm.prewarmed, warm.prewarmed_used, warm.prewarmed_wasted);
        row(
            "",
            format!(
                "{made} sizes made ready ahead, {used} of them used, {wasted} given back unused"
            ),
        )?;
    }
    if let Some(tiers) = &summary.tiers {
        let (objects, bytes, limit) = (tiers.objects, size(tiers.bytes), size(tiers.device_limit));
        row("tiers", format!("{objects} adapters of {bytes} in all, {limit} on the device"))?;
        let (hits, misses, rate) = (tiers.hits, tiers.misses, tiers.hit_rate * 100.0);
        row("", format!("{hits} steps found theirs there, {misses} waited, {rate:.1} % hits"))?;
        let [device, managed, pinned] = tiers.moved.map(size);
        row(
            "",
            format!(
                "moved {device} to the device, {managed} to managed, {pinned} to pinned memory"
            ),
        )?;
    }
    if let Some(plan) = &summary.plan {
        let (start, first) = (size(plan.reserved_at_start), size(plan.first_peak_reserved));
        let (ratio, grown) = (plan.reserved_ratio, plan.grown_after_start);
        row(
            "plan",
            format!(
                "{start} from the start, {ratio:.3} of the first run's {first}; grown {grown} \
                 times since"
            ),
        )?;
    }
    Ok(())
}

/// A size to be compared with others: two of some gibibytes may differ by a few mebibytes.
fn memory_size(bytes: u64) -> String {
    if bytes < 1 << 30 { size(bytes) } else { format!("{} MiB", bytes >> 20) }
}

/// The number of sources that changed too early.
fn violations(summary: &Summary) -> String {
    match (summary.ring_violations, summary.verify_mismatches) {
        (Some(count), _) => format!("{count} violations"),
        (None, None) => "violations not looked for, --verify does that".to_owned(),
        (None, Some(_)) => "violations seen on softcuda only".to_owned(),
    }
}
