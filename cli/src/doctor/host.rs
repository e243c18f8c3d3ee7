//! The host: limits, pages, nodes, cores, tools.

use std::{env, fs, thread};

use rustix::process::{Resource, getrlimit};
use wharf::memory::HostMemory;
use wharf::profile;

use super::{Fact, Verdict, size};

pub(super) fn facts() -> Vec<Fact> {
    vec![memory(), memlock(), transparent_pages(), reserved_pages(), nodes(), cores(), tool()]
}

/// The memory of the host that this process can use.
fn memory() -> Fact {
    const TOPIC: &str = "host memory";
    HostMemory::read().map_or_else(
        || {
            Fact::bad(
                Verdict::Note,
                TOPIC,
                "unknown",
                "pinned memory is then taken without asking first",
            )
        },
        |memory| memory_fact(TOPIC, &memory),
    )
}

fn memory_fact(topic: &'static str, memory: &HostMemory) -> Fact {
    let bytes = |bytes: usize| size(bytes as u64);
    let found = format!("{} of {} free", bytes(memory.available), bytes(memory.installed));
    let Some(group) = memory.group else { return Fact::good(topic, found) };
    let found =
        format!("{found}; {} of {} in the control group", bytes(group.free), bytes(group.total));
    if group.free >= memory.available {
        return Fact::good(topic, found);
    }
    let remedy = "commits of pinned memory beyond the group's limit fail: raise it \
                  (memory.max, MemoryMax= in a systemd unit, --memory for docker)";
    Fact::bad(Verdict::Note, topic, found, remedy)
}

/// The memory that this process may lock.
fn memlock() -> Fact {
    const TOPIC: &str = "memlock limit";
    const REMEDY: &str = "raise it: `ulimit -l unlimited` as root, LimitMEMLOCK=infinity in a \
                          systemd unit, --ulimit memlock=-1 for docker";
    let limit = match getrlimit(Resource::Memlock).current {
        None => return Fact::good(TOPIC, "unlimited"),
        Some(limit) if limit >= MEMLOCK_ENOUGH => return Fact::good(TOPIC, size(limit)),
        Some(limit) => size(limit),
    };
    if may_pass_memlock() {
        let found = format!("{limit}, which this process may pass (CAP_IPC_LOCK); others may not");
        return Fact::bad(Verdict::Note, TOPIC, found, REMEDY);
    }
    let found = format!(
        "{limit}: drivers that count pinned memory against it refuse staging buffers beyond"
    );
    Fact::bad(Verdict::Slow, TOPIC, found, REMEDY)
}

/// Whether the effective capabilities hold `CAP_IPC_LOCK`.
fn may_pass_memlock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    effective.is_some_and(|effective| effective >> CAP_IPC_LOCK & 1 == 1)
}

fn transparent_pages() -> Fact {
    const TOPIC: &str = "transparent huge pages";
    let Some(setting) = line("/sys/kernel/mm/transparent_hugepage/enabled") else {
        return Fact::bad(Verdict::Note, TOPIC, "unknown", "pinned memory then has plain pages");
    };
    let mode = setting.split(['[', ']']).nth(1).unwrap_or(&setting).to_owned();
    if mode != "never" {
        return Fact::good(TOPIC, mode);
    }
    let remedy =
        "let those who ask have them: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
    Fact::bad(Verdict::Slow, TOPIC, "never: pinned memory has pages of 4 KiB", remedy)
}

fn reserved_pages() -> Fact {
    const TOPIC: &str = "reserved huge pages";
    let count = |name: &str| {
        let value = line(&format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}"))?;
        value.parse::<u64>().ok()
    };
    let kernel = line("/proc/sys/kernel/osrelease").unwrap_or_default();
    if !may_move_huge_pages(&kernel) {
        let remedy = "PageTier::Explicit needs Linux 5.16, which can move such pages (mremap): \
                      transparent huge pages are used instead";
        return Fact::bad(Verdict::Note, TOPIC, format!("of no use on Linux {kernel}"), remedy);
    }
    match (count("nr_hugepages"), count("free_hugepages")) {
        (Some(all @ 1..), Some(free)) => {
            Fact::good(TOPIC, format!("{free} of {all} free, 2 MiB each"))
        }
        (None, _) => {
            Fact::bad(Verdict::Note, TOPIC, "unknown", "transparent huge pages are used instead")
        }
        _ => {
            let remedy = "for pages that are never split: sysctl vm.nr_hugepages=512 and \
                          PageTier::Explicit";
            Fact::bad(Verdict::Note, TOPIC, "none", remedy)
        }
    }
}

