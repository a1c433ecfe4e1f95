//! One operation of one edge: what is usual, and who uses it.

use qualm_model::{baseline::OperationBaseline, detector::Observation, stats::Exposure, time::Timestamp};
use serde::{Deserialize, Serialize};

use super::{SETTLED, Source, is_shared};
use crate::scorer::Case;

/// Everything kept of one operation that a source uses at a destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) baseline: OperationBaseline,
    first: Timestamp,
    /// Instances that used it, by their place in the source's list.
    users: u64,
    /// When it was recognised as a change of the service rather than of one replica.
    adopted: Option<Timestamp>,
}

impl Operation {
    /// One that the instance at `place` uses for the first time.
    pub(super) fn new(place: usize, now: Timestamp) -> Self {
        Self { first: now, users: 1 << place, ..Self::default() }
    }

    /// Notes that the instance at `place` of its source used it. What most replicas use within a day of its first use is
    /// the service's own change, as with a new edge: from then on it is as old as that.
    #[inline]
    pub(super) fn used_by(&mut self, place: usize, source: &Source, now: Timestamp) {
        let is_new_user = self.users & (1 << place) == 0;
        self.users |= 1 << place;
        if is_new_user && self.adopted.is_none() && now - self.first <= SETTLED && is_shared(self.users, source.serving(now))
        {
            self.adopted = Some(now);
            self.baseline = OperationBaseline::default();
        }
    }

    /// The event as the operation sees it, which may be younger than its edge.
    #[inline]
    pub(crate) fn seen(&self, case: &Case<'_>) -> Observation {
        let seen = case.edge_seen();
        let birth = self.adopted.map_or(seen.exposure.birth, |adopted| adopted.max(seen.exposure.birth));
        Observation { exposure: Exposure { birth, ..seen.exposure }, ..seen }
    }
}
