//! Keeps the shared object loaded: a program may close it while the driver's threads still run in
//! it. Its other name, `libcuda.so.1`, comes with `install.sh`: Cargo passes link arguments from
//! here on to every shared object that has this library inside, and a process that has loaded an
//! object of that name gets it in place of the driver.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
