#![expect(unsafe_code, reason = "exports symbols; takes the caller's handles and structures")]
//! Pools.

use std::ffi::{c_char, c_void};
use std::time::Duration;

use wharf::memory::{
    DeviceMemoryResource, ManagedMemoryResource, MemoryKind, PinnedMemoryResource, PinnedOptions,
    WriteCombinedMemoryResource,
};
use wharf::pool::Pool;
use wharf::report::Snapshot;

use crate::args::{Growing, millis, out, out_or_none, sized, text_or};
use crate::context::wharf_context;
use crate::status::{Failure, call, wharf_status};
use crate::table::{get, handle, insert, remove};

/// A pool of memory of one kind, reused in the order of streams.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct wharf_pool {
    /// The number; 0 is none.
    pub id: u64,
}

handle!(wharf_pool, Pool, "pool");

/// A kind of memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum wharf_kind {
    /// Memory of the device.
    Device = 0,
    /// Pinned (page-locked) host memory.
    Pinned = 1,
    /// Pinned host memory past the CPU's caches, which the host only writes.
    WriteCombined = 2,
    /// One address for host and device.
    Managed = 3,
}

/// Is asked to free memory of the pool before an allocation of `size` bytes fails; returns whether
/// it did. Called on the thread that allocates, several at once. Must not throw, which ends the
/// process, nor close the pool; what it allocates from the pool itself fails without asking it.
pub type wharf_pressure = Option<unsafe extern "C" fn(user: *mut c_void, size: usize) -> bool>;

/// What a pool is to be. Zero it, and set `struct_size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wharf_pool_options {
    /// sizeof(wharf_pool_options).
    pub struct_size: usize,
    /// A wharf_kind.
    pub kind: i32,
    /// The length of the pool's addresses, in bytes, at most 4 TiB: no block is larger. 0 for that
    /// of the limit.
    pub span_bytes: usize,
    /// The most bytes that the pool may obtain. 0 for the span.
    pub max_bytes: usize,
    /// How long an allocation at the limit may wait for the device, in milliseconds.
    pub wait_ms: u64,
    /// The pool's name in reports and profilers; may be NULL.
    pub name: *const c_char,
    /// The function that is asked to free memory; may be NULL.
    pub on_pressure: wharf_pressure,
    /// What `on_pressure` is given.
    pub user: *mut c_void,
}

/// What a pool holds, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wharf_pool_stats {
    /// sizeof(wharf_pool_stats), set by the caller.
    pub struct_size: usize,
    /// The most that may be obtained.
    pub limit: usize,
    /// The bytes that the driver has given.
    pub reserved: usize,
    /// The most that was obtained at once.
    pub peak_reserved: usize,
    /// Blocks that are handed out or retired.
    pub live: usize,
    /// Blocks that were freed, and wait for the device or for their stream's next allocation.
    pub retired: usize,
    /// Blocks in the caches of threads.
    pub cached: usize,
}

// SAFETY: repr(C), and the size comes first.
unsafe impl Growing for wharf_pool_options {}
// SAFETY: as above.
unsafe impl Growing for wharf_pool_stats {}

/// Makes a pool.
///
/// Thread-safe.
///
/// # Safety
///
/// `options` is NULL or as its `struct_size` says; `pool` is NULL or can be written. `on_pressure`
/// can be called with `user` as long as there is the pool, or a block of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_pool_create(
    context: wharf_context,
    options: *const wharf_pool_options,
    pool: *mut wharf_pool,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(pool, "pool") }?;
        // SAFETY: the caller's promise.
        let options = unsafe { sized(options, "options") }?;
        // SAFETY: as large as the structure, as `sized` found.
        let options = unsafe { *options };
        // SAFETY: the caller's promise.
        let context = &unsafe { get(context) }?.context;
        // SAFETY: the caller's promise.
        let name = unsafe { text_or(options.name, "options->name", "") }?;
        let (span, max) = match (options.span_bytes, options.max_bytes) {
            (0, 0) => {
                let text = "options->span_bytes and options->max_bytes are 0: set one of them";
                return Err(Failure::new(wharf_status::Invalid, text));
            }
            (0, max) => (max, max),
            (span, 0) => (span, span),
            both => both,
        };
        if span > MOST_BYTES {
            let text =
                format!("the pool would have {span} bytes of addresses, and {MOST_BYTES} at most");
            return Err(Failure::new(wharf_status::Invalid, text));
        }
        let mut builder = Pool::builder().name(name).max_bytes(max).wait(millis(options.wait_ms));
        if let Some(hook) = Hook::of(&options) {
            builder = builder.on_pressure(move |pressure| hook.call(pressure.state.size));
        }
        let kind = options.kind;
        let made = if kind == wharf_kind::Device as i32 {
            builder.build(DeviceMemoryResource::new(context, span)?)?
        } else if kind == wharf_kind::Pinned as i32 {
            builder.build(PinnedMemoryResource::new(context, span, PinnedOptions::default())?)?
        } else if kind == wharf_kind::WriteCombined as i32 {
            builder.build(WriteCombinedMemoryResource::new(context, span)?)?
        } else if kind == wharf_kind::Managed as i32 {
            builder.build(ManagedMemoryResource::new(context, span)?)?
        } else {
            let text = format!("options->kind is {kind}, which is no wharf_kind");
            return Err(Failure::new(wharf_status::Invalid, text));
        };
        to.set(insert(made)?);
        Ok(())
    })
}

