//! What a client counted.

use serde::{Deserialize, Serialize};

use super::Micros;
use crate::world::MemberIndex;

/// A counter was read, and was to be set to one more if nobody else had done so since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Increment {
    pub client: String,
    /// The member that was asked, from 0.
    pub member: MemberIndex,
    pub called: Micros,
    pub returned: Micros,
    /// What it was to become.
    pub to: u64,
    pub counted: Counted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Counted {
    /// It was acknowledged.
    Yes,
    /// Another was first, or it was refused for another reason.
    No,
    /// It was not answered.
    Unknown,
}
