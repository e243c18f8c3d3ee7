//! Native functions that stand for kernels, for tests.

use core::fmt;
use parking_lot::Mutex;
use std::sync::Arc;

use wharf_sys::CudaError;

use crate::race::Mode;

/// The code of a kernel.
pub(crate) type Body = Arc<dyn Fn(&KernelArguments) + Send + Sync>;

/// The launch of a native kernel: see [`crate::Simulator::register_kernel`].
#[derive(Debug, Default)]
pub struct KernelArguments {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    pub(crate) values: Vec<Vec<u8>>,
    /// Addresses, bytes, and what is done there.
    pub(crate) touched: Mutex<Vec<(u64, usize, Mode)>>,
}

impl Clone for KernelArguments {
    fn clone(&self) -> Self {
        let (values, touched) = (self.values.clone(), Mutex::new(self.touched.lock().clone()));
        Self { values, touched, ..*self }
    }
}

impl PartialEq for KernelArguments {
    fn eq(&self, other: &Self) -> bool {
        let shape = |it: &Self| (it.grid, it.block, it.shared);
        shape(self) == shape(other) && self.values == other.values
    }
}

impl Eq for KernelArguments {}

impl KernelArguments {
    /// Says that the kernel reads `size` bytes at `address`, of device or host memory. The check
    /// `race` looks at what was said.
    pub fn reads(&self, address: u64, size: usize) {
        self.touched.lock().push((address, size, Mode::Read));
    }

    /// Says that the kernel writes `size` bytes at `address`, as [`reads`](Self::reads) does. A
    /// host that polls host memory may know of what it finds there; so it may where nothing is
    /// said.
    pub fn writes(&self, address: u64, size: usize) {
        self.touched.lock().push((address, size, Mode::Write));
    }

    /// Blocks of the grid, by dimension.
    pub fn grid(&self) -> [u32; 3] {
        self.grid
    }

    /// Threads of a block, by dimension.
    pub fn block(&self) -> [u32; 3] {
        self.block
    }

    /// Bytes of dynamic shared memory a block.
    pub fn shared(&self) -> u32 {
        self.shared
    }

    /// The bytes of the parameter at `index`, as they were at the launch; none past the last.
    pub fn bytes(&self, index: usize) -> &[u8] {
        self.values.get(index).map_or(&[], Vec::as_slice)
    }

    /// The parameter at `index` as an unsigned number of at most 64 bits, such as an address.
    pub fn number(&self, index: usize) -> u64 {
        let mut number = [0; 8];
        for (to, from) in number.iter_mut().zip(self.bytes(index)) {
            *to = *from;
        }
        u64::from_le_bytes(number)
    }
}

/// A kernel that native code stands for.
#[derive(Clone)]
pub(crate) struct Native {
    /// Bytes of each parameter.
    pub(crate) sizes: Vec<usize>,
    pub(crate) body: Body,
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

/// A native kernel with the values of its parameters.
#[derive(Clone)]
pub(crate) struct Launch(Arc<(Body, KernelArguments)>);

impl Launch {
    pub(crate) fn new(native: &Native, arguments: KernelArguments) -> Self {
        Self(Arc::new((Arc::clone(&native.body), arguments)))
    }

    /// Runs it and returns what it says that it has touched.
    pub(crate) fn run(&self) -> Vec<(u64, usize, Mode)> {
        // A launch may run again before this one has ended: what each touches is its own.
        let arguments = KernelArguments { touched: Mutex::default(), ..self.0.1.clone() };
        (self.0.0)(&arguments);
        arguments.touched.into_inner()
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Launch").field(&self.0.1).finish()
    }
}

impl PartialEq for Launch {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Launch {}

impl Native {
    /// Cuts a parameter buffer: each parameter is aligned to its size, up to 16 bytes.
    pub(crate) fn cut(&self, buffer: &[u8]) -> Result<Vec<Vec<u8>>, CudaError> {
        let mut begin: usize = 0;
        let mut values = Vec::new();
        for size in &self.sizes {
            begin = begin.next_multiple_of(size.next_power_of_two().min(16));
            let value = buffer.get(begin..begin + size).ok_or(CudaError::INVALID_VALUE)?;
            values.push(value.to_vec());
            begin += size;
        }
        Ok(values)
    }
}
