//! The files of `wharf replay`: begun before the run, and finished whatever ends it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod rig;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use rig::{Folder, done, text, wharf};

/// Arguments of a run, with names of files.
fn with_files(folder: &Folder, files: &[(&str, &str)]) -> std::process::Output {
    let mut command = wharf("replay");
    command.arg("--steps=20");
    for (argument, name) in files {
        command.arg(argument).arg(folder.file(name));
    }
    command.output().unwrap()
}

#[test]
fn files_that_collide_or_cannot_be_begun_are_told_before_anything_runs() {
    let folder = Folder::new("collide");
    let trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,9,9\n";
    fs::write(folder.file("t.csv"), trace).unwrap();
    std::os::unix::fs::symlink(folder.file("t.csv"), folder.file("link")).unwrap();
    for (files, part) in [
        (&[("--json", "a"), ("--chrome-trace", "a")][..], "--json and --chrome-trace both name"),
        (&[("--json", "a"), ("--plan", "./a")], "--plan and --json both name"),
        (&[("--json", "a"), ("--html", "a")], "--json and --html both name"),
        (&[("--json", "c/memory.svg"), ("--svg", "c")], "--json and --svg both name"),
        (&[("--json", "c/driver-calls.svg"), ("--svg", "./c")], "--json and --svg both name"),
        (&[("--trace", "t.csv"), ("--json", "t.csv")], "--trace and --json both name"),
        (&[("--trace", "t.csv"), ("--plan", "link")], "--trace and --plan both name"),
        (
            &[("--trace", "t.csv"), ("--svg", "t.csv")],
            "t.csv: this is a file, and a folder is wanted",
        ),
        (&[("--json", "no/such/folder.json")], "no/such/folder.json: "),
        (&[("--html", "t.csv/r.html")], "t.csv/r.html: "),
        (&[("--svg", "t.csv/charts")], "t.csv/charts: "),
        (&[("--json", "new/")], "new/: is a directory"),
        (&[("--json", "new/.")], "new/.: is a directory"),
    ] {
        let output = with_files(&folder, files);
        assert!(text(&output.stderr).contains(part), "{files:?}: {}", text(&output.stderr));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{files:?}");
        assert_eq!(folder.names(), ["link", "t.csv"], "{files:?}");
        assert_eq!(fs::read_to_string(folder.file("t.csv")).unwrap(), trace, "{files:?}");
    }
    // Devices may be named twice.
    let null = [("--json", "/dev/null"), ("--html", "/dev/null"), ("--chrome-trace", "/dev/null")];
    done(&with_files(&folder, &null));
}

/// They were left out without a word.
#[test]
fn steps_that_are_only_printed_leave_no_files_and_say_so() {
    let folder = Folder::new("dump");
    for argument in ["--json", "--html", "--svg", "--chrome-trace", "--plan"] {
        let mut command = wharf("replay");
        let output = command.args(["--dump-steps", argument]).arg(folder.file("a")).output();
        let output = output.unwrap();
        let told = text(&output.stderr);
        assert!(told.contains("'--dump-steps' cannot be used with"), "{argument}: {told}");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{argument}");
    }
}

/// A device that is full, which only shows when it is written to: the table is there, and so are
/// the other files.
#[test]
fn a_file_that_cannot_be_written_costs_no_figures() {
    let folder = Folder::new("full");
    for argument in ["--json", "--html", "--chrome-trace"] {
        let other = if argument == "--json" { "--html" } else { "--json" };
        let output = with_files(&folder, &[(argument, "/dev/full"), (other, "other")]);
        assert!(text(&output.stdout).contains("bytes that differ"), "{argument}");
        assert!(text(&output.stderr).contains("/dev/full"), "{argument}: {}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{argument}");
        assert_eq!(folder.names(), ["other"], "{argument}");
        fs::remove_file(folder.file("other")).unwrap();
    }
}

#[test]
fn the_page_has_the_figures_and_needs_nothing_else() {
    let folder = Folder::new("page");
    done(&with_files(&folder, &[("--html", "r.html"), ("--json", "r.json")]));
    let page = fs::read_to_string(folder.file("r.html")).unwrap();
    for part in ["<!DOCTYPE html>", "begin and submit", "Memory over time", "Driver calls", "seed"]
    {
        assert!(page.contains(part), "{part}");
    }
    for foreign in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    // Of two reports, the settings that differ are told.
    let figures = folder.json("r.json");
    assert_eq!(figures["schema"], 1);
    let run = &figures["run"];
    assert_eq!(
        (&run["seed"], &run["max_steps"], &run["trace"]),
        (&1.into(), &20.into(), &Value::Null)
    );
    assert_eq!((&run["preset"], &run["layout"]), (&"vllm".into(), &"per-slot".into()));
    assert_eq!((&run["ring_depth"], &run["schedule"]), (&3.into(), &"async".into()));
    assert!(run["buckets"].as_array().is_some_and(|buckets| buckets.len() > 50), "{run}");
}

