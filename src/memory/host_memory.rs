//! How much memory of the host there is for this process.
//!
//! A page that is pinned cannot be taken back, and a process that goes beyond what the system or
//! its control group has is killed, not refused. So a caller that is about to fill much memory asks
//! first.
//!
//! ```text
//!   free = min(MemAvailable,  limit - (usage - page cache)  of each control group up to the root)
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::physical::PhysicalMemory;
use crate::address::to_usize;
use crate::error::Error;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The host's memory as far as this process may use it, in bytes, at one moment.
///
/// # Examples
///
/// ```
/// use wharf::memory::HostMemory;
///
/// if let Some(memory) = HostMemory::read() {
///     assert!(memory.free() <= memory.available && memory.available <= memory.installed);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostMemory {
    /// The bytes that the system has.
    pub installed: usize,
    /// The bytes that the system could give without swapping: `MemAvailable`.
    pub available: usize,
    /// The control group with the least left, where one has a limit.
    pub group: Option<PhysicalMemory>,
}

impl HostMemory {
    /// Reads what the system says in `/proc` and `/sys/fs/cgroup`; `None` where it does not.
    pub fn read() -> Option<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let groups =
            hierarchies(&own, Path::new("/sys/fs/cgroup")).into_iter().flat_map(Hierarchy::levels);
        Self::of(&meminfo, groups.filter_map(|level| level.read()))
    }

    /// The bytes left for this process, in the system and in its control group.
    pub fn free(&self) -> usize {
        self.group.map_or(self.available, |group| group.free.min(self.available))
    }

    /// From the text of `/proc/meminfo` and the bytes left in control groups.
    fn of(meminfo: &str, groups: impl Iterator<Item = PhysicalMemory>) -> Option<Self> {
        let field = |name: &str| {
            let line =
                meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        let installed = field("MemTotal")?;
        // A limit that was not set is larger than the memory there is.
        let limits = groups.filter(|group| group.total < installed);
        Some(Self {
            installed,
            available: field("MemAvailable")?,
            group: limits.min_by_key(|it| it.free),
        })
    }

    /// Whether there is room for `wanted` bytes more now, as far as the system says.
    ///
    /// # Errors
    ///
    /// [`Error::HostMemory`].
    pub(crate) fn check(wanted: usize) -> Result<(), Error> {
        if wanted < CHECK {
            return Ok(());
        }
        Self::read().map_or(Ok(()), |memory| memory.admit(wanted))
    }

    /// Whether there is room for `wanted` bytes more.
    ///
    /// # Errors
    ///
    /// [`Error::HostMemory`].
    fn admit(&self, wanted: usize) -> Result<(), Error> {
        let (free, is_group) =
            (self.free(), self.group.is_some_and(|group| group.free < self.available));
        let total = self.group.filter(|_| is_group).map_or(self.installed, |group| group.total);
        if wanted <= free {
            Ok(())
        } else {
            Err(Error::HostMemory { wanted, free, total, is_group })
        }
    }
}

impl From<HostMemory> for PhysicalMemory {
    fn from(memory: HostMemory) -> Self {
        let total = memory.group.map_or(memory.installed, |group| group.total);
        Self { free: memory.free(), total }
    }
}

/// Counts what a span fills, and asks the system now and then whether there is room.
///
/// The files take some 100 microseconds to read, as much as it takes to fill a granule.
#[derive(Debug, Default)]
pub(super) struct Admission {
    unchecked: AtomicUsize,
}

impl Admission {
    /// Whether `len` bytes more may be filled, as far as is known.
    ///
    /// # Errors
    ///
    /// [`Error::HostMemory`]: there is not so much; nothing is counted.
    pub(super) fn admit(&self, len: usize) -> Result<(), Error> {
        let before = self.unchecked.fetch_add(len, Relaxed);
        if before.saturating_add(len) < CHECK {
            return Ok(());
        }
        self.unchecked.store(0, Relaxed);
        HostMemory::read().map_or(Ok(()), |memory| memory.admit(len))
    }
}

/// Where a version of control groups keeps the memory of this process's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    root: PathBuf,
    /// The group, from the root on.
    group: PathBuf,
    names: &'static Names,
}

/// A control group, at one level of a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    path: PathBuf,
    names: &'static Names,
}

/// The names of a version's files and fields.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// Fields of `memory.stat` whose sum is the page cache that can be taken back.
    cache: [&'static str; 2],
}

const V2: Names =
    Names { limit: "memory.max", usage: "memory.current", cache: ["active_file", "inactive_file"] };

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: ["total_active_file", "total_inactive_file"],
};

/// The hierarchies that limit memory, from the text of `/proc/self/cgroup`.
fn hierarchies(own: &str, mount: &Path) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let group = PathBuf::from(group.trim_start_matches('/'));
        if number == "0" && controllers.is_empty() {
            return Some(Hierarchy { root: mount.to_owned(), group, names: &V2 });
        }
        let limits_memory = controllers.split(',').any(|controller| controller == "memory");
        limits_memory.then(|| Hierarchy { root: mount.join("memory"), group, names: &V1 })
    };
    own.lines().filter_map(hierarchy).collect()
}

impl Hierarchy {
    /// The group and all those above it. In a container the group's path may be the host's, and its
    /// files in the root.
    fn levels(self) -> impl Iterator<Item = Level> {
        let paths: Vec<_> = self.group.ancestors().map(|group| self.root.join(group)).collect();
        paths.into_iter().map(move |path| Level { path, names: self.names })
    }
}

