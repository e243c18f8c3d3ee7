#![expect(
    unsafe_code,
    reason = "calls every entry point with arguments that no program should pass"
)]
//! Every entry point with null, zero, huge and destroyed arguments: an error, never a crash.
//!
//! [`probe!`] makes a caller of an entry point that asks for one number an argument and turns it
//! into the argument's type. What a number may be depends on the type: see [`candidates`].

use core::any::type_name;
use core::ptr;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUresult;

use crate::config::Config;
use crate::machine::Machine;
use crate::thread::Thread;

/// Calls an entry point with arguments made by the function, which is told each type's name.
pub(crate) struct Probe {
    pub(crate) symbol: &'static str,
    pub(crate) call: fn(&mut dyn FnMut(&'static str) -> u64) -> CUresult,
}

/// A [`Probe`] of an entry point, from its row.
macro_rules! probe {
    ($symbol:ident ($($argument:ident: $type:ty),* $(,)?)) => {
        $crate::abi::bad_input::Probe {
            symbol: stringify!($symbol),
            call: |_next| {
                $(let $argument = $crate::abi::bad_input::make::<$type>(_next);)*
                // SAFETY: none of the arguments is what the reference asks for; that the call
                // survives them all the same is what is being tested.
                unsafe { $symbol($($argument),*) }
            },
        }
    };
}
pub(crate) use probe;

/// An argument of type `T` whose first bytes are a number that suits the type.
pub(crate) fn make<T>(next: &mut dyn FnMut(&'static str) -> u64) -> T {
    const { assert!(size_of::<T>() <= 64) };
    let words = [next(type_name::<T>()); 8];
    // SAFETY: 64 bytes are there; arguments are integers, pointers and structures of those, and
    // optional functions, for which `candidates` has only null and a function.
    unsafe { ptr::from_ref(&words).cast::<T>().read_unaligned() }
}

/// The values to try for an argument of a type.
fn candidates(type_name: &str, scratch: u64, destroyed: &[u64]) -> Vec<u64> {
    let is_pointer = type_name.starts_with("*mut ") || type_name.starts_with("*const ");
    let is_handle = type_name.ends_with("_st") && type_name.contains("::CU") && is_pointer;
    if type_name.contains("Option<") {
        return vec![0, ignore as *const () as u64];
    }
    if is_handle && type_name.matches("*mut").count() == 1 && is_opaque(type_name) {
        let mut numbers = vec![0, 1, 2, 0xdead_beef, u64::MAX, 1 << 63];
        numbers.extend(destroyed);
        return numbers;
    }
    if is_pointer {
        return vec![0, 1, u64::MAX, 1 << 63, u64::MAX - 4096, scratch];
    }
    vec![0, 1, 7, 0x7fff_ffff, 0xffff_ffff, 1 << 40, u64::MAX, 1 << 63, scratch]
}

/// Returns whether a type is a handle: a pointer to an opaque structure.
fn is_opaque(type_name: &str) -> bool {
    const OPAQUE: &[&str] = &[
        "CUctx_st",
        "CUmod_st",
        "CUfunc_st",
        "CUlib_st",
        "CUkern_st",
        "CUarray_st",
        "CUevent_st",
        "CUstream_st",
        "CUgraph_st",
        "CUgraphNode_st",
        "CUgraphExec_st",
        "CUmemPoolHandle_st",
        "CUuserObject_st",
        "CUlinkState_st",
        "CUmipmappedArray_st",
    ];
    OPAQUE.iter().any(|name| type_name.ends_with(name))
}

extern "C" fn ignore(_: *mut core::ffi::c_void) {}

/// Handles of every kind that were live once.
fn destroyed(machine: &Machine) -> Vec<u64> {
    (1..=14_u64).map(|kind| (u64::from(machine.id) + 1) << 40 | kind << 36 | 0xffff << 4).collect()
}

#[test]
fn no_argument_crashes_any_entry_point() {
    const CALLS: u64 = 400;
    let machine = Machine::create(Config { print_violations: false, ..Config::default() });
    Thread::current().bound.set(Some(machine.id));
    let mut context = ptr::null_mut();
    // SAFETY: no precondition.
    assert_eq!(unsafe { super::init::cuInit(0) }, CUresult::CUDA_SUCCESS);
    let mut memory = vec![0_u64; 8192];
    let destroyed = destroyed(&machine);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for probe in super::symbols::probes() {
        for round in 0..CALLS {
            memory.fill([0, u64::MAX, 1, 0x0001_0000_0001][usize::try_from(round % 4).unwrap()]);
            // A C string in the scratch memory ends inside it.
            memory[8191] = 0;
            let scratch = memory.as_mut_ptr().expose_provenance() as u64;
            // A fresh context: the one before may have been lost or taken off.
            // SAFETY: the result is a local.
            unsafe { super::primary::cuDevicePrimaryCtxRetain(&raw mut context, 0) };
            // SAFETY: the context is retained.
            unsafe { super::context::cuCtxSetCurrent(context) };
            let result = (probe.call)(&mut |type_name| {
                let numbers = candidates(type_name, scratch, &destroyed);
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                numbers[usize::try_from(random >> 33).unwrap() % numbers.len()]
            });
            let documented = CudaError::new(result).is_none_or(|code| code.name().is_some());
            assert!(
                documented && result != CUresult::CUDA_ERROR_UNKNOWN,
                "{}: {result:?}",
                probe.symbol
            );
        }
    }
    machine.end();
}
