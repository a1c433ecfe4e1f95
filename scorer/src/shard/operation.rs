//! One operation of one edge: what is usual, and who uses it.

use qualm_model::{
    baseline::OperationBaseline,
    detector::{Observation, Question},
    stats::Exposure,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::{
    SETTLED, Source, is_change,
    parting::{Split, Use},
    users::Users,
};
use crate::{
    mesh::{Delta, Mesh},
    scorer::Case,
};

/// Everything kept of one operation that a source uses at a destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) baseline: OperationBaseline,
    pub(super) users: Users,
    /// When it was recognised as a change of the service rather than of one replica.
    adopted: Option<Timestamp>,
    /// What the mesh knows it as, the minute for which it was asked, and the trusted calls since.
    in_mesh: u64,
    minute: i64,
    weight: f32,
}

impl Operation {
    /// One that the instance at `place` uses for the first time; `in_mesh` is what the mesh knows it as.
    pub(super) fn new(in_mesh: u64, users: Users) -> Self {
        Self { in_mesh, users, ..Self::default() }
    }

    /// Notes that the instance at `place` of its source used it. What most replicas use within a day of its first use is
    /// the service's own change, as with a new edge: from then on it is as old as that.
    #[inline]
    pub(super) fn used_by(&mut self, place: usize, source: &Source, now: Timestamp) {
        let is_new_user = self.users.add(place);
        let is_young = self.adopted.is_none() && now - self.users.first() <= SETTLED;
        if is_new_user && is_young && is_change(self.users.places(), source, now) {
            self.adopted = Some(now);
            self.baseline = OperationBaseline::default();
        }
    }

    /// The operation as a part of its source has it; `None` where only others are known to use it. What is usual for all
    /// of them together is not usual for one: that is learned anew, as after a change of the service.
    pub(super) fn of_part(&self, split: &Split, now: Timestamp) -> Option<Self> {
        let (users, shared) = self.users.of_part(split)?;
        let own = Self { users, weight: 0.0, ..self.clone() };
        Some(match shared {
            Use::Alone => own,
            Use::WithOthers => Self { adopted: Some(now), baseline: OperationBaseline::default(), ..own },
        })
    }

    /// Whether it was usual at `before`: a day old, or recognised as a change of the service.
    pub(super) fn is_known(&self, before: Timestamp) -> bool {
        before - self.users.first() >= SETTLED || self.adopted.is_some_and(|adopted| adopted < before)
    }

    /// Tells the mesh of the calls of the minutes that have ended, and asks how much everybody uses it.
    #[inline]
    pub(super) fn exchange(&mut self, mesh: &Mesh, now: Timestamp, delta: &mut Delta) {
        let minute = now.window(Span::MINUTE);
        if minute <= self.minute {
            return;
        }
        self.minute = minute;
        let weight = std::mem::take(&mut self.weight);
        if weight > 0.0 {
            delta.operation(self.in_mesh, f64::from(weight));
        }
        if let Some(x) = self.baseline.set_volume_in_mesh(mesh.volume_of_operation(self.in_mesh)) {
            delta.sample(Question::RareOperation, x);
        }
    }

    /// The event as the operation sees it, which may be younger than its edge.
    #[inline]
    pub(crate) fn seen(&self, case: &Case<'_>) -> Observation {
        let seen = case.edge_seen();
        let birth = self.adopted.map_or(seen.exposure.birth, |adopted| adopted.max(seen.exposure.birth));
        Observation { exposure: Exposure { birth, ..seen.exposure }, ..seen }
    }

    /// Learns the event.
    #[inline]
    pub(super) fn learn(&mut self, seen: &Observation) {
        self.weight += (seen.weight * seen.more) as f32;
        self.baseline.learn(seen);
    }
}
