//! One event with all that is needed to judge it.

use qualm_model::{
    baseline::FirstTimes,
    detector::Observation,
    event::Event,
    stats::Exposure,
    time::{Span, Timestamp},
};

use crate::{door::Ids, estate::Broken};

/// What a source does for the first time in a window of ten minutes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FirstInWindow {
    /// Calls this destination.
    pub(crate) peer: bool,
    /// Uses this operation there.
    pub(crate) operation: bool,
}

/// One event with all that is needed to judge it, within its shard.
pub(crate) struct Case<'a> {
    pub(crate) event: Event<'a>,
    pub(crate) ids: Ids,
    pub(crate) seen: Observation,
    /// Calls that it is to the destination.
    pub(crate) received: f64,
    /// How many of these are of the destination's open minute.
    pub(crate) made: f64,
    /// Since when its edge could have been seen.
    pub(crate) edge_since: Timestamp,
    pub(crate) first: FirstTimes,
    pub(crate) edge_is_excused: bool,
    /// What its source does for the first time in this window, where windows are looked at.
    pub(crate) in_window: Option<FirstInWindow>,
    /// How long its source had been silent.
    pub(crate) rest: Span,
    /// What of its credential does not add up.
    pub(crate) broken: Option<Broken>,
}

impl Case<'_> {
    /// The event as its edge sees it, which may be younger than the mesh.
    #[inline]
    pub(crate) fn edge_seen(&self) -> Observation {
        let exposure = Exposure { birth: self.edge_since, ..self.seen.exposure };
        Observation { exposure, ..self.seen }
    }
}
