//! `wharf qualify` as a person runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod readme;
mod rig;

use std::fs;

use serde_json::Value;

use rig::{Folder, done, text, wharf};

/// The names of the promises with a verdict.
fn with<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let lines = report["lines"].as_array().unwrap().iter();
    let lines = lines.filter(|line| line["verdict"] == verdict);
    lines.map(|line| line["id"].as_str().unwrap()).collect()
}

#[test]
fn every_promise_is_kept_on_softcuda() {
    let folder = Folder::new("qualify");
    let mut command = wharf("qualify");
    command.arg("--json").arg(folder.file("q.json")).arg("--html").arg(folder.file("q.html"));
    let output = command.output().unwrap();
    done(&output);
    let (report, page) =
        (folder.json("q.json"), fs::read_to_string(folder.file("q.html")).unwrap());
    readme::names_fields_of(&report, "qualify");
    assert_eq!(with(&report, "fails"), Vec::<&str>::new());
    assert_eq!(with(&report, "not-offered"), ["machine/fabric", "machine/rdma", "machine/peers"]);
    assert_eq!(report["schema"], 1);
    for line in report["lines"].as_array().unwrap() {
        let id = line["id"].as_str().unwrap();
        assert!(text(&output.stdout).contains(id) && page.contains(id), "{id}");
        assert!(line["found"].as_str().is_some_and(|found| !found.is_empty()), "{line}");
    }
    // Each figure is there, and is one.
    let values = report["figures"]["values"].as_array().unwrap();
    for topic in [
        "commit",
        "staging 64 tokens",
        "begin and submit",
        "fetch of results",
        "copies to the device",
    ] {
        let of = values.iter().filter(|value| value["topic"] == topic);
        let of: Vec<_> = of.map(|value| value["value"].as_f64().unwrap()).collect();
        assert!(!of.is_empty() && of.iter().all(|value| *value > 0.0), "{topic}: {of:?}");
    }
    for chart in ["Time to commit a piece", "Copies to the device"] {
        assert!(page.contains(chart), "{chart}");
    }
    for foreign in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

/// A driver that fails a call is told by the promise that wants it, and the others are kept.
#[test]
fn a_promise_that_fails_is_told() {
    let folder = Folder::new("qualify-fails");
    let mut command = wharf("qualify");
    command.env("SOFTCUDA_FAIL", "cuMemHostRegister@1=2").arg("--json");
    let output = command.arg(folder.file("q.json")).output().unwrap();
    let report = folder.json("q.json");
    assert_eq!(with(&report, "fails"), ["memory/pinned"], "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("Figures were not taken"));
    let line = text(&output.stdout).lines().find(|line| line.starts_with("FAILS")).unwrap();
    assert!(line.contains("memory/pinned"), "{line}");
    assert!(text(&output.stdout).contains("cuMemHostRegister"), "{}", text(&output.stdout));
    assert_eq!(
        (text(&output.stderr), output.status.code()),
        ("wharf: 1 of the promises fail\n", Some(1))
    );
}

/// The verdicts, and the figures before it, are printed and in the files.
#[test]
fn a_driver_that_fails_in_the_figures_does_not_lose_the_report() {
    let folder = Folder::new("qualify-figures");
    let mut command = wharf("qualify");
    command.env("SOFTCUDA_FAIL", "cuMemcpyHtoDAsync@5000=700").arg("--json");
    command.arg(folder.file("q.json")).arg("--html").arg(folder.file("q.html"));
    let output = command.output().unwrap();
    let (told, stdout) = (text(&output.stderr), text(&output.stdout));
    assert!(told.starts_with("wharf: the figures ended early: cuMemcpyHtoDAsync"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout.contains(" hold, 0 fail, 3 are not offered"), "{stdout}");
    assert!(stdout.contains("Not all figures were taken: cuMemcpyHtoDAsync"), "{stdout}");
    let report = folder.json("q.json");
    assert_eq!(with(&report, "fails"), Vec::<&str>::new());
    assert_eq!(report["figures"]["values"][0]["topic"], "commit");
    assert!(report["figures_failed"].as_str().is_some_and(|reason| reason.contains("700")));
    let page = fs::read_to_string(folder.file("q.html")).unwrap();
    assert!(page.contains("Not all figures were taken"), "{page}");
}

#[test]
fn files_are_begun_before_anything_runs() {
    let folder = Folder::new("qualify-files");
    for (json, html, part) in [("a", "./a", "both name"), ("no/a", "b", "no/a: ")] {
        let mut command = wharf("qualify");
        command.arg("--json").arg(folder.file(json)).arg("--html").arg(folder.file(html));
        let output = command.output().unwrap();
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
        assert_eq!(folder.names(), Vec::<String>::new());
    }
}
