//! Element types by the names, codes and formats of Python's libraries.

use std::ffi::CStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use wharf::element::DType;

/// One element type in every vocabulary.
struct Names {
    dtype: DType,
    /// NumPy's name, or that of `ml_dtypes` and PyTorch.
    name: &'static str,
    /// The format of the buffer protocol. A type that NumPy lacks is there as its bits.
    format: &'static CStr,
    /// The type of `__cuda_array_interface__`.
    typestr: &'static str,
    /// The type code of DLPack.
    code: u8,
}

/// Calls `$call!` with the Rust type of an element type.
macro_rules! with_type {
    ($dtype:expr, $T:ident => $body:expr, _ => $unknown:expr) => {
        match $dtype {
            wharf::element::DType::Bool => {
                type $T = wharf::element::Bool;
                $body
            }
            wharf::element::DType::U8 => {
                type $T = u8;
                $body
            }
            wharf::element::DType::I8 => {
                type $T = i8;
                $body
            }
            wharf::element::DType::I16 => {
                type $T = i16;
                $body
            }
            wharf::element::DType::U16 => {
                type $T = u16;
                $body
            }
            wharf::element::DType::I32 => {
                type $T = i32;
                $body
            }
            wharf::element::DType::U32 => {
                type $T = u32;
                $body
            }
            wharf::element::DType::I64 => {
                type $T = i64;
                $body
            }
            wharf::element::DType::U64 => {
                type $T = u64;
                $body
            }
            wharf::element::DType::F16 => {
                type $T = wharf::element::F16;
                $body
            }
            wharf::element::DType::BF16 => {
                type $T = wharf::element::Bf16;
                $body
            }
            wharf::element::DType::F32 => {
                type $T = f32;
                $body
            }
            wharf::element::DType::F64 => {
                type $T = f64;
                $body
            }
            wharf::element::DType::F8E4M3 => {
                type $T = wharf::element::F8E4M3;
                $body
            }
            wharf::element::DType::F8E5M2 => {
                type $T = wharf::element::F8E5M2;
                $body
            }
            _ => $unknown,
        }
    };
}
pub(crate) use with_type;

/// The element type that an argument names: a string, a dtype of NumPy, `ml_dtypes` or PyTorch,
/// or a scalar type such as `numpy.int32`.
pub(crate) fn parse(named: &Bound<'_, PyAny>) -> PyResult<DType> {
    let name = if let Ok(text) = named.extract::<String>() {
        text
    } else if let Some(name) = named.getattr_opt("name")?.or(named.getattr_opt("__name__")?) {
        name.extract()?
    } else {
        named.str()?.extract::<String>()?
    };
    let short = name.strip_prefix("torch.").unwrap_or(&name);
    of(|names| names.name == short || names.dtype.name() == short).ok_or_else(|| {
        let known: Vec<_> = NAMES.iter().map(|names| names.name).collect();
        PyTypeError::new_err(format!("{name:?} is no element type of wharf: {}", known.join(", ")))
    })
}

/// NumPy's name.
pub(crate) fn name(dtype: DType) -> &'static str {
    names(dtype).name
}

/// The format of the buffer protocol.
pub(crate) fn format(dtype: DType) -> &'static CStr {
    names(dtype).format
}

/// The type of `__cuda_array_interface__`.
pub(crate) fn typestr(dtype: DType) -> &'static str {
    names(dtype).typestr
}

/// The element type of `__cuda_array_interface__`.
pub(crate) fn of_typestr(typestr: &str) -> PyResult<DType> {
    // One byte has no order, and is written with `|` or `<`.
    let other_order = typestr.strip_prefix(['|', '<', '=']);
    of(|names| names.typestr == typestr || other_order == Some(&names.typestr[1..]))
        .ok_or_else(|| PyTypeError::new_err(format!("no element type of wharf is {typestr:?}")))
}

/// Refuses a copy of elements of one type into elements of another, which would be their bits.
/// Bytes are any type's, and types that NumPy lacks are unsigned integers.
pub(crate) fn agree(from: DType, to: DType) -> PyResult<()> {
    let is_bytes = from.size() == 1 || matches!(to, DType::U8);
    if is_bytes || format(from) == format(to) {
        return Ok(());
    }
    Err(differ(name(from), to))
}