/// Ends a pool: waits for the device to finish with freed blocks, and gives the memory back. Blocks
/// that are handed out then, that a graph keeps, or that the device still uses are leaked. That is
/// WHARF_STATUS_WOULD_BLOCK with their list; the handle is released in any case. So destroy graphs
/// before, and call wharf_wait_deferred.
///
/// Thread-safe.
///
/// # Safety
///
/// No other thread is inside a call with the handle meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_pool_close(pool: wharf_pool, timeout_ms: u64) -> wharf_status {
    // SAFETY: the caller's promise.
    call(|| Ok(unsafe { remove(pool) }?.close(millis(timeout_ms))?))
}

/// Gives back to the driver what has been free for `idle_ms`, but for `keep` bytes; writes how many
/// bytes were given back, where `released` is not NULL. Does not wait for the device.
///
/// Thread-safe.
///
/// # Safety
///
/// `released` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_pool_trim(
    pool: wharf_pool,
    idle_ms: u64,
    keep: usize,
    released: *mut usize,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let trimmed = unsafe { get(pool) }?.trim(Duration::from_millis(idle_ms), keep);
        // SAFETY: the caller's promise.
        if let Some(to) = unsafe { out_or_none(released) } {
            to.set(trimmed.released);
        }
        trimmed.error.map_or(Ok(()), |error| Err(error.into()))
    })
}

/// Writes which kind of memory a pool is of.
///
/// Thread-safe.
///
/// # Safety
///
/// `kind` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_pool_get_kind(
    pool: wharf_pool,
    kind: *mut wharf_kind,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let to = unsafe { out(kind, "kind") }?;
        // SAFETY: the caller's promise.
        to.set(match unsafe { get(pool) }?.kind() {
            MemoryKind::Pinned => wharf_kind::Pinned,
            MemoryKind::WriteCombined => wharf_kind::WriteCombined,
            MemoryKind::Managed => wharf_kind::Managed,
            // `wharf_pool_create` makes no others.
            _ => wharf_kind::Device,
        });
        Ok(())
    })
}

/// Writes what a pool holds. Not for hot paths.
///
/// Thread-safe.
///
/// # Safety
///
/// `stats` is NULL, or as its `struct_size` says and can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_pool_get_stats(
    pool: wharf_pool,
    stats: *mut wharf_pool_stats,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        unsafe { sized(stats.cast_const(), "stats") }?;
        // SAFETY: the caller's promise.
        let to = unsafe { out(stats, "stats") }?;
        // SAFETY: the caller's promise.
        let pool = unsafe { get(pool) }?;
        let slabs = pool.slab_stats();
        to.set(wharf_pool_stats {
            struct_size: size_of::<wharf_pool_stats>(),
            limit: slabs.limit,
            reserved: slabs.reserved,
            peak_reserved: slabs.peak_reserved,
            live: slabs.live,
            retired: pool.retired(),
            cached: slabs.cached,
        });
        Ok(())
    })
}

/// Writes a report of a pool as JSON, with a zero at the end, into `text` of `capacity` bytes, and
/// its size with the zero to `needed`. With less room nothing is written to `text`, and the call is
/// WHARF_STATUS_INVALID; ask with a `capacity` of 0.
///
/// Thread-safe.
///
/// # Safety
///
/// `text` is NULL or has `capacity` bytes that can be written; `needed` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wharf_pool_report(
    pool: wharf_pool,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> wharf_status {
    call(|| {
        // SAFETY: the caller's promise.
        let size = unsafe { out(needed, "needed") }?;
        // SAFETY: the caller's promise.
        let snapshot = Snapshot::of(unsafe { get(pool) }?);
        let json = serde_json::to_string(&snapshot)
            .map_err(|error| Failure::new(wharf_status::Panic, error.to_string()))?;
        size.set(json.len() + 1);
        if capacity <= json.len() {
            let text =
                format!("the report needs {} bytes, and there are {capacity}", json.len() + 1);
            return Err(Failure::new(wharf_status::Invalid, text));
        }
        if text.is_null() {
            return Err(Failure::new(wharf_status::Null, "text is NULL"));
        }
        // SAFETY: not null, with more than so many bytes: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(json.as_ptr(), text.cast::<u8>(), json.len()) };
        // SAFETY: as above, there is one byte more.
        let end = unsafe { text.add(json.len()) };
        // SAFETY: as above.
        unsafe { end.write(0) };
        Ok(())
    })
}

/// The caller's hook.
#[derive(Clone, Copy)]
struct Hook {
    call: unsafe extern "C" fn(*mut c_void, usize) -> bool,
    user: *mut c_void,
}

// SAFETY: `wharf_pool_create` was promised that it can be called on any thread.
unsafe impl Send for Hook {}
// SAFETY: as above, on several threads at once.
unsafe impl Sync for Hook {}

impl Hook {
    fn of(options: &wharf_pool_options) -> Option<Self> {
        Some(Self { call: options.on_pressure?, user: options.user })
    }

    fn call(&self, size: usize) -> bool {
        // SAFETY: `wharf_pool_create` was promised so.
        unsafe { (self.call)(self.user, size) }
    }
}

/// The longest span: its bookkeeping is made with the pool, and an allocation of the host's that is
/// refused ends the process.
const MOST_BYTES: usize = 4 << 40;
