//! `wharf replay` as a person runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod readme;
mod rig;

use std::fs;

use serde_json::Value;

use rig::{Folder, done, text, wharf};

#[test]
fn every_byte_arrives_with_one_driver_call_a_step() {
    let folder = Folder::new("verify");
    for (preset, schedule, layout, depth) in [
        ("vllm", "async", "per-slot", "3"),
        ("minimal", "async", "packed", "1"),
        ("sglang", "eager", "packed", "2"),
        ("tensorrt-llm", "late", "per-slot", "4"),
        ("vllm", "random:3", "packed", "3"),
    ] {
        let mut command = wharf("replay");
        command.args([
            "--verify",
            "--steps=250",
            "--preset",
            preset,
            "--schedule",
            schedule,
            "--layout",
            layout,
        ]);
        done(
            &command
                .args(["--ring-depth", depth, "--json"])
                .arg(folder.file("r.json"))
                .output()
                .unwrap(),
        );
        let figures = folder.json("r.json");
        let case = format!("{preset} {schedule} {layout} {depth}: {figures}");
        readme::names_fields_of(&figures, "replay");
        assert_eq!(figures["steps"], 250, "{case}");
        // A packed step of another bucket than the last one of its ring slot is a call more.
        let most = if layout == "packed" { 2.0 } else { 1.0 };
        let calls = figures["driver_calls_per_step"].as_f64().unwrap();
        assert!((1.0..=most).contains(&calls), "{case}");
        assert_eq!(
            (&figures["verify_mismatches"], &figures["ring_violations"]),
            (&0.into(), &0.into()),
            "{case}"
        );
        assert!(figures["bytes_staged"].as_u64().unwrap() > 250, "{case}");
        assert!(
            figures["step_ns"]["p50"].as_u64() <= figures["step_ns"]["p999"].as_u64(),
            "{case}"
        );
        assert!(figures["peak_live"].as_u64() <= figures["peak_reserved"].as_u64(), "{case}");
        assert!(
            figures["forecast"]["hit3"].as_f64() >= figures["forecast"]["hit1"].as_f64(),
            "{case}"
        );
    }
}

#[test]
fn a_trace_is_replayed_whole() {
    let folder = Folder::new("trace");
    let trace = format!("{}/tests/data/small.csv", env!("CARGO_MANIFEST_DIR"));
    let steps =
        fs::read_to_string(format!("{}/tests/data/small.steps", env!("CARGO_MANIFEST_DIR")))
            .unwrap();
    let mut command = wharf("replay");
    command.args(["--verify", "--buckets=8,64", "--forecast=plan", "--trace", &trace, "--json"]);
    let output = command.arg(folder.file("r.json")).output().unwrap();
    done(&output);
    let figures = folder.json("r.json");
    let tokens = steps
        .lines()
        .map(|line| line.split(',').next().unwrap().parse::<u64>().unwrap())
        .sum::<u64>();
    assert_eq!((figures["steps"].as_u64(), figures["tokens"].as_u64()), (Some(551), Some(tokens)));
    assert_eq!((&figures["requests"], &figures["verify_mismatches"]), (&80.into(), &0.into()));
    assert_eq!(figures["forecast"]["hit1"], 1.0);
    for row in ["driver calls a step", "551 in ", "0 violations", "device memory"] {
        assert!(text(&output.stdout).contains(row), "{row}");
    }
}

/// A server's memory beside PyTorch's rules on the same allocations, inputs on a stream of their
/// own.
#[test]
fn a_server_holds_blocks_of_its_requests() {
    let folder = Folder::new("serving");
    for schedule in ["async", "late", "random:5"] {
        let mut command = wharf("replay");
        command.args(["--memory=serving", "--verify", "--steps=300", "--schedule", schedule]);
        let output = command.arg("--json").arg(folder.file("r.json")).output().unwrap();
        done(&output);
        let figures = folder.json("r.json");
        assert_eq!(figures["run"]["memory"], "serving");
        let (differ, violations) = (&figures["verify_mismatches"], &figures["ring_violations"]);
        assert_eq!((differ, violations), (&0.into(), &0.into()), "{schedule}: {figures}");
        let device = &figures["memory"]["device"];
        // Blocks are taken as requests grow: more than the activations, of which there is one a
        // step.
        assert!(device["allocations"].as_u64() > Some(600), "{device}");
        let live = device["peak_live"].as_u64().unwrap();
        for name in ["native", "expandable"] {
            let torch = &figures["torch"][name];
            let of = |key: &str| torch[key].as_u64().unwrap();
            // The same allocations: sizes are multiples of PyTorch's granularity here.
            assert_eq!(of("peak_live"), live, "{name}: {figures}");
            assert!(of("peak_reserved") >= live && of("grown") > 0, "{name}: {torch}");
        }
        for row in ["PyTorch for the same", "expandable segments: "] {
            assert!(text(&output.stdout).contains(row), "{row}");
        }
    }
}

