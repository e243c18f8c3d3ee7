//! How an agent is made.

/// What an [`Agent`](crate::Agent) is to be.
///
/// By default its backend is UCX, with the parameters that NIXL has for it.
#[derive(Clone, Debug)]
#[must_use]
pub struct AgentOptions {
    pub(crate) backend: String,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { backend: "UCX".to_owned(), parameters: Vec::new() }
    }
}

impl AgentOptions {
    /// Moves bytes by another backend of NIXL's, such as `LIBFABRIC`.
    pub fn backend(self, name: &str) -> Self {
        Self { backend: name.to_owned(), ..self }
    }

    /// Sets a parameter of the backend.
    ///
    /// UCX needs `ucx_error_handling_mode` set to `none` for shared memory (`UCX_TLS=cma` and the
    /// like). Such an agent does not hear of the end of a peer's process.
    pub fn parameter(mut self, key: &str, value: &str) -> Self {
        self.parameters.push((key.to_owned(), value.to_owned()));
        self
    }
}
