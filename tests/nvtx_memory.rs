//! What a memory checker is told of pools, heard by the library of the example `nvtx_checker`.
//!
//! Each test runs itself again in a process of its own, where NVTX finds that library by the
//! environment.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]
#![expect(unsafe_code, reason = "takes the software driver's functions")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use softcuda::{Config, Simulator};
use wharf::memory::{
    DeviceMemoryResource, ManagedMemoryResource, PinnedMemoryResource, PinnedOptions,
    UnbackedResource,
};
use wharf::pool::{Buffer, Pool};
use wharf::slab::{PoolOptions, SlabPool};
use wharf::{Context, Driver, Stream};

/// What was told, followed line by line.
#[derive(Debug, Default)]
struct Told {
    /// Address, size and name, by handle.
    heaps: BTreeMap<u64, (u64, u64, String)>,
    /// Heap and size, by address.
    regions: BTreeMap<u64, (u64, u64)>,
    /// Regions that there ever were: address, size and name.
    all: Vec<(u64, u64, String)>,
    all_heaps: usize,
    /// What the program itself said.
    said: BTreeMap<String, u64>,
}

impl Told {
    /// Follows what was told; every step must be possible.
    fn follow(log: &str) -> Self {
        let mut told = Self::default();
        for line in log.lines() {
            let (what, rest) = line.split_once(' ').unwrap();
            let words: Vec<u64> = rest.split(' ').map_while(|word| word.parse().ok()).collect();
            let name = rest.splitn(words.len() + 1, ' ').nth(words.len()).unwrap_or_default();
            match (what, words.as_slice()) {
                ("heap", &[handle, start, size]) => told.heap(handle, start, size, name),
                ("no-heap", [handle]) => {
                    let (start, size, _) =
                        told.heaps.remove(handle).unwrap_or_else(|| panic!("{line}"));
                    assert_eq!(told.regions.range(start..start + size).next(), None, "{line}");
                }
                ("region", &[heap, start, size]) => told.region(heap, start, size),
                ("no-region", [start]) => assert!(told.regions.remove(start).is_some(), "{line}"),
                ("name", [start]) => {
                    assert!(told.regions.contains_key(start), "{line}");
                    assert!(
                        (1..50).contains(&name.len())
                            && name.bytes().all(|byte| (32..127).contains(&byte))
                    );
                    let of = told.all.iter_mut().rfind(|(address, ..)| address == start);
                    name.clone_into(&mut of.unwrap().2);
                }
                ("said", [value]) => assert_eq!(told.said.insert(name.to_owned(), *value), None),
                _ => panic!("{line}"),
            }
        }
        told
    }

    fn heap(&mut self, handle: u64, start: u64, size: u64, name: &str) {
        assert!(
            size > 0
                && self
                    .heaps
                    .values()
                    .all(|heap| start + size <= heap.0 || heap.0 + heap.1 <= start)
        );
        assert_eq!(self.heaps.insert(handle, (start, size, name.to_owned())), None);
        self.all_heaps += 1;
    }

    /// A region lies in its heap and overlaps no other.
    fn region(&mut self, heap: u64, start: u64, size: u64) {
        let (base, len, _) = &self.heaps[&heap];
        assert!(size > 0 && *base <= start && start + size <= base + len, "{start} + {size}");
        let before = self.regions.range(..start + size).next_back();
        assert!(
            before.is_none_or(|(address, (_, len))| address + len <= start),
            "{start} + {size}: {before:?}"
        );
        self.regions.insert(start, (heap, size));
        self.all.push((start, size, String::new()));
    }

    /// The sizes and names of the regions that there ever were at an address.
    fn at(&self, start: u64) -> Vec<(u64, &str)> {
        let here = self.all.iter().filter(|(address, ..)| *address == start);
        here.map(|(_, size, name)| (*size, name.as_str())).collect()
    }
}

/// In the process of its own: the file that everything is told to.
fn inside() -> Option<PathBuf> {
    env::var_os("NVTX_CHECKER_LOG").map(PathBuf::from)
}

/// Runs the test `name` again where the checker listens, and follows what it was told.
fn outside(name: &str) -> Told {
    let executable = env::current_exe().unwrap();
    // target/debug/deps/nvtx_memory-... and target/debug/examples/libnvtx_checker.so
    let checker = executable.ancestors().nth(2).unwrap().join("examples/libnvtx_checker.so");
    assert!(
        checker.exists(),
        "cargo build --features nvtx --example nvtx_checker makes {}",
        checker.display()
    );
    let log =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let mut command = Command::new(executable);
    command.args(["--exact", name, "--nocapture"]).env("NVTX_INJECTION64_PATH", checker);
    let output = command.env("NVTX_CHECKER_LOG", &log).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    Told::follow(&told)
}