/// The second of two runs by one plan has all its memory at the start.
fn planned(folder: &Folder, trace: &[&str]) -> Value {
    for run in ["first", "second"] {
        let mut command = wharf("replay");
        command.args(trace).args(["--forecast=plan", "--plan"]).arg(folder.file("plan.json"));
        done(&command.arg("--json").arg(folder.file(run)).output().unwrap());
    }
    let (first, second) = (folder.json("first"), folder.json("second"));
    assert_eq!((&first["plan"], &first["steps"]), (&Value::Null, &second["steps"]));
    assert!(first["memory"]["device"]["grown"].as_u64() > Some(0), "{first}");
    let plan = &second["plan"];
    assert_eq!(plan["grown_after_start"], 0, "{plan}");
    assert!(plan["reserved_ratio"].as_f64() <= Some(1.05), "{plan}");
    assert_eq!(plan["first_peak_reserved"], first["peak_reserved"]);
    assert_eq!(second["forecast"]["hit1"], 1.0);
    second
}

#[test]
fn a_second_run_by_a_plan_asks_for_no_memory() {
    let folder = Folder::new("plan");
    let second = planned(&folder, &["--steps=2000"]);
    let warm = &second["forecast"]["warm"];
    assert!(warm["prewarmed_used"].as_u64() > Some(10), "{warm}");
    // What could not be made while its ring slot was in flight.
    assert!(warm["instantiated_share"].as_f64() < Some(0.25), "{warm}");
    fs::write(folder.file("plan.json"), "no plan").unwrap();
    let output = wharf("replay").arg("--plan").arg(folder.file("plan.json")).output().unwrap();
    let told = text(&output.stderr);
    assert!(told.contains("plan.json:1:2: this is no plan that --plan has written"), "{told}");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
}

#[test]
fn a_second_run_of_a_real_trace_asks_for_no_memory() {
    let Some(path) = std::env::var_os("WHARF_TRACE") else {
        return eprintln!("skipped: WHARF_TRACE names no trace");
    };
    let folder = Folder::new("planned-trace");
    let second = planned(&folder, &["--trace", path.to_str().unwrap()]);
    println!("{}", second["plan"]);
}

#[test]
fn tiers_and_forecasts_have_their_figures() {
    let folder = Folder::new("tiers");
    for forecast in ["plan", "frequency", "context"] {
        let mut command = wharf("replay");
        command.args(["--steps=400", "--tiered", "--verify", "--forecast", forecast, "--json"]);
        let output = command.arg(folder.file("r.json")).output().unwrap();
        done(&output);
        let figures = folder.json("r.json");
        let tiers = &figures["tiers"];
        let [hits, misses] = ["hits", "misses"].map(|name| tiers[name].as_u64().unwrap());
        assert_eq!(hits + misses, 400, "{tiers}");
        assert!(tiers["hit_rate"].as_f64() > Some(0.5) && misses > 0, "{tiers}");
        assert!(tiers["moved"][0].as_u64() > Some(0), "{tiers}");
        assert_eq!(figures["verify_mismatches"], 0);
        let warm = &figures["forecast"]["warm"];
        let [made, used, wasted] = ["prewarmed", "prewarmed_used", "prewarmed_wasted"]
            .map(|name| warm[name].as_u64().unwrap());
        assert!(used + wasted <= made && made - used - wasted <= 8, "{warm}");
        assert!(forecast != "plan" || made > 0, "{warm}");
        assert!(figures["graphs"].as_u64() <= Some(27), "eight sizes, three ring slots: {figures}");
        for row in [format!("{forecast}: "), "adapters".to_owned(), "given back unused".to_owned()]
        {
            assert!(text(&output.stdout).contains(&row), "{row}");
        }
    }
}

#[test]
fn wrong_arguments_are_told_before_anything_runs() {
    for (argument, part) in [
        ("--buckets=8,0", "from 1 to 2048"),
        ("--buckets=4096", "from 1 to 2048"),
        ("--buckets=8,64,8", "8 is given twice"),
        ("--ring-depth=0", "from 1 to 64"),
        ("--schedule=soon", "random:SEED"),
    ] {
        let output = wharf("replay").arg(argument).output().unwrap();
        assert!(text(&output.stderr).contains(part), "{argument}: {}", text(&output.stderr));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{argument}");
    }
    // In any order.
    done(&wharf("replay").args(["--steps=20", "--buckets=2048,8,64"]).output().unwrap());
}