/// As [`agree`], of memory of the host that has a format of the buffer protocol.
pub(crate) fn agree_format(from: &CStr, size: usize, to: DType) -> PyResult<()> {
    let is_bytes = size == 1 || matches!(to, DType::U8);
    if is_bytes || size == to.size() && is_same(from, format(to)) {
        return Ok(());
    }
    Err(differ(&from.to_string_lossy(), to))
}

/// Whether two formats of the buffer protocol are the same type where their sizes are: `l` and `q`
/// are.
pub(crate) fn is_same(given: &CStr, wanted: &CStr) -> bool {
    let class = |format: &CStr| match format.to_bytes() {
        [b'@' | b'=' | b'<', format] | [format] => match format {
            b'b' | b'h' | b'i' | b'l' | b'q' | b'n' => Some(0),
            b'B' | b'H' | b'I' | b'L' | b'Q' | b'N' => Some(1),
            b'e' | b'f' | b'd' => Some(2),
            b'?' => Some(3),
            _ => None,
        },
        _ => None,
    };
    class(given).is_some_and(|given| class(wanted) == Some(given))
}

fn differ(from: &str, to: DType) -> PyErr {
    PyTypeError::new_err(format!(
        "the source has elements of type {from:?}, and {} are wanted: convert them, or pass their \
         bytes",
        name(to)
    ))
}

/// The type code of DLPack; the bits are the size's.
pub(crate) fn dlpack_code(dtype: DType) -> u8 {
    names(dtype).code
}

/// The element type of a DLPack code with as many bits.
pub(crate) fn of_dlpack(code: u8, bits: u8) -> Option<DType> {
    of(|names| names.code == code && names.dtype.size() * 8 == usize::from(bits))
}

fn names(dtype: DType) -> &'static Names {
    // Every type has an entry: a test in Python goes through all of them.
    NAMES.iter().find(|names| names.dtype == dtype).unwrap_or(&NAMES[1])
}

fn of(is: impl Fn(&Names) -> bool) -> Option<DType> {
    NAMES.iter().find(|names| is(names)).map(|names| names.dtype)
}

const fn entry(
    dtype: DType,
    name: &'static str,
    format: &'static CStr,
    typestr: &'static str,
    code: u8,
) -> Names {
    Names { dtype, name, format, typestr, code }
}

const INT: u8 = 0;
const UINT: u8 = 1;
const FLOAT: u8 = 2;
const BFLOAT: u8 = 4;
const BOOL: u8 = 6;
const FLOAT8_E4M3FN: u8 = 10;
const FLOAT8_E5M2: u8 = 12;

const NAMES: &[Names] = &[
    entry(DType::Bool, "bool", c"?", "|b1", BOOL),
    entry(DType::U8, "uint8", c"B", "|u1", UINT),
    entry(DType::I8, "int8", c"b", "|i1", INT),
    entry(DType::I16, "int16", c"h", "<i2", INT),
    entry(DType::U16, "uint16", c"H", "<u2", UINT),
    entry(DType::I32, "int32", c"i", "<i4", INT),
    entry(DType::U32, "uint32", c"I", "<u4", UINT),
    entry(DType::I64, "int64", c"q", "<i8", INT),
    entry(DType::U64, "uint64", c"Q", "<u8", UINT),
    entry(DType::F16, "float16", c"e", "<f2", FLOAT),
    entry(DType::F32, "float32", c"f", "<f4", FLOAT),
    entry(DType::F64, "float64", c"d", "<f8", FLOAT),
    // Behind the others, which have the same format and `typestr`.
    entry(DType::BF16, "bfloat16", c"H", "<u2", BFLOAT),
    entry(DType::F8E4M3, "float8_e4m3fn", c"B", "|u1", FLOAT8_E4M3FN),
    entry(DType::F8E5M2, "float8_e5m2", c"B", "|u1", FLOAT8_E5M2),
];
