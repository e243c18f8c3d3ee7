//! A program in C with a main of Rust's, so that both halves have one sanitizer: the runtime that
//! rustc links. `check.sh` compiles the C with `-Dmain=c_main` and links it in.

use std::ffi::{CString, c_char, c_int};

// Its functions are what the C calls.
extern crate wharf_capi;

unsafe extern "C" {
    fn c_main(argc: c_int, argv: *mut *mut c_char) -> c_int;
}

fn main() {
    let arguments: Vec<CString> = std::env::args().map(|it| CString::new(it).unwrap()).collect();
    let mut pointers: Vec<*mut c_char> =
        arguments.iter().map(|it| it.as_ptr().cast_mut()).collect();
    // SAFETY: a main of C's, with its arguments, which it does not write.
    let code = unsafe { c_main(pointers.len() as c_int, pointers.as_mut_ptr()) };
    std::process::exit(code);
}
