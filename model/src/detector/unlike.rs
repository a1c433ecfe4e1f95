//! Is a whole window unlike what its identity and its peers do?

use serde::{Deserialize, Serialize};

use super::{Deviation, Observation};
use crate::{
    peers::{FEATURES, Peers, Profile, WindowSums},
    stats::trust,
};

/// The windows of ten minutes of one identity, held against its own mean as far as its peers' windows vary.
///
/// `D²` is the Mahalanobis distance of the window from the identity's own mean, under the principal components of how the
/// windows of its peer group vary around *their* means ([`Group::distance`](crate::peers::Group::distance)). The surprise
/// is `D²/2` in nats, that of a normal density above its peak. Each feature may be usual by itself: ten minutes of few
/// calls with large answers at many peers are odd where peers' windows never go together so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Unlike {
    open: WindowSums,
    profile: Profile,
}

impl Unlike {
    /// Windows of its own that an identity needs before any is odd: an hour in which it did something.
    pub const LEAST_WINDOWS: f64 = 6.0;

    /// Counts calls into the open window. `new_peer` and `new_operation` say whether the window has seen them before.
    #[inline]
    pub fn count(&mut self, seen: &Observation, new_peer: bool, new_operation: bool) {
        self.open.add(seen.more, seen.outcome, seen.bytes, seen.duration_ns);
        self.open.peers += f64::from(u8::from(new_peer));
        self.open.operations += f64::from(u8::from(new_operation));
    }

    /// What is known of its windows.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Whether anything was done in the open window.
    pub fn is_idle(&self) -> bool {
        self.open.calls == 0.0
    }

    /// What the open window would mean if it ended now. Changes nothing.
    pub fn score(&self, peers: &Peers, tide: f64) -> Option<Deviation> {
        if self.is_idle() || self.profile.windows < Self::LEAST_WINDOWS {
            return None;
        }
        let mean = self.profile.mean();
        let group = peers.group_of(&mean)?;
        let distance = group.distance(&self.open.vector(tide), &mean);
        Some(Deviation {
            x: 1.0 + distance / 2.0,
            // As far as such windows lie, in the mean over features.
            observed: libm::sqrt(distance / FEATURES as f64),
            expected: 1.0,
            n: self.profile.windows,
        })
    }

    /// Ends the open window: it is learned as far as it is not odd.
    pub fn close(&mut self, peers: Option<&Peers>, tide: f64) {
        if !self.is_idle() {
            let deviation = peers.and_then(|peers| self.score(peers, tide));
            let weight = deviation.map_or(1.0, |deviation| trust(deviation.x - 1.0));
            self.profile.learn(&self.open.vector(tide), weight);
        }
        self.open = WindowSums::default();
    }

    /// Forgets the open window: what was read of it is not all that was done.
    pub fn discard(&mut self) {
        self.open = WindowSums::default();
    }
}
