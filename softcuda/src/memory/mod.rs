//! The memory of a machine: which addresses are what.
//!
//! All memory is host memory, and a device pointer is the address itself (unified addressing),
//! except that a machine may show registered memory to the device at an address of its own.
//! Device memory is reserved without being committed, so an allocation costs what is touched.
//!
//! * [`block`]: one allocation, kept by the table and by every operation that names it.
//! * [`maps`]: what the program may do with its own addresses.
//! * [`pageable`]: moves bytes of memory that the driver does not know.
//! * [`table`]: address to allocation.
//! * [`recycled`]: addresses of freed memory, for the next allocation.
//! * [`physical`], [`window`]: bytes that can be seen at several addresses, and where they are.
//! * [`transfer`]: what copies and fills do once their operands are known.

pub(crate) mod block;
pub(crate) mod maps;
pub(crate) mod pageable;
pub(crate) mod physical;
pub(crate) mod recycled;
pub(crate) mod table;
pub(crate) mod transfer;
pub(crate) mod window;

pub(crate) use block::{Block, Kind};
pub(crate) use table::Table;
