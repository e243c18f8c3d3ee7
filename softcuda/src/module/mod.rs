//! Modules, libraries and the functions in them.
//!
//! Kernels are out of scope: a launch takes its place in the order of its stream and does
//! nothing, except where a test has registered native code under the kernel's name.
//!
//! * [`image`]: which names there are in what was loaded.
//! * [`native`]: native code in place of kernels.

pub(crate) mod image;
pub(crate) mod native;

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUfunction_attribute as Attribute;

use crate::handle::{Kind, Numbering, Registry};
use crate::memory::Block;

pub(crate) use image::Image;
pub use native::KernelArguments;
pub(crate) use native::{Launch, Native};

/// The loaded code of one machine.
#[derive(Debug)]
pub(crate) struct Modules {
    pub(crate) modules: Registry<Module>,
    pub(crate) libraries: Registry<Library>,
    /// Functions of modules and kernels of libraries: "cuLaunchKernel also takes a `CUkernel`".
    pub(crate) functions: Registry<Function>,
    pub(crate) links: Registry<Link>,
    /// Native code, by the name of the kernel that it stands for.
    pub(crate) natives: HashMap<String, Native>,
}

/// Code that was loaded into one context.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) context: u64,
    pub(crate) image: Image,
    /// The library that it is the instance of, if it is one's.
    pub(crate) library: Option<u64>,
    pub(crate) functions: BTreeMap<CString, u64>,
    pub(crate) variables: BTreeMap<CString, Arc<Block>>,
}

/// Code that was loaded into all contexts.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) image: Image,
    pub(crate) kernels: BTreeMap<CString, u64>,
    /// Its module in each context that has asked for it.
    pub(crate) modules: HashMap<u64, u64>,
}

/// A function of a module, or a kernel of a library.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: CString,
    /// The handle of the module or library.
    pub(crate) owner: u64,
    pub(crate) attributes: BTreeMap<u32, i32>,
}

/// A link in progress.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The number of images added.
    pub(crate) inputs: usize,
    /// The result, once complete.
    pub(crate) image: Option<Box<[u8]>>,
}

impl Link {
    /// An image like any other: opaque, beginning like machine code.
    pub(crate) fn output() -> Box<[u8]> {
        let mut image = vec![0; 64];
        image[..4].copy_from_slice(b"\x7fELF");
        image.into_boxed_slice()
    }
}

/// Dynamic shared memory that every kernel may have, in bytes.
const SHARED: i32 = 48 << 10;
/// Dynamic shared memory that a kernel can be given, in bytes.
const MOST_SHARED: i32 = 227 << 10;
/// Registers a thread, of every kernel.
pub(crate) const REGISTERS: i32 = 32;

