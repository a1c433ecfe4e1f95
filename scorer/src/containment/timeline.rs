//! What is told of one decision: when what happened, and how far it has come.

use std::collections::BTreeMap;

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::State;

/// Why it is told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// It is contained: before all proxies that matter it is refused, or silent.
    Contained,
    /// A call was served that should not have been: a stronger action is called for.
    Leaking,
    /// For a minute nothing has proven that it holds: somebody should look.
    Unobserved,
    /// It does not act any more.
    Ended,
    /// Somebody has asked.
    Standing,
}

/// The timeline of a decision. Times are wall time, but for the event's own; `None` is not yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Why it is told.
    pub moment: Moment,
    /// The decision.
    pub decision: String,
    /// Whom it is about.
    pub identity: String,
    /// The one instance that is meant.
    pub instance: Option<String>,
    /// The level.
    pub level: Level,
    /// Where it stands as a whole.
    pub state: State,
    /// How many of the proxies that matter stand where.
    pub nodes: BTreeMap<State, u32>,
    /// The proxies because of which it is not contained.
    pub worst: Vec<String>,
    /// When this was so.
    pub at: Timestamp,
    /// When the event was written that led to the decision; `None` where no event did.
    pub event: Option<Timestamp>,
    /// When the threshold was crossed, or an operator decided.
    pub crossed: Timestamp,
    /// When it went out.
    pub pushed: Timestamp,
    /// The first acknowledgement.
    pub first_acknowledged: Option<Timestamp>,
    /// The latest acknowledgement.
    pub last_acknowledged: Option<Timestamp>,
    /// Begin of the first call that was refused because of it.
    pub first_denied: Option<Timestamp>,
    /// Begin of the latest call that was served and should not have been.
    pub last_served: Option<Timestamp>,
    /// Calls that were refused.
    pub denied: u64,
    /// Calls that began after the threshold was crossed, and were served although they should not have been.
    pub served: u64,
    /// When it was first contained.
    pub contained: Option<Timestamp>,
    /// A call was served at some time although its proxy had acknowledged: what is kept for that acts until the decision
    /// ends.
    #[serde(default)]
    pub escalated: bool,
    /// What of the subject's calls is not cut.
    pub not_cut: Vec<String>,
}

impl Timeline {
    /// From the event, or else from the decision, until it was contained.
    pub fn time_to_contain(&self) -> Option<Span> {
        let since = self.event.unwrap_or(self.crossed).min(self.crossed);
        self.contained.map(|contained| contained - since)
    }
}
