//! Who behaves like whom: fitted in the background from what the scorer itself has seen, or read from a model file.
//!
//! Once a day of event time the windows of identities are given to a thread, which fits (`qualm-peers`, with linfa). The fit is
//! applied at a stated event time, a window later: by then it is done in a running instance, and whoever replays the past
//! faster than that waits for it. So the same events give the same fit at the same event time, at any pace and from any
//! restart point; what was given to the thread is in the snapshot. The loop journals that it was applied.
//!
//! This file says when it is fitted and applied, and whose ended window is unlike its own and its peers'; the fit itself and
//! the model file are the crate `qualm-peers`.

use std::{hash::BuildHasher as _, sync::Arc, thread};

use foldhash::quality;
use qualm_model::{
    detector::{Deviation, Question, Unlike},
    level::Level,
    peers::{Peers, WINDOW},
    stats::Exposure,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use crate::{absence::Absence, mesh::SourceKey, scorer::Scorer, verdict::Verdict};
use qualm_peers::{LEAST_MEMBERS, Member, fit};
pub use qualm_peers::{Model, ModelError};

/// It is fitted again so often: behaviour that has changed for good is somebody's peers' tomorrow.
const FIT_EVERY: Span = Span::DAY;
/// Identities that it is fitted to at most; of more, those whose names have the smallest hashes.
const MOST_MEMBERS: usize = 4096;
/// Where more than this share of the windows that have ended are very odd, it is the mesh that has changed, or the
/// telemetry.
const ODD_SHARE: f64 = 0.2;
/// So odd: four bits, which about one window in a hundred has.
const VERY_ODD: f64 = 16.0;

/// What is known of peers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct PeerGroups {
    peers: Option<Arc<Peers>>,
    /// Hash of the model file that it was read from; empty where it was fitted here.
    given: String,
    /// When the latest fit was begun.
    begun: Option<Timestamp>,
    /// The fit that is under way.
    pending: Option<Pending>,
    /// Whether they are fitted here; as the configuration says.
    #[serde(skip)]
    in_background: bool,
    #[serde(skip)]
    applied: Option<Applied>,
    #[serde(skip)]
    pub(crate) is_changed: bool,
}

/// Where peers come from.
#[derive(Debug, Clone, Copy)]
pub enum PeersFrom<'a> {
    /// Nowhere: nobody is held against them.
    Nowhere,
    /// They are fitted in the background.
    Background,
    /// A model file.
    File(&'a Model),
}

/// A fit under way: applied at `due`, whatever the pace.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    due: Timestamp,
    members: Vec<Member>,
    #[serde(skip)]
    thread: Option<thread::JoinHandle<Option<Peers>>>,
}

/// A fit that judges from now on, for the journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applied {
    /// The event time from which on it judges.
    pub at: Timestamp,
    /// The model file that it was read from; empty where it was fitted in the background.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// All of it.
    pub peers: Arc<Peers>,
}

impl Scorer {
    /// Says where peers come from; what was known of them by another way is forgotten.
    pub fn take_peers(&mut self, from: PeersFrom<'_>) {
        let model = if let PeersFrom::File(model) = from { Some(model) } else { None };
        let given = model.map(Model::hash).unwrap_or_default();
        let in_background = matches!(from, PeersFrom::Background);
        let stays = self.peers.given == given && (model.is_some() || in_background || !self.peers.asks());
        if stays {
            self.peers.in_background = in_background;
            return;
        }
        let at = self.watermark.now().unwrap_or(Timestamp(0));
        self.peers = PeerGroups { given, in_background, is_changed: true, ..PeerGroups::default() };
        if let Some(model) = model {
            self.mesh.take_prior(Question::UnlikePeers, &model.prior);
            self.peers.apply(Arc::new(model.peers.clone()), at);
        }
    }

    /// A fit that was applied since this was last asked.
    pub fn applied_peers(&mut self) -> Option<Applied> {
        self.peers.applied.take()
    }

    /// Closes the windows of ten minutes that have ended, and looks whose were unlike its own and its peers'.
    pub(crate) fn look_at_windows(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        let Some(birth) = self.mesh.birth().filter(|_| self.peers.asks()) else { return };
        let end = Timestamp((self.mesh.closed().window(WINDOW) + 1) * WINDOW.0 - 1);
        self.peers.finish(end);
        let is_blind = self.estate.is_blind(end);
        let exposure = self.mesh.exposure(end);
        let peers = self.peers.peers.clone();
        let mut asked = Vec::new();
        for shard in 0..self.shards.len() as u8 {
            self.close_windows(shard, (is_blind, exposure), peers.as_deref(), &mut asked);
        }
        self.weigh_windows(asked, end, wall, verdicts);
        if self.peers.is_due(birth, end) {
            let members = self.members();
            self.peers.begin(members, end);
        }
    }

