//! Lets the module's own symbols be its own: softcuda's functions have the names of the driver's,
//! and a process may have loaded that for all to see.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
