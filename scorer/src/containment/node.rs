//! How far one proxy is in carrying out one decision.

use std::cmp::max;

use qualm_model::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// A call that began within this time after the acknowledgement may have been served by right: a proxy's workers follow
/// its main thread, and clocks of one cluster differ by less.
pub(super) const SETTLING: Span = Span::SECOND;
/// The least that telemetry is taken to lag behind: proxies send what they have every so often.
const LEAST_DELAY: Span = Span::SECOND;
/// A proxy of which nothing is heard for so long after it acknowledged is not observed.
pub(super) const UNOBSERVED: Span = Span::MINUTE;
/// How much of a newer delay counts.
const FRESH: i64 = 8;

/// How far a proxy, or all of them together, have come; the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its telemetry is complete since, and the subject has not called.
    Quiet,
    /// A call was refused by this decision, and none was served that began later than the acknowledgement.
    Effective,
    /// It has the decision.
    Acknowledged,
    /// It was sent, and not acknowledged yet.
    Pushed,
    /// It tells of nothing, or nobody enforces there.
    Unobserved,
    /// A call was served that began after it acknowledged.
    Leaking,
}

impl State {
    /// The word used in every output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Effective => "effective",
            Self::Acknowledged => "acknowledged",
            Self::Pushed => "pushed",
            Self::Unobserved => "unobserved",
            Self::Leaking => "leaking",
        }
    }

    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Quiet, Self::Effective, Self::Acknowledged, Self::Pushed, Self::Unobserved, Self::Leaking];

    /// Whether it is proven that the decision holds.
    pub const fn is_contained(self) -> bool {
        matches!(self, Self::Quiet | Self::Effective)
    }
}

/// An enforcement point.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) identity: Option<String>,
    pub(super) connected: bool,
}

/// How far the telemetry of one reporter has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    last: Timestamp,
    arrived: Timestamp,
    /// How much later than written its records usually arrive.
    delay: Span,
    /// The least of that: below zero its clock is ahead.
    least: Option<Span>,
}

impl Heard {
    pub(super) fn note(&mut self, reported: Timestamp, arrived: Timestamp) {
        let lag = arrived - reported;
        self.last = max(self.last, reported);
        self.arrived = max(self.arrived, arrived);
        self.delay = match self.least {
            None => lag,
            Some(_) => Span(self.delay.0 + (lag.0 - self.delay.0) / FRESH),
        };
        self.least = Some(self.least.map_or(lag, |least| least.min(lag)));
    }

    /// By how much its clock is ahead, at least.
    pub(super) fn ahead(&self) -> Span {
        Span(self.least.map_or(0, |least| (-least.0).max(0)))
    }

    pub(super) fn last_arrival(&self) -> Timestamp {
        self.arrived
    }

    /// Whether it has told of all that happened until `time` and a little later.
    pub(super) fn is_complete_past(&self, time: Timestamp) -> bool {
        let delay = self.delay.max(LEAST_DELAY);
        self.last - self.ahead() > time + Span(2 * delay.0)
    }
}

/// What was seen of the subject of one decision at one proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Begin of the latest call that was refused by the decision.
    pub(super) denied: Option<Timestamp>,
    /// Begin of the latest call that was served and should not have been.
    pub(super) served: Option<Timestamp>,
}

/// Where a proxy stands that has `acknowledged` then, or has not; `pushed` is when the decision went out.
pub(super) fn state(
    (acknowledged, pushed): (Option<Timestamp>, Timestamp),
    seen: Seen,
    heard: Option<&Heard>,
    wall: Timestamp,
) -> State {
    let Some(since) = acknowledged else {
        // Who never answers is not enforcing; what was served there meanwhile is not the proxy's fault, but served.
        let is_overdue = wall - pushed > UNOBSERVED;
        return match seen.served.filter(|served| *served > pushed + SETTLING) {
            Some(_) if is_overdue => State::Leaking,
            _ if is_overdue => State::Unobserved,
            _ => State::Pushed,
        };
    };
    let served = seen.served.filter(|served| *served > since + SETTLING);
    let denied = seen.denied.filter(|denied| *denied + SETTLING > since);
    match (served, denied) {
        // A denial after it does not undo it before a minute of denials alone.
        (Some(served), Some(denied)) if denied - served > UNOBSERVED => State::Effective,
        (Some(_), _) => State::Leaking,
        (None, Some(_)) => State::Effective,
        (None, None) if heard.is_some_and(|heard| heard.is_complete_past(since)) => State::Quiet,
        (None, None) if wall - since > UNOBSERVED => State::Unobserved,
        (None, None) => State::Acknowledged,
    }
}
