//! What is left out before the records come here.

use serde::{Deserialize, Serialize};

use crate::detector::Question;

/// What an input leaves out, as its operator says. Questions that this makes meaningless are not asked of its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Nothing.
    #[default]
    None,
    /// Calls that succeed: only errors are logged.
    Errors,
    /// A random part of the calls.
    Sampled,
    /// Short calls: only slow ones are logged.
    Slow,
}

impl Filter {
    /// The questions about which its records say nothing.
    ///
    /// Of a random part the rates, failures and sizes are as telling as of all, since what is usual was learned from such
    /// a part too; only that somebody is silent may be chance.
    pub const fn silences(self) -> &'static [Question] {
        use Question::{
            DestinationRate, EdgeRate, Failing, Longer, OperationRate, Rate1h, Rate1m, Rate10m, Refused, Silence,
        };
        match self {
            Self::None => &[],
            Self::Errors => {
                &[Failing, Refused, Rate1m, Rate10m, Rate1h, EdgeRate, OperationRate, DestinationRate, Longer, Silence]
            }
            Self::Sampled => &[Silence],
            Self::Slow => {
                &[Failing, Refused, Rate1m, Rate10m, Rate1h, EdgeRate, OperationRate, DestinationRate, Longer, Silence]
            }
        }
    }
}
