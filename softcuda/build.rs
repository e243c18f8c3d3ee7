//! Gives the shared object the name that programs look for: a program linked with `-lcuda`
//! records the soname, not the file name, and then asks for `libcuda.so.1`. And keeps it loaded:
//! a program may close it while the driver's threads still run in it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
