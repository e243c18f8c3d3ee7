//! One request of a serving engine's clients.

/// One request of a serving engine's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it arrives, in microseconds after the first one.
    pub arrival: u64,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Tokens that are generated for it.
    pub generated: u32,
}