impl Level {
    /// The bytes that the level has left; `None` where it has no limit, or is not there.
    fn read(&self) -> Option<PhysicalMemory> {
        let text = |name: &str| fs::read_to_string(self.path.join(name)).ok();
        let stat = text("memory.stat").unwrap_or_default();
        self.names.left(&text(self.names.limit)?, &text(self.names.usage)?, &stat)
    }
}

impl Names {
    /// The bytes left, from the texts of a group's files.
    fn left(&self, limit: &str, usage: &str, stat: &str) -> Option<PhysicalMemory> {
        // "max": none.
        let total: u64 = limit.trim().parse().ok()?;
        let usage: u64 = usage.trim().parse().ok()?;
        let field = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            self.cache.contains(&name).then(|| value.trim().parse::<u64>().ok())?
        };
        let cache = stat.lines().filter_map(field).fold(0, u64::saturating_add);
        let free = total.saturating_sub(usage.saturating_sub(cache));
        let bytes = to_usize;
        Some(PhysicalMemory { free: bytes(free), total: bytes(total) })
    }
}

/// How much a span fills before it asks again, in bytes.
const CHECK: usize = 16 << 20;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       24576000 kB\nMemFree:  100 kB\nMemAvailable:   20480000 kB\n";
    const MIB: usize = 1 << 20;

    fn left(free: usize, total: usize) -> PhysicalMemory {
        PhysicalMemory { free, total }
    }

    fn host(groups: &[PhysicalMemory]) -> Option<HostMemory> {
        HostMemory::of(MEMINFO, groups.iter().copied())
    }

    #[test]
    fn the_least_of_the_system_and_of_all_groups_is_free() {
        let memory = host(&[]).unwrap();
        assert_eq!((memory.installed, memory.available), (24_000 * MIB, 20_000 * MIB));
        assert_eq!((memory.free(), memory.group), (20_000 * MIB, None));
        let memory =
            host(&[left(300 * MIB, 600 * MIB), left(100 * MIB, 8000 * MIB), left(1, usize::MAX)])
                .unwrap();
        assert_eq!(memory.free(), 100 * MIB);
        assert_eq!(host(&[left(22_000 * MIB, 23_000 * MIB)]).unwrap().free(), 20_000 * MIB);
        assert_eq!(PhysicalMemory::from(memory), left(100 * MIB, 8000 * MIB));
        assert_eq!(HostMemory::of("MemTotal: 5 kB", std::iter::empty()), None);
        assert_eq!(HostMemory::of("", std::iter::empty()), None);
    }

    #[test]
    fn a_group_has_its_limit_less_what_it_uses_but_for_the_page_cache() {
        let stat = "anon 5\nfile 300\ninactive_file 100\nactive_file 20\nshmem 180\n";
        assert_eq!(V2.left("1000\n", "600\n", stat), Some(left(520, 1000)));
        assert_eq!(V2.left("max\n", "600\n", stat), None);
        assert_eq!(V2.left("1000", "", stat), None);
        assert_eq!(V2.left("1000", "2000", ""), Some(left(0, 1000)));
        let stat = "cache 5\ninactive_file 1\ntotal_inactive_file 100\ntotal_active_file 20\n";
        assert_eq!(V1.left("1000", "600", stat), Some(left(520, 1000)));
    }

    #[test]
    fn groups_of_both_versions_are_found_with_those_above_them() {
        let paths = |own: &str| {
            let found = hierarchies(own, Path::new("/sys/fs/cgroup"))
                .into_iter()
                .flat_map(Hierarchy::levels);
            found.map(|level| level.path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            paths("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"]
        );
        let own = "5:devices:/\n4:memory,hugetlb:/docker/7c:1\n1:cpu:/\n";
        let memory = "/sys/fs/cgroup/memory/";
        assert_eq!(
            paths(own),
            [format!("{memory}docker/7c:1"), format!("{memory}docker"), memory.to_owned()]
        );
        assert_eq!(paths("nonsense\n\n3:memory"), Vec::<String>::new());
    }

    #[test]
    fn what_goes_beyond_is_refused_with_both_sizes_and_a_remedy() {
        let memory = host(&[left(300 * MIB, 600 * MIB)]).unwrap();
        assert_eq!(memory.admit(300 * MIB), Ok(()));
        let refused = memory.admit(300 * MIB + 1).unwrap_err();
        let (wanted, free, total) = (300 * MIB + 1, 300 * MIB, 600 * MIB);
        assert_eq!(refused, Error::HostMemory { wanted, free, total, is_group: true });
        assert!(refused.is_out_of_memory());
        let text = refused.to_string();
        for part in ["314572801 bytes", "314572800 bytes of 629145600", "memory.max"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let refused = host(&[]).unwrap().admit(1 << 40).unwrap_err();
        let (free, total) = (20_000 * MIB, 24_000 * MIB);
        assert_eq!(refused, Error::HostMemory { wanted: 1 << 40, free, total, is_group: false });
        assert!(!refused.to_string().contains("group"), "{refused}");
    }

    #[test]
    fn small_commits_are_asked_about_together() {
        let admission = Admission::default();
        for _ in 0..7 {
            admission.admit(2 * MIB).unwrap();
        }
        assert_eq!(admission.unchecked.load(Relaxed), 14 * MIB);
        assert!(admission.admit(usize::MAX / 2).is_err());
        assert_eq!(admission.unchecked.load(Relaxed), 0);
        assert!(admission.admit(usize::MAX).is_err());
    }
}
