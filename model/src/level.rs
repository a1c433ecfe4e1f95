//! The ladder of trust.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How far a subject is trusted; ordered, `Trusted` lowest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Full rights; nothing is done.
    #[default]
    Trusted,
    /// Marked in the mesh's own logs; the SOC sees it.
    Watched,
    /// Rate-limited.
    Throttled,
    /// Only what its own baseline knows.
    Restricted,
    /// Every new request and connection denied.
    Quarantined,
    /// Credentials revoked at the issuer.
    Revoked,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 6] =
        [Self::Trusted, Self::Watched, Self::Throttled, Self::Restricted, Self::Quarantined, Self::Revoked];
    /// The levels that behaviour alone may lead to, lowest first.
    pub const BY_BEHAVIOUR: [Self; 4] = [Self::Watched, Self::Throttled, Self::Restricted, Self::Quarantined];

    /// Whether some of the calls of whoever stands there are refused.
    pub const fn limits(self) -> bool {
        matches!(self, Self::Throttled) || self.denies()
    }

    /// Whether calls are refused for what they are, and not for how many.
    pub const fn denies(self) -> bool {
        matches!(self, Self::Restricted | Self::Quarantined | Self::Revoked)
    }

    /// The word used in every output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Watched => "watched",
            Self::Throttled => "throttled",
            Self::Restricted => "restricted",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is not a level.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a trust level; one of trusted, watched, throttled, restricted, quarantined, revoked")]
pub struct InvalidLevel(String);

impl FromStr for Level {
    type Err = InvalidLevel;

    fn from_str(word: &str) -> Result<Self, InvalidLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == word).ok_or_else(|| InvalidLevel(word.to_owned()))
    }
}