/// Programs read these.
#[test]
fn the_figures_have_their_names() {
    let folder = Folder::new("figures");
    done(
        &wharf("replay")
            .args(["--steps=300", "--json"])
            .arg(folder.file("r.json"))
            .output()
            .unwrap(),
    );
    let figures = folder.json("r.json");
    for path in [
        "/steps",
        "/tokens",
        "/requests",
        "/driver_calls_per_step",
        "/bytes_staged",
        "/ring_waits",
        "/step_ns/p50",
        "/step_ns/p99",
        "/step_ns/p999",
        "/peak_live",
        "/peak_reserved",
        "/waste",
        "/idle",
        "/forecast/hit1",
        "/forecast/hit3",
    ] {
        assert!(figures.pointer(path).is_some_and(Value::is_number), "{path} in {figures}");
    }
    assert_eq!(figures["driver"], "softcuda");
    // Nothing was compared.
    assert_eq!(
        (&figures["verify_mismatches"], &figures["ring_violations"]),
        (&Value::Null, &Value::Null)
    );
    // Rounding up to blocks wastes a fifth at most; of results of any number of requests,
    // something.
    for kind in ["device", "pinned"] {
        let of = |key| figures["memory"][kind][key].as_f64().unwrap();
        assert!((0.0..0.2).contains(&of("waste")) && (0.0..1.0).contains(&of("idle")), "{figures}");
    }
    assert!(figures["memory"]["pinned"]["waste"].as_f64() > Some(0.0), "{figures}");
}

#[test]
fn a_broken_trace_runs_nothing() {
    let folder = Folder::new("broken");
    let head = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,9,9\n";
    fs::write(folder.file("t.csv"), format!("{head}2023-11-16 18:17:04.9,9,x\n")).unwrap();
    let mut command = wharf("replay");
    command
        .arg("--steps=1")
        .arg("--trace")
        .arg(folder.file("t.csv"))
        .arg("--json")
        .arg(folder.file("r.json"));
    let output = command.output().unwrap();
    assert!(
        text(&output.stderr).contains("t.csv:3:25: GeneratedTokens is \"x\""),
        "{}",
        text(&output.stderr)
    );
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
    assert_eq!(folder.names(), ["t.csv"]);
}

/// Pairs of events nest, and time does not go backwards.
#[test]
fn the_chrome_trace_is_balanced() {
    let folder = Folder::new("chrome");
    done(
        &wharf("replay")
            .args(["--steps=50", "--chrome-trace"])
            .arg(folder.file("t.json"))
            .output()
            .unwrap(),
    );
    let events = folder.json("t.json");
    let (mut open, mut now, mut steps) = (Vec::new(), 0.0, 0);
    for event in events.as_array().unwrap() {
        let (name, ts) = (event["name"].as_str().unwrap(), event["ts"].as_f64().unwrap());
        assert!(ts >= now, "{event}");
        now = ts;
        match event["ph"].as_str().unwrap() {
            "B" => open.push(name),
            "E" => assert_eq!(open.pop(), Some(name)),
            "C" | "M" => (),
            other => panic!("{other}"),
        }
        steps += i32::from(name == "step" && event["ph"] == "B");
    }
    assert_eq!((open.len(), steps), (0, 50));
}

#[test]
fn charts_are_drawn() {
    let folder = Folder::new("charts");
    done(
        &wharf("replay")
            .args(["--steps=300", "--svg"])
            .arg(folder.file("charts"))
            .output()
            .unwrap(),
    );
    for (name, content) in [
        ("memory.svg", "MiB"),
        ("step-times.svg", "nanoseconds"),
        ("driver-calls.svg", "cuGraphLaunch"),
    ] {
        let svg = fs::read_to_string(folder.file("charts").join(name)).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains(content),
            "{name}"
        );
    }
}

#[test]
fn a_driver_that_refuses_ends_it_and_leaves_nothing() {
    let folder = Folder::new("refused");
    for (fault, code) in [
        ("cuGraphLaunch@50=2", "(2)"),
        ("cuMemHostRegister@1=2", "(2)"),
        ("cuEventRecord@9=700", "(700)"),
    ] {
        let mut command = wharf("replay");
        command
            .env("SOFTCUDA_FAIL", fault)
            .args(["--steps=100", "--json"])
            .arg(folder.file("r.json"));
        let output = command.arg("--chrome-trace").arg(folder.file("t.json")).output().unwrap();
        assert!(text(&output.stderr).contains(code), "{fault}: {}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{fault}");
        assert_eq!(folder.names(), Vec::<String>::new(), "{fault}");
        // What it had until then is told, unless it had nothing.
        let told = text(&output.stdout).contains("stopped early");
        assert_eq!(told, !fault.starts_with("cuMemHostRegister"), "{}", text(&output.stdout));
    }
}
