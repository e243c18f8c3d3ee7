//! Types of elements in Rust.

#![expect(unsafe_code, reason = "an implementation vouches for the meaning of bytes")]

use super::dtype::DType;

/// A type whose values may lie in memory that the device writes.
///
/// Types of more than a byte that Rust has no arithmetic for are here as their bits: [`F16`],
/// [`Bf16`], [`F8E4M3`], [`F8E5M2`]; truth values as [`Bool`], since not every byte is a `bool`.
///
/// # Safety
///
/// * Every pattern of bits is a value, there is no padding and no pointer.
/// * `size_of::<Self>()` is `Self::DTYPE.size()`, and so is the alignment.
pub unsafe trait Element: Copy + Send + Sync + 'static {
    /// The type as tensors name it.
    const DTYPE: DType;
}

/// The bytes of elements.
pub(crate) fn bytes_of<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: the elements' own bytes, of which none is padding; borrowed as long.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

macro_rules! primitives {
    ($($name:ty: $dtype:ident;)+) => {
        $(
            // SAFETY: a number of that size, of which every pattern of bits is a value.
            unsafe impl Element for $name {
                const DTYPE: DType = DType::$dtype;
            }
        )+
    };
}

primitives! {
    u8: U8;
    i8: I8;
    i16: I16;
    u16: U16;
    i32: I32;
    u32: U32;
    i64: I64;
    u64: U64;
    f32: F32;
    f64: F64;
}

macro_rules! bits {
    ($($(#[$doc:meta])+ $name:ident($bits:ty);)+) => {
        $(
            $(#[$doc])+
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
            #[repr(transparent)]
            pub struct $name(
                /// The bits.
                pub $bits,
            );
        )+
    };
}

bits! {
    /// A truth value: 0 is false, everything else true.
    Bool(u8);
    /// The bits of a half precision number.
    F16(u16);
    /// The upper half of the bits of a single precision number.
    Bf16(u16);
    /// The bits of an 8-bit number with 4 bits of exponent.
    F8E4M3(u8);
    /// The bits of an 8-bit number with 5 bits of exponent.
    F8E5M2(u8);
}

primitives! {
    Bool: Bool;
    F16: F16;
    Bf16: BF16;
    F8E4M3: F8E4M3;
    F8E5M2: F8E5M2;
}

impl From<bool> for Bool {
    fn from(value: bool) -> Self {
        Self(value.into())
    }
}

impl From<Bool> for bool {
    fn from(value: Bool) -> Self {
        value.0 != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_types() {
        fn check<T: Element>() {
            assert_eq!(
                (size_of::<T>(), align_of::<T>()),
                (T::DTYPE.size(), T::DTYPE.size()),
                "{}",
                T::DTYPE
            );
        }
        check::<Bool>();
        check::<u8>();
        check::<i8>();
        check::<i16>();
        check::<u16>();
        check::<i32>();
        check::<u32>();
        check::<i64>();
        check::<u64>();
        check::<F16>();
        check::<Bf16>();
        check::<f32>();
        check::<f64>();
        check::<F8E4M3>();
        check::<F8E5M2>();
        assert!(bool::from(Bool(7)) && !bool::from(Bool::from(false)));
    }
}
