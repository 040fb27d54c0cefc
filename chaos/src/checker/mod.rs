//! What a history must fulfil. Pure: a history in, findings out.

pub mod linearizability;
pub mod registers;
