//! Cores, clocks, and waiting until no other process computes.

#![expect(unsafe_code, reason = "reads the time stamp counter and the thread's clock")]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Barrier, LazyLock};
use std::time::{Duration, Instant};
use std::{fs, hint, thread};

use core_affinity::CoreId;

/// Cores that the workloads run on.
pub const CORES: usize = 2;

/// Cores that the process may use, asked for before the first thread is pinned: afterwards that
/// thread, and those that it starts, are told of the one core only.
static MAY_USE: LazyLock<Vec<CoreId>> =
    LazyLock::new(|| core_affinity::get_core_ids().unwrap_or_default());

/// Pins the calling thread to a core, counted round the first two that the process may use.
pub fn pin(thread: usize) {
    if let Some(core) = MAY_USE.get(thread % CORES.min(MAY_USE.len().max(1))) {
        core_affinity::set_for_current(*core);
    }
}

/// Time that the calling thread has computed: what others do on its core is not in it.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours that outlives the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "every Linux has this clock");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time stamp counter, after everything before it.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 has SSE2.
    unsafe { std::arch::x86_64::_mm_lfence() };
    // SAFETY: reads a register that user mode may read under Linux.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Ticks in a nanosecond.
pub fn ticks_per_ns() -> f64 {
    let (start, first) = (Instant::now(), ticks());
    while start.elapsed() < Duration::from_millis(50) {}
    let last = ticks();
    ns(start.elapsed()).recip() * float(last - first)
}

/// A duration in nanoseconds.
pub fn ns(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// A count as a float; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// Where threads wait for each other before the clock starts.
#[derive(Debug)]
pub struct Start {
    threads: usize,
    there: Barrier,
    running: AtomicUsize,
}

impl Start {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Self { threads, there: Barrier::new(threads), running: AtomicUsize::new(0) }
    }

    /// Returns when all threads are here, and, if each has a core of its own, are running:
    /// a barrier alone wakes a thread whose core may be another process's for milliseconds.
    pub fn wait(&self) {
        self.there.wait();
        self.running.fetch_add(1, Relaxed);
        while self.threads <= CORES && self.running.load(Relaxed) < self.threads {
            hint::spin_loop();
        }
    }
}

/// How long a run may yet wait for quiet.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
}

impl Patience {
    /// Patience for `total` over the whole run.
    pub fn new(total: Duration) -> Self {
        Self { left: total }
    }

    /// Waits until no other task is runnable, or patience has run out.
    pub fn wait_for_quiet(&mut self) {
        let start = Instant::now();
        while start.elapsed() < self.left && !quiet() {
            // allow-sleep: what is waited for is that nothing computes, this included.
            thread::sleep(Duration::from_millis(20));
        }
        self.left = self.left.saturating_sub(start.elapsed());
    }
}

/// Whether this task is the only runnable one, three times in a row.
fn quiet() -> bool {
    (0..3).all(|_| {
        // allow-sleep: three looks at different times.
        thread::sleep(Duration::from_millis(1));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let runnable = load.split_whitespace().nth(3).and_then(|tasks| tasks.split('/').next());
        runnable.and_then(|count| count.parse::<u32>().ok()).is_none_or(|count| count <= 1)
    })
}
