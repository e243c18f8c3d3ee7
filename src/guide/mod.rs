#![doc = include_str!("index.md")]

#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("staging.md")]
pub mod staging {}

#[doc = include_str!("embedding.md")]
pub mod embedding {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("overhead.md")]
pub mod overhead {}
