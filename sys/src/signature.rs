//! Names of signatures: `PFN_cuMemAlloc_v3020` is `cuMemAlloc` as CUDA 3.2 introduced it.
//!
//! NVIDIA's `cudaTypedefs.h` has one such type for each entry point and each version of its
//! signature; `cuGetProcAddress` takes the name and the version.

/// The entry point of a signature: `cuMemAlloc` of `PFN_cuMemAlloc_v3020`.
///
/// # Panics
///
/// If `pfn` is not a signature's name; at compile time, in a constant.
pub const fn name(pfn: &'static str) -> &'static str {
    let (_, rest) = pfn.split_at("PFN_".len());
    rest.split_at(separator(rest)).0
}

/// The CUDA version of a signature, as 1000 * major + 10 * minor: 3020 of `PFN_cuMemAlloc_v3020`.
///
/// # Panics
///
/// If `pfn` is not a signature's name; at compile time, in a constant.
pub const fn version(pfn: &'static str) -> u32 {
    let bytes = pfn.as_bytes();
    let mut index = separator(pfn) + "_v".len();
    let mut version = 0;
    while index < bytes.len() && bytes[index].is_ascii_digit() {
        version = version * 10 + (bytes[index] - b'0') as u32;
        index += 1;
    }
    version
}

/// The index of the last `_v`.
const fn separator(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut index = bytes.len() - 1;
    // A name without a version ends the compilation here: the index passes zero.
    while bytes[index] != b'_' || bytes[index + 1] != b'v' {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_says_name_and_version() {
        assert_eq!(name("PFN_cuMemAlloc_v3020"), "cuMemAlloc");
        assert_eq!(version("PFN_cuMemAlloc_v3020"), 3020);
    }
}