/// Whether a kernel moves pages of the pool from one address to another; what says no version does.
fn may_move_huge_pages(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 16),
        _ => true,
    }
}

fn nodes() -> Fact {
    const TOPIC: &str = "NUMA nodes";
    match line("/sys/devices/system/node/online") {
        None => Fact::good(TOPIC, "one, or not known here"),
        Some(nodes) if nodes == "0" => Fact::good(TOPIC, "one"),
        Some(nodes) => {
            let remedy = "pinned memory is allocated on the device's node: run the threads that \
                          fill it there too (numactl --cpunodebind)";
            Fact::bad(Verdict::Note, TOPIC, format!("several: {nodes}"), remedy)
        }
    }
}

fn cores() -> Fact {
    const TOPIC: &str = "cores";
    match thread::available_parallelism().map(usize::from) {
        Ok(1) => {
            let remedy = "give the process a second core (taskset, cgroup cpuset): staging and \
                          the driver's own threads share this one";
            Fact::bad(Verdict::Slow, TOPIC, "1", remedy)
        }
        Ok(count) => Fact::good(TOPIC, count.to_string()),
        Err(error) => Fact::bad(Verdict::Note, TOPIC, error.to_string(), "the system does not say"),
    }
}

/// A profiler attaches as a library that this variable names.
fn tool() -> Fact {
    const TOPIC: &str = "NVTX tool";
    if profile::is_attached() {
        return Fact::good(TOPIC, "attached, and listens");
    }
    match env::var("NVTX_INJECTION64_PATH") {
        Ok(path) if !fs::exists(&path).unwrap_or(false) => {
            let remedy =
                "correct NVTX_INJECTION64_PATH: a library that is not there is silently ignored";
            Fact::bad(Verdict::Note, TOPIC, format!("{path} is not there"), remedy)
        }
        Ok(path) if !cfg!(feature = "nvtx") => {
            let remedy = "build with --features nvtx: this program tells it nothing";
            Fact::bad(Verdict::Note, TOPIC, format!("{path} waits"), remedy)
        }
        Ok(path) => {
            let remedy = "check that the library is built for this machine and exports \
                          InitializeInjectionNvtx2; a memory checker need not export it";
            Fact::bad(Verdict::Note, TOPIC, format!("{path} does not hear of ranges"), remedy)
        }
        Err(_) => Fact::good(TOPIC, "none attached"),
    }
}

/// The content of a one-line file.
fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// A memlock limit that no staging set-up reaches, in bytes.
const MEMLOCK_ENOUGH: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_pool_are_of_use_since_linux_5_16() {
        for (release, may) in [
            ("5.15.0-91-generic", false),
            ("4.18.0-513.el8.x86_64", false),
            ("5.16.0", true),
            ("6.1", true),
            ("10.0-rc1", true),
            ("", true),
            ("custom", true),
        ] {
            assert_eq!(may_move_huge_pages(release), may, "{release}");
        }
    }

    #[test]
    fn a_control_group_that_has_less_than_the_system_is_named_with_a_remedy() {
        let Some(mut memory) = HostMemory::read() else { return };
        memory.group = None;
        let fact = memory_fact("host memory", &memory);
        assert_eq!((fact.verdict, fact.remedy), (Verdict::Good, None));
        let Some(group) = HostMemory::read().map(wharf::memory::PhysicalMemory::from) else {
            return;
        };
        memory.available = group.free.saturating_add(1 << 20);
        memory.group = Some(group);
        let fact = memory_fact("host memory", &memory);
        assert_eq!(fact.verdict, Verdict::Note);
        assert!(
            fact.found.contains("control group") && fact.remedy.unwrap().contains("memory.max")
        );
    }
}
