//! `wharf replay` as a server runs: results, and one budget for all of the device's memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod rig;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use rig::{Folder, done, text, wharf};

#[test]
fn a_servers_results_are_fetched_and_compared() {
    let folder = Folder::new("results");
    for (schedule, layout, depth) in
        [("async", "per-slot", "3"), ("late", "packed", "1"), ("random:7", "per-slot", "4")]
    {
        let mut command = wharf("replay");
        command.args(["--memory=serving", "--verify", "--tiered", "--steps=200"]);
        command.args(["--schedule", schedule, "--layout", layout, "--ring-depth", depth]);
        let output = command.arg("--json").arg(folder.file("r.json")).output().unwrap();
        done(&output);
        let figures = folder.json("r.json");
        assert_eq!(
            (&figures["results_read"], &figures["verify_mismatches"]),
            (&200.into(), &0.into())
        );
        let uses = figures["device_memory"]["uses"].as_array().unwrap();
        let names: Vec<_> = uses.iter().map(|of| of["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["step", "activations and blocks", "results", "device tier"]);
        let sum: u64 = uses.iter().map(|of| of["peak"].as_u64().unwrap()).sum();
        assert!(figures["device_memory"]["peak"].as_u64() <= Some(sum), "{figures}");
        for row in ["of 200 steps fetched", "activations and blocks: "] {
            assert!(text(&output.stdout).contains(row), "{row}: {}", text(&output.stdout));
        }
    }
}

#[test]
fn a_budget_is_kept_by_pools_tiers_and_sets_together() {
    let folder = Folder::new("budget");
    let mut command = wharf("replay");
    command.args(["--memory=serving", "--tiered", "--steps=300", "--budget=100MiB", "--json"]);
    done(&command.arg(folder.file("r.json")).output().unwrap());
    let memory = &folder.json("r.json")["device_memory"];
    assert_eq!(memory["limit"], 100 << 20);
    assert!(memory["peak"].as_u64() <= Some(100 << 20), "{memory}");
    // What does not fit ends the run, which says so and by whom the budget is spent.
    for (budget, steps) in [("1", false), ("4MiB", true)] {
        let output = wharf("replay").args(["--steps=2000", "--budget", budget]).output().unwrap();
        assert!(text(&output.stderr).contains("of the budget"), "{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout).contains("of a budget of 4 MiB"), steps);
    }
    let mut command = wharf("map");
    command.args(["--steps=300", "--budget=8MiB", "--json"]).arg(folder.file("m.json"));
    done(&command.output().unwrap());
    let map = folder.json("m.json");
    let refused = |pool: &serde_json::Value| pool["refused"].as_u64().unwrap();
    assert!(map["together"]["peak"].as_u64() <= Some(8 << 20), "{map}");
    assert!(map["pools"].as_array().unwrap().iter().map(refused).sum::<u64>() > 0);
}

#[test]
fn json_on_standard_output_is_alone() {
    let folder = Folder::new("alone");
    for path in ["-", "/dev/stdout"] {
        for subcommand in ["replay", "map"] {
            let output = wharf(subcommand).args(["--steps=20", "--json", path]).output().unwrap();
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&json["steps"], output.status.code()), (&20.into(), Some(0)));
            assert!(text(&output.stderr).contains("softcuda, device 0"), "{subcommand} {path}");
        }
    }
    // Of a file that standard output is, nothing is replaced.
    let file = fs::File::create(folder.file("out")).unwrap();
    let mut command = wharf("map");
    let status = command.args(["--steps=20", "--json=/dev/stdout"]).stdout(file);
    assert!(status.stderr(Stdio::null()).status().unwrap().success());
    assert_eq!((&folder.json("out")["steps"], folder.names().len()), (&20.into(), 1));
    let both = wharf("replay").args(["--steps=2", "--json=-", "--html=/dev/stdout"]).output();
    assert_eq!(both.unwrap().status.code(), Some(2));
}

/// A device has no end that a reader would come to.
#[test]
fn a_plan_that_is_a_device_is_written_and_not_read() {
    for (path, code) in [("/dev/null", 0), ("/dev/full", 1), ("/dev/zero", 0)] {
        let output = wharf("replay").args(["--steps=20", "--plan", path]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{path}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("bytes that differ"), "{path}");
    }
}

/// The software driver's memory is files, too: whichever is met first, the process is not killed.
#[test]
fn a_limit_on_the_size_of_files_is_told() {
    let folder = Folder::new("limit");
    let script = "ulimit -f 0; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_wharf"), "replay", "--driver=softcuda"]);
    command.args(["--steps=20", "--json"]).arg(folder.file("r.json"));
    let output = command.output().unwrap();
    assert!(text(&output.stderr).starts_with("wharf: "), "{}", text(&output.stderr));
    assert_eq!((output.status.code(), folder.names()), (Some(1), vec![]));
}

#[test]
fn a_trace_that_breaks_on_its_way_costs_no_figures() {
    let mut command = wharf("replay");
    command.args(["--trace", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let trace = "Timestamp,Request tokens,Response tokens\n1,9,9\n500,9,9\n900,9,x\n";
    child.stdin.take().unwrap().write_all(trace.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output.stderr).contains("-:4:7: Response tokens is"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("stopped early"), "{}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(2));
}
