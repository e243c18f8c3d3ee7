//! Errors of looking slots and counts up.

use std::fmt;

use crate::element::DType;

/// A slot that is not there, or is not of that type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotError {
    /// No slot has the name.
    Unknown(Box<str>),
    /// No count has the name.
    UnknownCount(Box<str>),
    /// Its elements are of another type.
    Type {
        /// The slot.
        slot: Box<str>,
        /// Its type.
        wanted: DType,
        /// The type asked for.
        given: DType,
    },
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "no slot has the name {name:?}"),
            Self::UnknownCount(name) => write!(f, "no count has the name {name:?}"),
            Self::Type { slot, wanted, given } => {
                write!(f, "slot {slot:?} has elements of type {wanted}, not {given}")
            }
        }
    }
}

impl std::error::Error for SlotError {}
