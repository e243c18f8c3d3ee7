//! The inputs of today's engines.

use super::builder::InputBuffersBuilder;
use super::len::Len;
use super::spec::Pad;

/// Sets of slots as engines name them, to be added to a builder; more slots may follow.
impl<Tag> InputBuffersBuilder<Tag> {
    /// `input_ids` and `positions`, 64-bit integers, one a token.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::staging::InputBuffers;
    ///
    /// let inputs = InputBuffers::builder(&context).minimal_slots().buckets([1, 2, 4, 8]).build()?;
    /// assert!(inputs.slot_id::<i64>("positions").is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn minimal_slots(self) -> Self {
        self.slot::<i64>("input_ids", Len::Tokens).slot::<i64>("positions", Len::Tokens)
    }

    /// The inputs of a vLLM-like runner, with `max_blocks` blocks of cache a request.
    ///
    /// Padding tokens are mapped to slot -1, which its kernels skip; padding requests have no
    /// length.
    pub fn vllm_slots(self, max_blocks: usize) -> Self {
        self.slot::<i32>("input_ids", Len::Tokens)
            .slot::<i64>("positions", Len::Tokens)
            .slot_padded::<i64>("slot_mapping", Len::Tokens, Pad::Value(-1))
            .slot::<i32>("block_table", Len::Requests.times(max_blocks))
            .slot::<i32>("seq_lens", Len::Requests)
            .slot_padded::<i32>("query_start_loc", Len::Requests.plus(1), Pad::RepeatLast)
            .slot::<i32>("logits_indices", Len::Requests)
    }

    /// The inputs of an SGLang-like runner.
    ///
    /// Padding requests have length 1 and padding tokens go to cache slot 0, which is reserved
    /// for padding.
    pub fn sglang_slots(self) -> Self {
        self.slot::<i64>("input_ids", Len::Tokens)
            .slot::<i64>("positions", Len::Tokens)
            .slot::<i64>("out_cache_loc", Len::Tokens)
            .slot::<i64>("req_pool_indices", Len::Requests)
            .slot_padded::<i32>("seq_lens", Len::Requests, Pad::Value(1))
    }

    /// The inputs of a TensorRT-LLM-like runner, with `max_blocks` blocks of keys and as many of
    /// values a request.
    pub fn tensorrt_llm_slots(self, max_blocks: usize) -> Self {
        self.slot::<i32>("input_ids", Len::Tokens)
            .slot::<i32>("position_ids", Len::Tokens)
            .slot_padded::<i32>("last_token_ids", Len::Requests, Pad::RepeatLast)
            .slot::<i32>(
                "kv_cache_block_offsets",
                Len::Requests.times(max_blocks.saturating_mul(2)),
            )
            .slot_padded::<i32>("sequence_length", Len::Requests, Pad::Value(1))
            .slot_padded::<i32>("context_lengths", Len::Requests, Pad::Value(1))
            .slot::<i32>("request_types", Len::Requests)
    }
}
