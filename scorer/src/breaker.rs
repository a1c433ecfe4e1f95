//! The circuit breaker: where many identities are limited at once it is a deployment, an outage or Qualm's own fault, and
//! not as many intruders. Nobody is limited then on behaviour; what a person has set goes on.
//!
//! It follows from what stands, and from nothing else: a restart changes nothing of it.

use std::collections::BTreeSet;

use qualm_model::time::{Span, Timestamp};

use crate::{
    guard::{HeldBy, Withheld},
    mesh::SourceKey,
    scorer::Scorer,
    standing::Standing,
    verdict::{Cause, Verdict},
};

/// Entries within this time are of one cause, as likely as not: a rollout takes minutes.
const WINDOW: Span = Span(10 * Span::MINUTE.0);
/// So many are never too many, however small the mesh is.
const LEAST: usize = 5;

impl Scorer {
    /// How many identities have come to be limited within ten minutes, where these are too many: more than `max_share`
    /// of all, and more than five. `None` where they are not.
    pub fn circuit_breaker(&self, wall: Timestamp) -> Option<usize> {
        let recent = self.recently_limited(wall, None);
        let now = self.watermark.now().unwrap_or(wall);
        (recent > LEAST && recent > self.most_denied(now)).then_some(recent)
    }

    /// The same with one more who is about to be.
    pub(crate) fn crowd_with(&self, principal: &str, (now, wall): (Timestamp, Timestamp)) -> Option<usize> {
        let recent = self.recently_limited(wall, Some(principal));
        (recent > LEAST && recent > self.most_denied(now)).then_some(recent)
    }

    fn recently_limited(&self, wall: Timestamp, besides: Option<&str>) -> usize {
        let standings = self.standings.values().filter(|standing| is_recent(standing, wall));
        let principals = standings.map(|standing| &*standing.subject.principal);
        principals.chain(besides).collect::<BTreeSet<&str>>().len()
    }

    /// Holds back what has come to act within the window, where it is too many at once: the first of many are no more
    /// likely to be intruders than the last.
    pub(crate) fn hold_many(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        // What another bound holds back acts at a lower level.
        let acts = |(key, standing): &(&SourceKey, &Standing)| {
            is_recent(standing, wall) && (standing.limits() || self.waiting.contains_key(*key))
        };
        let mut keys: Vec<SourceKey> = self.standings.iter().filter(acts).map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return;
        }
        let Some(recent) = self.circuit_breaker(wall) else { return };
        keys.sort_by(|a, b| self.identity_of(*a).cmp(self.identity_of(*b)));
        let why = why(recent);
        for key in keys {
            let Some(mut standing) = self.standings.remove(&key) else { continue };
            standing.held = true;
            self.note_held(key, None);
            let withheld = Withheld { by: HeldBy::CircuitBreaker, why: why.clone() };
            verdicts.extend(self.mandated(key, &standing, (Cause::Held, Some(withheld)), wall));
            self.standings.insert(key, standing);
        }
    }
}

fn is_recent(standing: &Standing, wall: Timestamp) -> bool {
    !standing.historic && standing.level.limits() && wall - standing.decided <= WINDOW
}

/// Why nobody of so many is limited.
pub(crate) fn why(crowd: usize) -> String {
    format!(
        "circuit breaker: {crowd} identities came to be limited within 10 minutes, which is a deployment, an outage or a \
         fault of Qualm's rather than as many intruders"
    )
}
