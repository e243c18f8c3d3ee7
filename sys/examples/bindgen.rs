//! Writes `src/bindings.rs` from NVIDIA's headers.
//!
//! ```text
//! cargo run -p wharf-sys --features bindgen --example bindgen -- [HEADER_DIR] [OUTPUT]
//! ```
//!
//! `HEADER_DIR` holds `cuda.h` and `cudaTypedefs.h`; without it, `$CUDA_HOME/include` is taken.
//! `OUTPUT` is by default the checked-in file. Needs libclang (`LIBCLANG_PATH`).

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

/// Entry points that `table.rs` does not list and the software driver exports, because
/// programs written for CUDA need them to get at the rest: modules, arrays, 2-D and 3-D
/// copies, old ABI versions, inter-process handles.
const ALSO: &[&str] = &[
    "PFN_cuGetProcAddress_v.*",
    "PFN_cu(Device|Ctx|Module|Library|Kernel|Func|Launch|Link)[A-Za-z0-9]*_v[0-9]+",
    "PFN_cuMem[A-Za-z0-9]*_v[0-9]+",
    "PFN_cuMemset[A-Za-z0-9]*_v[0-9]+",
    "PFN_cu(Array|Array3D)[A-Za-z0-9]*_v[0-9]+",
    "PFN_cu(Pointer|Stream|Event|Ipc|UserObject|Occupancy)[A-Za-z0-9]*_v[0-9]+",
    "PFN_cuGraph[A-Za-z0-9]*_v[0-9]+",
    "PFN_cu(Profiler|FlushGPUDirectRDMAWrites|GetExportTable|ThreadExchange)[A-Za-z0-9]*_v[0-9]+",
];

/// Flags, which signatures take as plain integers, so that no signature leads to them.
const FLAGS: &[&str] = &[
    "CU(ctx|event|event_record|event_wait|stream)_flags",
    "CUmemAttach_flags",
    "CUstream(Wait|Write)Value_flags",
    "CUstreamUpdateCaptureDependencies_flags",
    "CUgraph(Instantiate|DebugDot)_flags",
    "CUuserObject(Retain)?_flags",
    "CUdriverProcAddress_flags",
];

/// Flags that the header spells as macros.
const MACROS: &[&str] = &["CUDA_VERSION", "CU_MEMHOST(ALLOC|REGISTER)_[A-Z]+"];

/// Entry points that nothing here names: their structures would double the file.
const BUT_NOT: &[&str] = &[
    "PFN_cu.*(Multicast|LogicalEndpoint|GreenCtx|DevResource|Cig|Checkpoint|TensorMap).*",
    "PFN_cu.*(ExternalSemaphores|MipmappedArray|Sparse|MapArray|NvSciSync|Decompress).*",
    "PFN_cu.*(ExecAffinity|AsyncNotification|AtomicCapabilities|GraphicsResource).*",
    "PFN_cu(CtxCreate_v12050|CtxCreate_v11040)",
    "PFN_cu.*Recapture.*",
];

fn main() -> Result<(), Box<dyn Error>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let headers = match arguments.next() {
        Some(directory) => directory,
        None => PathBuf::from(
            env::var_os("CUDA_HOME").ok_or("name a header directory or set CUDA_HOME")?,
        )
        .join("include"),
    };
    let output = arguments.next().unwrap_or_else(|| package.join("src/bindings.rs"));
    let table = std::fs::read_to_string(package.join("src/table.rs"))?;
    let style = package.join("../rustfmt.toml");
    let enums = bindgen::EnumVariation::NewType { is_bitfield: false, is_global: false };
    let mut builder = bindgen::Builder::default()
        .header_contents("wharf.h", "#include <cuda.h>\n#include <cudaTypedefs.h>\n")
        .clang_arg(format!("-I{}", headers.display()))
        .default_enum_style(enums)
        .generate_comments(false)
        .layout_tests(false)
        .merge_extern_blocks(true)
        .use_core()
        .sort_semantically(true)
        .rustfmt_configuration_file(style.exists().then_some(style))
        .raw_line(
            "// Made by `examples/bindgen.rs` from NVIDIA's cuda.h and cudaTypedefs.h; not edited \
             by hand.",
        );
    for name in pfn_names(&table) {
        builder = builder.allowlist_type(name);
    }
    for pattern in ALSO {
        builder = builder.allowlist_type(*pattern);
    }
    for pattern in FLAGS {
        builder = builder.allowlist_type(*pattern);
    }
    for pattern in MACROS {
        builder = builder.allowlist_var(*pattern);
    }
    for pattern in BUT_NOT {
        builder = builder.blocklist_type(*pattern);
    }
    builder.generate()?.write_to_file(&output)?;
    Ok(())
}

/// The function pointer types that the table names, each once.
fn pfn_names(table: &str) -> impl Iterator<Item = &str> {
    table
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("PFN_cu"))
}
