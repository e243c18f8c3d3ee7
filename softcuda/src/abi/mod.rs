//! The exported entry points: what a program links against or asks `cuGetProcAddress` for.
//!
//! Every file below lists its exports with [`exports!`], one row an entry point, and holds the
//! functions that do the work. A row reads
//!
//! ```text
//! Normal PFN_cuMemcpyHtoDAsync_v3020: cuMemcpyHtoDAsync_v2(
//!   |     |                           |
//!   |     |                           exported symbol
//!   |     signature in NVIDIA's header, checked here; its name and version are what
//!   |     cuGetProcAddress knows the entry point by
//!   when it may be called, see `Guard`
//!     dst: CUdeviceptr, src: *const c_void, size: usize, stream: CUstream,
//!       arguments
//! ) | cuMemcpyHtoDAsync_v2_ptsz => htod;
//!     |                            |
//!     |                            the function that does the work
//!     the same with the per-thread default stream, where there is one
//! ```

mod absent;
mod alloc_async;
mod arguments;
mod array;
#[cfg(test)]
mod bad_input;
mod capture;
mod context;
mod context_event;
mod context_settings;
mod copy;
mod copy_3d;
mod copy_batch;
mod device;
mod enter;
mod event;
mod function;
mod graph;
mod graph_any;
mod graph_edges;
mod graph_event;
mod graph_exec;
mod graph_kernel;
mod graph_memory;
mod graph_node;
mod graph_update;
mod init;
mod ipc;
mod launch;
mod library;
mod link;
mod location;
mod managed;
mod managed_batch;
mod memop;
mod memory;
mod memset;
mod module;
mod pointer;
mod pool;
mod primary;
mod profiler;
mod shareable;
mod stream;
mod stream_attribute;
mod symbols;
mod tool;
mod user_object;
mod vmm;

pub(crate) use arguments::{out, valid};
pub(crate) use enter::{Guard, enter};
pub(crate) use symbols::{Symbol, api, exactly, knows};
pub(crate) use wharf_sys::signature::name;

/// Lists and defines exported entry points; see the module's documentation.
macro_rules! exports {
    ($($guard:ident $pfn:ident: $symbol:ident $arguments:tt $(| $ptsz:ident)? => $body:path;)+) => {
        $(
            $crate::abi::export!($guard $pfn $symbol false $arguments $body);
            $($crate::abi::export!($guard $pfn $ptsz true $arguments $body);)?
        )+

        pub(crate) static SYMBOLS: &[$crate::abi::Symbol] = &[$(
            $crate::abi::Symbol::new(stringify!($pfn), $symbol as *const ())
                $(.with_per_thread($ptsz as *const ()))?,
        )+];

        #[cfg(test)]
        pub(crate) static PROBES: &[$crate::abi::bad_input::Probe] = &[
            $($crate::abi::bad_input::probe!($symbol $arguments),)+
        ];
    };
}

/// Defines one exported entry point.
macro_rules! export {
    (
        $guard:ident $pfn:ident $symbol:ident $per_thread:literal
        ($($argument:ident: $type:ty),* $(,)?) $body:path
    ) => {
        #[doc = concat!("See `", stringify!($symbol), "` in the driver API reference.")]
        ///
        /// # Safety
        ///
        /// As the reference says: pointers are valid for what the call reads and writes.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $symbol(
            $($argument: $type),*
        ) -> wharf_sys::bindings::CUresult {
            const NAME: &str = $crate::abi::name(stringify!($pfn));
            let guard = $crate::abi::Guard::$guard;
            $crate::abi::enter(NAME, guard, $per_thread, |call| $body(call, $($argument),*))
        }
        const _: $pfn = Some($symbol);
    };
}

pub(crate) use {export, exports};