impl Function {
    /// The value of an attribute.
    pub(crate) fn attribute(&self, attribute: Attribute) -> Result<i32, CudaError> {
        if let Some(set) = self.attributes.get(&attribute.0) {
            return Ok(*set);
        }
        match attribute {
            Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK => Ok(1024),
            Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS => Ok(REGISTERS),
            Attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION
            | Attribute::CU_FUNC_ATTRIBUTE_BINARY_VERSION => Ok(90),
            Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES => Ok(SHARED),
            Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT => Ok(-1),
            known if known.0 < Attribute::CU_FUNC_ATTRIBUTE_MAX.0 => Ok(0),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// Sets an attribute that can be set.
    pub(crate) fn set_attribute(
        &mut self,
        attribute: Attribute,
        value: i32,
    ) -> Result<(), CudaError> {
        let allowed = match attribute {
            Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES => 0..=MOST_SHARED,
            Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT => -1..=100,
            Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH
            | Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT
            | Attribute::CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH => 0..=16,
            Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED => 0..=1,
            Attribute::CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE => 0..=2,
            _ => return Err(CudaError::INVALID_VALUE),
        };
        if !allowed.contains(&value) {
            return Err(CudaError::INVALID_VALUE);
        }
        self.attributes.insert(attribute.0, value);
        Ok(())
    }
}

impl Modules {
    pub(crate) fn new(numbering: Numbering) -> Self {
        Self {
            modules: Registry::new(Kind::Module, numbering),
            libraries: Registry::new(Kind::Library, numbering),
            functions: Registry::new(Kind::Function, numbering),
            links: Registry::new(Kind::Link, numbering),
            natives: HashMap::new(),
        }
    }

    /// Adds code to a context.
    pub(crate) fn load(&mut self, context: u64, image: Image, library: Option<u64>) -> u64 {
        let (functions, variables) = (BTreeMap::new(), BTreeMap::new());
        self.modules.insert(Module { context, image, library, functions, variables })
    }

    /// The function of that name in a module, always the same one.
    pub(crate) fn function(&mut self, handle: u64, name: CString) -> Result<u64, CudaError> {
        let module = self.modules.get_mut(handle).ok_or(CudaError::INVALID_HANDLE)?;
        find(&mut module.functions, &mut self.functions, &module.image, handle, name)
    }

    /// The kernel of that name in a library, always the same one.
    pub(crate) fn kernel(&mut self, handle: u64, name: CString) -> Result<u64, CudaError> {
        let library = self.libraries.get_mut(handle).ok_or(CudaError::INVALID_HANDLE)?;
        find(&mut library.kernels, &mut self.functions, &library.image, handle, name)
    }

    /// A library's module in `context`, made when first asked for.
    pub(crate) fn instance(&mut self, handle: u64, context: u64) -> Result<u64, CudaError> {
        let library = self.libraries.get(handle).ok_or(CudaError::INVALID_HANDLE)?;
        if let Some(module) = library.modules.get(&context) {
            return Ok(*module);
        }
        let image = library.image.clone();
        let module = self.load(context, image, Some(handle));
        if let Some(library) = self.libraries.get_mut(handle) {
            library.modules.insert(context, module);
        }
        Ok(module)
    }
}

fn find(
    known: &mut BTreeMap<CString, u64>,
    functions: &mut Registry<Function>,
    image: &Image,
    owner: u64,
    name: CString,
) -> Result<u64, CudaError> {
    if let Some(handle) = known.get(&name) {
        return Ok(*handle);
    }
    if name.is_empty() || !image.has_kernel(&name.to_string_lossy()) {
        return Err(CudaError::NOT_FOUND);
    }
    // A name always has the same handle, so it is kept.
    let function = Function { name: name.clone(), owner, attributes: BTreeMap::new() };
    let handle = functions.insert(function);
    known.insert(name, handle);
    Ok(handle)
}

impl Modules {
    /// Takes a module away with its functions, and returns its variables, whose memory is to be
    /// released. Launches in flight do not need it.
    pub(crate) fn unload(&mut self, handle: u64) -> Option<Vec<Arc<Block>>> {
        let module = self.modules.remove(handle)?;
        for function in module.functions.values() {
            self.functions.remove(*function);
        }
        Some(module.variables.into_values().collect())
    }

    /// Takes a library away with its modules and kernels, and returns the modules' variables.
    pub(crate) fn unload_library(&mut self, handle: u64) -> Option<Vec<Arc<Block>>> {
        let library = self.libraries.remove(handle)?;
        for kernel in library.kernels.values() {
            self.functions.remove(*kernel);
        }
        let modules = library.modules.into_values();
        Some(modules.filter_map(|module| self.unload(module)).flatten().collect())
    }

    /// Forgets the modules of a context that goes, and returns their variables; libraries stay.
    pub(crate) fn forget_context(&mut self, context: u64) -> Vec<Arc<Block>> {
        let mut modules = self.modules.handles();
        modules.retain(|module| self.modules.get(*module).is_some_and(|it| it.context == context));
        for library in self.libraries.values_mut() {
            library.modules.remove(&context);
        }
        modules.into_iter().filter_map(|module| self.unload(module)).flatten().collect()
    }
}
