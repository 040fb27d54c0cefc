//! The patch formats of the API, each applied to a JSON document, and the computation of patches (`diff`). Whether a
//! field may be patched is decided elsewhere.

pub mod diff;
pub mod duplicates;
pub mod json;
pub mod merge;
pub mod strategic;

use crate::status::{Cause, Reason, Status, StatusDetails};

/// The reason why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is malformed, so the request is bad.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object.
    #[error("{0}")]
    Unprocessable(String),
    #[error("The allowed maximum operations in a JSON patch is {max}, got {got}")]
    TooManyOperations { max: usize, got: usize },
    /// The kind has no merge strategies, like custom resources.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    )]
    NoStrategies,
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Status {
        match &error {
            PatchError::Malformed(message) => Status::bad_request(message.clone()),
            PatchError::Unprocessable(message) => {
                Status::new(Reason::Invalid, "the server rejected our request due to an error in our request")
                    .with_details(StatusDetails {
                        causes: vec![Cause {
                            reason: "UnexpectedServerResponse".to_owned(),
                            message: message.clone(),
                            field: String::new(),
                        }],
                        ..StatusDetails::default()
                    })
            }
            PatchError::TooManyOperations { .. } => Status::new(Reason::RequestEntityTooLarge, error.to_string()),
            PatchError::NoStrategies => Status::new(Reason::UnsupportedMediaType, error.to_string()),
        }
    }
}