/// Writes a line of the program's own beside what it told.
fn say(log: &PathBuf, name: &str, value: u64) {
    use std::io::Write;

    let mut log = fs::File::options().create(true).append(true).open(log).unwrap();
    writeln!(log, "said {value} {name}").unwrap();
}

fn with_context(test: impl FnOnce(&Context)) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
    let driver =
        unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }.unwrap();
    test(&Context::retain(&driver.device(0).unwrap()).unwrap());
}

#[test]
fn blocks_of_slabs_are_regions_while_they_are_held() {
    let Some(log) = inside() else {
        let told = outside("blocks_of_slabs_are_regions_while_they_are_held");
        for (name, size) in
            [("small", 4096), ("again", 4096), ("cached", 1024), ("committed", 4096)]
        {
            let regions = told.at(told.said[name]);
            let name = format!("wharf device block of {size} bytes");
            assert!(regions.contains(&(size, name.as_str())), "{name}: {regions:?}");
        }
        assert!(told.at(told.said["large"])[0].0 >= 40 << 20);
        // The address was told anew with each life, although the thread's cache would have kept it.
        assert_eq!(told.said["small"], told.said["again"]);
        assert!(told.at(told.said["small"]).len() >= 2);
        assert_eq!((told.regions.len(), told.heaps.len()), (0, 0), "all went back");
        assert!(told.all_heaps >= 2);
        return;
    };
    with_context(|context| {
        let resource = DeviceMemoryResource::new(context, 256 << 20).unwrap();
        let pool = SlabPool::new(resource, PoolOptions::default()).unwrap();
        let small = pool.alloc(4000).unwrap();
        say(&log, "small", small.address());
        pool.dealloc(small).unwrap();
        let again = pool.alloc(4000).unwrap();
        say(&log, "again", again.address());
        let large = pool.alloc(40 << 20).unwrap();
        say(&log, "large", large.address());
        let mut cache = pool.local_cache();
        let cached = cache.alloc(1000).unwrap();
        say(&log, "cached", cached.address());
        let bare = pool.alloc_raw(4000).unwrap();
        say(&log, "committed", bare);
        cache.dealloc(cached).unwrap();
        drop(cache);
        pool.dealloc_raw(bare).unwrap();
        pool.dealloc(again).unwrap();
        pool.dealloc(large).unwrap();
        let trimmed = pool.trim(Duration::ZERO, 0);
        assert!(trimmed.released > 0 && trimmed.lost == 0);
    });
}

#[test]
fn buffers_are_regions_until_the_device_is_done_with_them() {
    let Some(log) = inside() else {
        let told = outside("buffers_are_regions_until_the_device_is_done_with_them");
        let buffers: Vec<_> = ["first", "second"].map(|name| told.at(told.said[name])).into();
        assert!(buffers.iter().all(|regions| !regions.is_empty()), "{buffers:?}");
        // Retired, and taken by the stream again: one life for the checker.
        assert_eq!((told.said["first"], buffers[0].len()), (told.said["second"], 1));
        assert!(
            told.all.iter().any(|(_, _, name)| name.starts_with("wharf managed block")),
            "{told:?}"
        );
        assert_eq!((told.regions.len(), told.heaps.len()), (0, 0), "all went back");
        return;
    };
    with_context(|context| {
        let stream = Stream::new(context).unwrap();
        let pool =
            Pool::builder().build(DeviceMemoryResource::new(context, 64 << 20).unwrap()).unwrap();
        for name in ["first", "second"] {
            let buffer: Buffer<u8> = pool.alloc(70_000, &stream).unwrap();
            buffer.fill(1, &stream).unwrap();
            say(&log, name, buffer.info().address);
        }
        let managed =
            Pool::builder().build(ManagedMemoryResource::new(context, 64 << 20).unwrap()).unwrap();
        drop(managed.alloc::<u8>(5000, &stream).unwrap());
        stream.synchronize().unwrap();
    });
}

/// compute-sanitizer takes no calls before there is a context, and knows device memory only.
#[test]
fn other_memory_is_not_told() {
    let Some(log) = inside() else {
        let told = outside("other_memory_is_not_told");
        assert_eq!((told.all_heaps, told.all.len(), told.said.len()), (0, 0, 1));
        return;
    };
    let pool =
        SlabPool::new(UnbackedResource::new(64 << 20).unwrap(), PoolOptions::default()).unwrap();
    pool.dealloc(pool.alloc(5000).unwrap()).unwrap();
    with_context(|context| {
        let resource =
            PinnedMemoryResource::new(context, 64 << 20, PinnedOptions::default()).unwrap();
        let pool = SlabPool::new(resource, PoolOptions::default()).unwrap();
        pool.dealloc(pool.alloc(5000).unwrap()).unwrap();
    });
    say(&log, "done", 1);
}
