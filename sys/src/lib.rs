//! Raw CUDA driver bindings, function table and loader.
