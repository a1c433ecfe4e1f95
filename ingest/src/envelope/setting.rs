//! The key `envelope` of a topic or file.

use serde::{Deserialize, Serialize};

/// The key `envelope` of a topic or file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Envelope {
    /// Every known envelope is found by itself, record by record.
    #[default]
    Auto,
    /// Records are as the format says.
    None,
    /// A JSON pointer (RFC 6901) to a text or an object that is the record; what is in there may be wrapped again.
    Pointer(String),
}

/// A word that names no envelope.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no envelope; it is \"auto\", \"none\", or a JSON pointer such as \"/event/original\"")]
pub struct InvalidEnvelope(String);

impl TryFrom<String> for Envelope {
    type Error = InvalidEnvelope;

    fn try_from(word: String) -> Result<Self, InvalidEnvelope> {
        match word.as_str() {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            pointer if pointer.starts_with('/') => Ok(Self::Pointer(word)),
            _ => Err(InvalidEnvelope(word)),
        }
    }
}

impl From<Envelope> for String {
    fn from(envelope: Envelope) -> Self {
        match envelope {
            Envelope::Auto => "auto".to_owned(),
            Envelope::None => "none".to_owned(),
            Envelope::Pointer(pointer) => pointer,
        }
    }
}
