//! The command as a person runs it: what it prints, and how it exits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn wharf(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(arguments);
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A file of this test process, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// `small.steps` is what the Python scheduler that this one follows makes of `small.csv`.
#[test]
fn steps_are_those_of_the_reference_scheduler() {
    let output = run(&mut wharf(&["replay", "--dump-steps", "--trace", &data("small.csv")]));
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), fs::read_to_string(data("small.steps")).unwrap());
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_exit_statuses_are_those_of_the_readme() {
    let help = run(&mut wharf(&["--help"]));
    let (_, behind) = text(&help.stdout).split_once("Exit status:\n").unwrap();
    let (listed, _) = behind.split_once("\n\n").unwrap();
    let path = format!("{}/README.md", env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(path).unwrap();
    assert!(readme.contains(&format!("```text\n{listed}\n```")), "README.md has not\n{listed}");
}

#[test]
fn made_up_steps_are_the_same_every_time() {
    let steps = |seed| {
        run(&mut wharf(&["replay", "--dump-steps", "--steps", "500", "--seed", seed])).stdout
    };
    assert_eq!(text(&steps("5")).lines().count(), 500);
    assert_eq!(steps("5"), steps("5"));
    assert_ne!(steps("5"), steps("6"));
}

#[test]
fn a_broken_trace_ends_with_file_line_and_status_2() {
    let head = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
    let file = |name, row: &str| {
        Scratch::new(name, format!("{head}2023-11-16 18:17:03.9,9,9\n{row}\n").as_bytes())
    };
    for (trace, line) in [
        (Scratch::new("column.csv", b"TIMESTAMP,GeneratedTokens\n2023-11-16 18:17:03.9,9\n"), 1),
        (Scratch::new("empty.csv", b""), 1),
        (Scratch::new("binary.csv", &[0, 159, 146, 150, 10, 255]), 1),
        (Scratch::new("only-head.csv", head.as_bytes()), 2),
        (file("negative.csv", "2023-11-16 18:17:04.9,-1,9"), 3),
        (file("huge.csv", "2023-11-16 18:17:04.9,1,18446744073709551616"), 3),
        (file("backwards.csv", "2023-11-16 18:17:02.9,1,9"), 3),
        (file("long.csv", &"9".repeat(1 << 22)), 3),
    ] {
        let output = run(&mut wharf(&["replay", "--dump-steps", "--trace", trace.path()]));
        let message = text(&output.stderr);
        assert!(message.starts_with(&format!("wharf: {}:{line}:", trace.path())), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert_eq!(output.status.code(), Some(2), "{message}");
    }
    let output = run(&mut wharf(&["replay", "--dump-steps", "--trace", "/nowhere/trace.csv"]));
    assert!(text(&output.stderr).starts_with("wharf: /nowhere/trace.csv: it cannot be opened"));
    assert_eq!(output.status.code(), Some(2));
}

/// The steps of the Azure trace of 2023 are those of the reference scheduler, by their SHA-256.
#[test]
fn the_steps_of_the_azure_trace_are_those_of_the_reference_scheduler() {
    let Some(path) = std::env::var_os("WHARF_TRACE") else {
        return eprintln!("skipped: WHARF_TRACE names no trace");
    };
    let mut sum = Command::new("sha256sum");
    let mut sum = sum.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let steps = run(wharf(&["replay", "--dump-steps", "--trace"]).arg(path)).stdout;
    sum.stdin.take().unwrap().write_all(&steps).unwrap();
    let sum = sum.wait_with_output().unwrap().stdout;
    let expected = "5405f94b80f0b844099fd452a8f2d8c512aa56889110ee8cf0f7b41b3c5432de";
    assert_eq!(text(&sum).split(' ').next(), Some(expected));
}

/// The steps of a text, given on standard input.
fn steps_of(arguments: &[&str], trace: &str) -> Output {
    let mut command = wharf(&["replay", "--dump-steps", "--trace=-"]);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(trace.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn one_trace_in_every_form_gives_the_same_steps() {
    let expected = fs::read_to_string(data("small.steps")).unwrap();
    let azure = fs::read_to_string(data("small.csv")).unwrap();
    let rows: Vec<_> =
        azure.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>()).collect();
    let table = |head: &str, row: &dyn Fn(&[&str]) -> String| {
        let rows: String = rows.iter().map(|fields| row(fields) + "\n").collect();
        format!("{head}{rows}")
    };
    // After the first midnight; digits below the microsecond do not count.
    let microseconds = |time: &str| {
        let (clock, fraction) = time[11..].split_once('.').unwrap();
        let fraction = format!("{fraction:0<6}")[..6].parse::<u64>().unwrap();
        let seconds = clock.split(':').fold(0, |sum, part| sum * 60 + part.parse::<u64>().unwrap());
        let days = u64::from(time[..10] != rows[0][0][..10]);
        (days * 86_400 + seconds) * 1_000_000 + fraction
    };
    let decimal = |number: u64, unit: u64, digits: usize| {
        format!("{}.{:0digits$}", number / unit, number % unit)
    };
    let named = ["--columns=time=a,input=b,output=c", "--time-unit=ms"];
    for (arguments, trace) in [
        (&[][..], azure.clone()),
        (&[], azure.replace('\n', "\r\n")),
        (&[], azure.replace(',', "\t")),
        (
            &[],
            table("TIMESTAMP,ContextTokens,GeneratedTokens\n", &|row| {
                format!("{}Z,{},{}", row[0], row[1], row[2])
            }),
        ),
        (
            &[],
            table("Timestamp,Model,Request tokens,Response tokens\n", &|row| {
                let time = decimal(microseconds(row[0]), 1_000_000, 6);
                format!("{time},\"GPT, 4\",{},{}", row[1], row[2])
            }),
        ),
        (
            &[],
            table("", &|row| {
                let time = decimal(microseconds(row[0]), 1000, 3);
                format!(
                    "{{\"timestamp\":{time},\"input_length\":{},\"output_length\":{}}}",
                    row[1], row[2]
                )
            }),
        ),
        (
            &named,
            table("c;b;a\n", &|row| {
                format!("{};{};{}", row[2], row[1], decimal(microseconds(row[0]), 1000, 3))
            }),
        ),
    ] {
        let output = steps_of(arguments, &trace);
        assert_eq!((text(&output.stderr), output.status.code()), ("", Some(0)), "{trace}");
        assert_eq!(text(&output.stdout), expected, "{trace}");
    }
}

#[test]
fn unsorted_requests_are_refused_or_sorted_with_a_note() {
    let azure = fs::read_to_string(data("small.csv")).unwrap();
    let mut lines: Vec<_> = azure.lines().collect();
    lines.swap(3, 4);
    let swapped = lines.join("\n");
    let refused = steps_of(&[], &swapped);
    assert!(text(&refused.stderr).starts_with("wharf: -:5:1: the time goes backwards"));
    assert_eq!(refused.status.code(), Some(2));
    let sorted = steps_of(&["--unsorted=sort"], &swapped);
    assert!(text(&sorted.stderr).starts_with("-: 1 requests were not in the order"));
    assert_eq!(text(&sorted.stdout), fs::read_to_string(data("small.steps")).unwrap());
    // Blocks are known from the requests above, not from those that arrived before.
    let both = steps_of(&["--unsorted=sort", "--prefix-cache"], "{}");
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = wharf(&["replay", "--dump-steps"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The facts about `topic`, in the words of `wharf doctor --json`.
fn fact<'a>(facts: &'a serde_json::Value, topic: &str) -> &'a serde_json::Value {
    let mut facts = facts.as_array().unwrap().iter();
    facts.find(|fact| fact["topic"] == topic).unwrap_or_else(|| panic!("nothing about {topic}"))
}

fn doctor(command: &mut Command) -> serde_json::Value {
    let output = run(command);
    assert_eq!((text(&output.stderr), output.status.code()), ("", Some(0)));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_doctor_works_where_there_is_nothing() {
    let facts = doctor(
        wharf(&["doctor", "--driver=system", "--json"]).env("WHARF_LIBCUDA", "/nowhere/libcuda.so"),
    );
    let driver = fact(&facts, "system's driver");
    assert_eq!(driver["verdict"], "broken");
    assert!(driver["found"].as_str().unwrap().contains("/nowhere/libcuda.so"), "{driver}");
    assert!(driver["remedy"].is_string());
    assert_ne!(fact(&facts, "cores")["found"], "0");
}

#[test]
fn the_doctor_finds_nothing_wrong_with_softcuda() {
    let facts = doctor(&mut wharf(&["doctor", "--driver=softcuda", "--json"]));
    for topic in [
        "driver",
        "device",
        "virtual memory",
        "memory operations",
        "stream capture",
        "pinned memory",
    ] {
        assert_eq!(fact(&facts, topic)["verdict"], "good", "{topic}");
    }
}

#[test]
fn the_doctor_finds_what_a_machine_lacks() {
    let limited = format!(
        "ulimit -l 64; exec {} doctor --driver=softcuda --json",
        env!("CARGO_BIN_EXE_wharf")
    );
    let mut command = Command::new("sh");
    let facts = doctor(command.args(["-c", &limited]).env("SOFTCUDA_ATTRIBUTES", "102=0,122=0"));
    for topic in ["virtual memory", "memory operations"] {
        assert_eq!(fact(&facts, topic)["verdict"], "slow", "{topic}");
        assert!(fact(&facts, topic)["remedy"].is_string(), "{topic}");
    }
    let limit = fact(&facts, "memlock limit");
    assert!(limit["found"].as_str().unwrap().starts_with("64 KiB"), "{limit}");
    assert!(limit["remedy"].as_str().unwrap().contains("ulimit -l unlimited"), "{limit}");
    // With the capability to lock all the same, the limit is worth a note only.
    assert!(limit["verdict"] == "slow" || limit["verdict"] == "note", "{limit}");

    let old =
        doctor(wharf(&["doctor", "--driver=softcuda", "--json"]).env("SOFTCUDA_VERSION", "11040"));
    assert_eq!(fact(&old, "memory operations")["verdict"], "slow");
    assert_eq!(fact(&old, "stream capture")["verdict"], "note");
}

#[test]
fn the_bench_counts_driver_calls() {
    let output = run(&mut wharf(&["bench", "--driver=softcuda", "--rounds=1500"]));
    assert_eq!((text(&output.stderr), output.status.code()), ("", Some(0)));
    let line = |way: &str| text(&output.stdout).lines().find(|line| line.contains(way)).unwrap();
    for (way, expected) in [
        ("by hand", " 8.00 "),
        ("one graph, one copy", " 1.00 "),
        ("cuMemAlloc, cuMemFree", " 2.00 "),
        ("cuMemAllocAsync, cuMemFreeAsync", " 2.00 "),
        ("std's allocator", " 0.00 "),
    ] {
        assert!(line(way).contains(expected), "{way}: {}", text(&output.stdout));
    }
    // Each table's first row is what the others are compared with.
    assert_eq!(text(&output.stdout).lines().filter(|line| line.ends_with(" 1.000")).count(), 2);
    assert!(text(&output.stdout).contains("not that of a GPU"));
}

#[test]
fn a_variable_of_softcuda_that_is_not_understood_ends_the_command_and_is_said_once() {
    for (name, value) in [("SOFTCUDA_SHEDULE", "late"), ("SOFTCUDA_FAIL", "cuNoSuchCall@1=2")] {
        let mut command = wharf(&["replay", "--driver", "softcuda", "--steps", "10"]);
        let output = run(command.env(name, value));
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{said}");
        assert_eq!(said.matches("is invalid").count(), 1, "{said}");
    }
}

#[test]
fn counters_are_those_of_the_replay() {
    let mut command = wharf(&["replay", "--driver", "softcuda", "--steps", "100"]);
    let output = run(command.env("SOFTCUDA_COUNTERS", "1"));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let count = |call: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("softcuda: {call} ")));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    assert_eq!(count("cuInit"), 1, "{said}");
    assert!(count("cuGraphLaunch") >= 100, "{said}");
}

/// A bench on the software driver was not told from one on a device but at its end; and a note that
/// could not be printed ended a run.
#[test]
fn a_driver_that_stands_in_is_told_and_the_note_costs_no_run() {
    let without = |arguments: &[&str]| {
        let mut command = wharf(arguments);
        command.env("WHARF_LIBCUDA", "/nowhere/libcuda.so");
        command
    };
    for arguments in [["bench", "--rounds=1"], ["replay", "--steps=3"], ["map", "--steps=3"]] {
        let output = run(&mut without(&arguments));
        let told = text(&output.stderr);
        assert!(told.starts_with("on softcuda, since the system's driver cannot be"), "{told}");
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = run(without(&arguments).stderr(full));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
}
