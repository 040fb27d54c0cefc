//! Increments of the shared counter.

use serde::{Deserialize, Serialize};

use super::Micros;
use crate::world::MemberIndex;

/// An attempt to set the counter to one more than was read, if no other client changed it since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Increment {
    pub client: String,
    /// Member that received the request, from 0.
    pub member: MemberIndex,
    pub called: Micros,
    pub returned: Micros,
    /// New value of the counter.
    pub to: u64,
    pub counted: Counted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Counted {
    /// The server acknowledged it.
    Yes,
    /// Another client was first, or the server refused it for another reason.
    No,
    /// No answer came.
    Unknown,
}