/// A table that went to a file which `--json` then replaced was lost with it, and so was a trace.
#[test]
fn the_file_of_a_standard_stream_is_not_replaced() {
    let folder = Folder::new("streams");
    let path = folder.file("x");
    let told = |mut command: Command| {
        let output = command.args(["--steps=3", "--json"]).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
        text(&output.stderr).to_owned()
    };
    let mut command = wharf("replay");
    command.stdout(fs::File::create(&path).unwrap());
    let message = told(command);
    assert!(message.contains("standard output and --json both name"), "{message}");
    let trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,1\n";
    fs::write(&path, trace).unwrap();
    for subcommand in ["replay", "map"] {
        let mut command = wharf(subcommand);
        command.args(["--trace", "-"]).stdin(fs::File::open(&path).unwrap());
        let message = told(command);
        assert!(message.contains("--trace and --json both name"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), trace);
    }
    // A pipe is not a file that is replaced.
    let mut command = wharf("replay");
    command.args(["--steps=3", "--html", "/dev/stderr"]);
    let output = command.output().unwrap();
    assert!(text(&output.stderr).starts_with("<!DOCTYPE html>"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}

/// A replay that takes the time of its trace, once it runs: its files are begun when it listens to
/// signals.
fn running(folder: &Folder) -> Child {
    let mut command = wharf("replay");
    command.args(["--speed=realtime", "--json"]).arg(folder.file("r.json"));
    command
        .arg("--chrome-trace")
        .arg(folder.file("t.json"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    while folder.names().len() < 2 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child
}

#[test]
fn stopped_it_prints_what_it_has() {
    let folder = Folder::new("stopped");
    for (signal, status) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let child = running(&folder);
        assert!(
            Command::new("sh")
                .args(["-c", &format!("kill {signal} {}", child.id())])
                .status()
                .unwrap()
                .success()
        );
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status));
        assert!(text(&output.stdout).contains("stopped early"), "{}", text(&output.stdout));
        assert_eq!(folder.json("r.json")["stopped"], true);
        assert!(folder.json("t.json").is_array());
        assert_eq!(folder.names(), ["r.json", "t.json"]);
        fs::remove_file(folder.file("r.json")).unwrap();
        fs::remove_file(folder.file("t.json")).unwrap();
    }
}

/// A closed pipe came before the verdict, and its status was 0.
#[test]
fn a_reader_that_leaves_does_not_change_the_status() {
    let folder = Folder::new("leaves");
    let mut child = running(&folder);
    drop(child.stdout.take());
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(folder.json("r.json")["stopped"], true);
    // Nor does it hide a file that could not be written.
    let mut command = wharf("replay");
    command.args(["--steps=3", "--html=/dev/full", "--json=-"]).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert!(told.contains("writing the result: /dev/full: "), "{told}");
    assert_eq!(output.status.code(), Some(1));
}

fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The read was begun again after each signal, so the command stayed until the pipe's end.
#[test]
fn a_signal_ends_the_wait_for_a_trace() {
    let folder = Folder::new("waits");
    let fifo = folder.file("fifo");
    pipe(&fifo);
    let requests = "Timestamp,Request tokens,Response tokens\n1,9,9\n2,9,9\n3,9,9\n";
    for (subcommand, sent, named, part) in [
        ("replay", "", "-", ""),
        ("replay", requests, "-", "stopped early"),
        ("replay", "", fifo.to_str().unwrap(), ""),
        ("map", "", "-", ""),
        ("map", requests, "-", "stopped early"),
    ] {
        let mut command = wharf(subcommand);
        command.args(["--trace", named, "--json"]).arg(folder.file("r.json"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Kept to the end: it is the signal that ends the command.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(sent.as_bytes()).unwrap();
        // It begins its file after it listens to signals. The signal may come before it waits for
        // the trace.
        while folder.names().len() < 2 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        signal(&child, "TERM");
        let status = child.wait().unwrap().code();
        drop(stdin);
        let mut told = [String::new(), String::new()];
        child.stdout.take().unwrap().read_to_string(&mut told[0]).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut told[1]).unwrap();
        assert_eq!((told[1].as_str(), status), ("wharf: stopped\n", Some(143)), "{}", told[0]);
        // Of a trace whose head had come, the signal may have been first all the same.
        assert!(told[0].is_empty() || told[0].contains(part), "{}", told[0]);
        let _ = fs::remove_file(folder.file("r.json"));
        assert_eq!(folder.names(), ["fifo"]);
    }
}

/// So was the opening of a pipe that nothing reads.
#[test]
fn a_signal_ends_the_wait_for_a_reader() {
    let folder = Folder::new("readers");
    pipe(&folder.file("fifo"));
    for subcommand in ["replay", "map", "qualify"] {
        let mut command = wharf(subcommand);
        command.stdout(Stdio::null());
        match subcommand {
            "qualify" => command.arg("--json").arg(folder.file("other")).arg("--html"),
            _ => command.arg("--svg").arg(folder.file("charts")).arg("--json"),
        };
        command.arg(folder.file("fifo"));
        let mut child = command.spawn().unwrap();
        signal(&child, "TERM");
        assert_eq!(child.wait().unwrap().signal(), Some(15), "{subcommand}");
        assert_eq!(folder.names(), ["fifo"]);
    }
    // With a reader it is written as any file is.
    let mut command = wharf("replay");
    command.args(["--steps=3", "--json"]).arg(folder.file("fifo")).stdout(Stdio::null());
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let text = fs::read_to_string(folder.file("fifo")).unwrap();
    done(&child.wait_with_output().unwrap());
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["steps"], 3);
}
