//! Which part of a call a record tells of.

use serde::{Deserialize, Serialize};

/// Which part of a call, connection or stream a record tells of; the values are OCSF activity ids of network activity.
///
/// What is counted in records before the last is counted so far: bytes are of the whole stream up to then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Activity {
    /// All of it: there is no other record of this reporter's, as far as the record says.
    #[default]
    Whole = 0,
    /// It has begun.
    Open = 1,
    /// It has ended; records of its begin and its middle may have come before.
    Close = 2,
    /// It goes on.
    Traffic = 6,
}

impl Activity {
    /// The inverse of `as u8`; an unknown number is a whole call.
    #[inline]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Open,
            2 => Self::Close,
            6 => Self::Traffic,
            _ => Self::Whole,
        }
    }

    /// Whether the call has not ended yet.
    #[inline]
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Open | Self::Traffic)
    }
}
