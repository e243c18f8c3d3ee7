//! Handles and addresses that come back.

mod addresses;
mod handles;
