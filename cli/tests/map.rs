//! `wharf map` as a person runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod readme;
mod rig;

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use rig::{Folder, done, text};

fn wharf(arguments: &[&str]) -> Command {
    let mut command = rig::wharf("map");
    command.args(arguments);
    command
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}"))
}

/// What the slabs have given out is live, retired or cached, whatever the memory and the limit.
#[test]
fn every_byte_of_every_pool_is_accounted_for() {
    let folder = Folder::new("bytes");
    for (limit, bytes) in [("1GiB", 1 << 30), ("25m", 25 << 20)] {
        let arguments =
            ["--kind=device,pinned,managed,device", "--steps=300", "--max-bytes", limit, "--json"];
        let output = wharf(&arguments).arg(folder.file("m.json")).output().unwrap();
        done(&output);
        let map = folder.json("m.json");
        readme::names_fields_of(&map, "map");
        let pools = map["pools"].as_array().unwrap();
        let names: Vec<_> = pools.iter().map(|pool| pool["name"].as_str().unwrap()).collect();
        assert_eq!((names, number(&map, "steps")), (vec!["device", "pinned", "managed"], 300));
        assert_eq!((number(&map, "schema"), number(&map, "seed")), (1, 1));
        for pool in pools {
            let of = |key| number(pool, key);
            let slabs = pool["slabs"].as_array().unwrap();
            let taken =
                |slab| (number(slab, "blocks") - number(slab, "free")) * number(slab, "block_size");
            // What streams have retired is a block of a slab, or a run that is no slab any more.
            let in_slabs = slabs.iter().map(taken).sum::<u64>();
            let used = of("live") + of("retired") + of("cached");
            assert!((of("live") + of("cached")..=used).contains(&in_slabs), "{pool}");
            let idle = slabs.iter().map(|slab| number(slab, "size") - taken(slab)).sum::<u64>();
            assert_eq!(used + idle + of("unused"), of("reserved"));
            assert_eq!(of("limit"), bytes);
            assert!(of("reserved") <= bytes && of("allocations") > 0, "{pool}");
            let row = text(&output.stdout)
                .lines()
                .find(|row| row.starts_with(pool["name"].as_str().unwrap()));
            let refused = format!(" {}", of("refused"));
            assert!(row.is_some_and(|row| row.ends_with(&refused)), "{}", text(&output.stdout));
        }
        // A step of 2048 tokens wants 16 MiB of the device at once, beside the requests'.
        assert_eq!(number(&pools[0], "refused") > 0, limit == "25m");
    }
}

#[test]
fn the_same_seed_gives_the_same_map() {
    let map = |seed| {
        let output = wharf(&["--kind=device", "--steps=100", "--schedule=eager", "--seed", seed])
            .output()
            .unwrap();
        done(&output);
        output.stdout
    };
    assert_eq!(map("4"), map("4"));
    assert_ne!(map("4"), map("5"));
}

#[test]
fn each_pool_is_drawn() {
    let folder = Folder::new("drawn");
    let mut command = wharf(&["--kind=pinned,device", "--steps=50", "--svg"]);
    command.arg(folder.file("maps")).arg("--json").arg(folder.file("maps/m.json"));
    done(&command.output().unwrap());
    for kind in ["pinned", "device"] {
        let svg = fs::read_to_string(folder.file("maps").join(format!("{kind}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
        for content in [
            &format!("pool {kind}: {kind} memory of device 0"),
            "retired",
            "class=\"in-use\"",
            "MiB",
        ] {
            assert!(svg.contains(content), "{content}");
        }
    }
    assert_eq!(fs::read_dir(folder.file("maps")).unwrap().count(), 3);
}

#[test]
fn what_cannot_be_done_is_told_and_leaves_nothing() {
    let folder = Folder::new("refused");
    let trace = folder.file("t.csv");
    let rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,9,9\n\
                2023-11-16 18:17:02.9,9,9\n";
    fs::write(&trace, rows).unwrap();
    let check = |command: &mut Command, status: i32, part: &str| {
        let output = command.output().unwrap();
        assert!(text(&output.stderr).contains(part), "{part}: {}", text(&output.stderr));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(status), ""), "{part}");
        assert_eq!(folder.names(), ["t.csv"], "{part}");
    };
    check(
        wharf(&["--json"]).arg(folder.file("m.json")).arg("--trace").arg(&trace),
        2,
        "t.csv:3:1: ",
    );
    check(wharf(&["--json"]).arg(folder.file("no/m.json")), 2, "no/m.json");
    check(wharf(&["--svg"]).arg(&trace), 2, "t.csv");
    check(wharf(&["--json"]).arg(&trace).arg("--trace").arg(&trace), 2, "--trace and --json");
    let mut both = wharf(&["--json"]);
    both.arg(folder.file("m/device.svg")).arg("--svg").arg(folder.file("m"));
    check(&mut both, 2, "--json and --svg both name");
    check(&mut wharf(&["--max-bytes=3PiB"]), 2, "such as 64MiB");
    check(&mut wharf(&["--kind=disk"]), 2, "managed");
    let mut failing = wharf(&["--json"]);
    failing.arg(folder.file("m.json")).env("SOFTCUDA_FAIL", "cuMemCreate@2=1");
    check(&mut failing, 1, "cuMemCreate");
}

#[test]
fn stopped_it_shows_what_it_has() {
    let folder = Folder::new("stopped");
    let mut command = wharf(&["--steps=1000000000", "--json"]);
    let mut child = command.arg(folder.file("m.json")).stdout(Stdio::piped()).spawn().unwrap();
    // Its file is begun when it listens to signals.
    while folder.names().is_empty() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    assert!(
        Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", child.id())])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("stopped early"), "{}", text(&output.stdout));
    assert_eq!(
        (folder.names(), &folder.json("m.json")["stopped"]),
        (vec!["m.json".to_owned()], &true.into())
    );
}
