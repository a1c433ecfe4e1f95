//! Who behaves like whom, by a model file, and whose ten minutes were unlike its own and its peers'.
//!
//! Every ten minutes of event time the windows of all sources are closed in one pass, beside the one that looks for
//! silence; an event costs a few additions.

use std::sync::Arc;

use qualm_model::{
    detector::{Deviation, Question},
    level::Level,
    peers::{Peers, WINDOW},
    stats::Exposure,
    time::{Span, Timestamp},
};
pub use qualm_peers::{Model, ModelError};
use serde::{Deserialize, Serialize};

use crate::{absence::Absence, mesh::SourceKey, scorer::Scorer, verdict::Verdict};

/// Where more than this share of the windows that have ended are odd, it is the mesh that has changed, or the telemetry.
const ODD_SHARE: f64 = 0.2;
/// So odd: four bits, which about one window in a hundred has.
const ODD: f64 = 16.0;

/// What is known of peers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct PeerGroups {
    peers: Option<Arc<Peers>>,
    /// Hash of the model file that it was read from.
    given: String,
    #[serde(skip)]
    applied: Option<Applied>,
    #[serde(skip)]
    pub(crate) is_changed: bool,
}

/// A fit that judges from now on, for the journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applied {
    /// SHA-256 of the model file; empty where there is none any more.
    pub file: String,
    /// The event time from which on it judges; none before the first event.
    pub at: Option<Timestamp>,
}

impl Scorer {
    /// Judges by a model file from now on; by none, with `None`.
    pub fn take_model(&mut self, model: Option<&Model>) {
        let hash = model.map(Model::hash).unwrap_or_default();
        if self.peers.given == hash {
            return;
        }
        let applied = Applied { file: hash.clone(), at: self.watermark.now() };
        if let Some(model) = model {
            self.mesh.take_prior(Question::UnlikePeers, &model.prior);
        }
        let peers = model.map(|model| Arc::new(model.peers.clone()));
        self.peers = PeerGroups { peers, given: hash, applied: Some(applied), is_changed: true };
    }

    /// What [`take_model`](Self::take_model) has changed since this was last asked.
    pub fn applied_peers(&mut self) -> Option<Applied> {
        self.peers.applied.take()
    }

    /// Closes the windows of ten minutes that have ended, and looks whose were unlike its own and its peers'.
    pub(crate) fn look_at_windows(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let Some(peers) = self.peers.peers.clone() else { return };
        let end = Timestamp((self.mesh.closed().window(WINDOW) + 1) * WINDOW.0 - 1);
        let (is_blind, exposure) = (self.estate.is_blind(end), self.mesh.exposure(end));
        let mut asked = Vec::new();
        for shard in 0..self.shards.len() as u8 {
            self.close_windows(shard, (is_blind, exposure), &peers, &mut asked);
        }
        let (mut odd, mut very_odd) = (Vec::new(), 0_usize);
        for (key, deviation) in &asked {
            let e = self.mesh.e(Question::UnlikePeers, deviation.x);
            very_odd += usize::from(e > ODD);
            if e > 1.0 {
                odd.push((*key, *deviation));
            } else {
                // What is weighed is sampled there.
                self.shards[usize::from(key.0)].delta.sample(Question::UnlikePeers, deviation.x);
            }
        }
        if very_odd as f64 > ODD_SHARE * asked.len() as f64 {
            for (key, deviation) in odd.drain(..) {
                self.shards[usize::from(key.0)].delta.sample(Question::UnlikePeers, deviation.x);
            }
        }
        // By name, since the order of a map is nobody's business.
        odd.sort_by(|a, b| self.identity_of(a.0).cmp(self.identity_of(b.0)));
        for (key, deviation) in odd {
            let absence = Absence::of(Question::UnlikePeers, deviation, Level::Watched);
            self.weigh_absence(key, &absence, end, wall, verdicts);
        }
    }

    fn close_windows(
        &mut self,
        shard: u8,
        (is_blind, exposure): (bool, Exposure),
        peers: &Peers,
        asked: &mut Vec<(SourceKey, Deviation)>,
    ) {
        let Self { shards, standings, .. } = self;
        let of = &mut shards[usize::from(shard)];
        for (&id, source) in &mut of.sources {
            if source.unlike.as_ref().is_none_or(|unlike| unlike.is_idle()) {
                continue;
            }
            of.changed.touch_source(id, source);
            let is_seen_in_part = source.filtered.is_some_and(|last| exposure.now - last <= Span::DAY);
            let may_count = !is_seen_in_part && source.class_may_reach() > Level::Trusted;
            // Whoever is held does otherwise because of us.
            let is_held = standings.get(&(shard, id)).is_some_and(|of| of.level >= Level::Throttled);
            let Some(unlike) = &mut source.unlike else { continue };
            if is_blind || is_held {
                unlike.discard();
                continue;
            }
            let answer = unlike.score(peers, exposure.tide);
            asked.extend(answer.filter(|_| may_count).map(|deviation| ((shard, id), deviation)));
            unlike.close(Some(peers), exposure.tide);
        }
    }
}

impl PeerGroups {
    /// Whether windows are looked at: where nobody asks, nothing is counted.
    #[inline]
    pub(crate) fn asks(&self) -> bool {
        self.peers.is_some()
    }
}