    /// Weighs those that are odd, unless so many are very odd that it is not their doing.
    fn weigh_windows(
        &mut self,
        asked: Vec<(SourceKey, Deviation)>,
        end: Timestamp,
        wall: Timestamp,
        verdicts: &mut Vec<Verdict>,
    ) {
        let count = asked.len() as f64;
        let e = |deviation: &Deviation| self.mesh.e(Question::UnlikePeers, deviation.x);
        let very_odd = asked.iter().filter(|(_, deviation)| e(deviation) > VERY_ODD).count() as f64;
        let is_everybody = very_odd > ODD_SHARE * count;
        let (mut odd, usual): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|(_, deviation)| !is_everybody && e(deviation) > 1.0);
        // What is weighed is sampled there.
        for (key, deviation) in usual {
            self.shards[usize::from(key.0)].delta.sample(Question::UnlikePeers, deviation.x);
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
        peers: Option<&Peers>,
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
            let answer = peers.and_then(|peers| unlike.score(peers, exposure.tide));
            asked.extend(answer.filter(|_| may_count).map(|deviation| ((shard, id), deviation)));
            unlike.close(peers, exposure.tide);
        }
    }

    /// Whose windows are fitted to.
    fn members(&self) -> Vec<Member> {
        let mut members: Vec<(u64, Member)> = Vec::new();
        for (shard, of) in self.shards.iter().enumerate() {
            for (&id, source) in &of.sources {
                let Some(unlike) = &source.unlike else { continue };
                if unlike.profile().windows < Unlike::LEAST_WINDOWS {
                    continue;
                }
                let identity = self.identity_of((shard as u8, id)).to_owned();
                let hash = quality::FixedState::with_seed(5).hash_one(&identity);
                members.push((hash, Member { identity, profile: *unlike.profile() }));
            }
        }
        members.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.identity.cmp(&b.1.identity)));
        members.truncate(MOST_MEMBERS);
        members.into_iter().map(|(_, member)| member).collect()
    }
}

impl PeerGroups {
    fn apply(&mut self, peers: Arc<Peers>, at: Timestamp) {
        self.applied = Some(Applied { at, file: self.given.clone(), peers: Arc::clone(&peers) });
        self.peers = Some(peers);
        self.is_changed = true;
    }

    /// Whether windows are looked at: where nobody asks, nothing is counted.
    #[inline]
    pub(crate) fn asks(&self) -> bool {
        self.in_background || self.peers.is_some() || self.pending.is_some()
    }

    /// Whether it is time to fit: a day after the birth of the mesh, and every day.
    fn is_due(&self, birth: Timestamp, now: Timestamp) -> bool {
        self.in_background && self.pending.is_none() && now - self.begun.unwrap_or(birth) >= FIT_EVERY
    }

    fn begin(&mut self, members: Vec<Member>, now: Timestamp) {
        self.begun = Some(now);
        self.is_changed = true;
        if members.len() < LEAST_MEMBERS {
            return;
        }
        self.pending = Some(Pending { due: now + WINDOW, thread: start(&members), members });
    }

    /// Applies the fit that is due; where it is not done yet, it is waited for.
    fn finish(&mut self, now: Timestamp) {
        let Some(pending) = self.pending.take_if(|pending| pending.due <= now) else { return };
        self.is_changed = true;
        let fitted = match pending.thread {
            // A fit that has panicked has no outcome, here as in every replay.
            Some(thread) => thread.join().unwrap_or_default(),
            // It was begun before a restart, or the system had no thread for it.
            None => fit(pending.members),
        };
        if let Some(peers) = fitted {
            self.apply(Arc::new(peers), now);
        }
    }
}

/// The fit on a thread of its own, which writes nothing and waits for nobody.
fn start(members: &[Member]) -> Option<thread::JoinHandle<Option<Peers>>> {
    let members = members.to_vec();
    thread::Builder::new().name("peers".to_owned()).spawn(move || fit(members)).ok()
}
