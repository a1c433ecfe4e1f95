//! Which entries were one incident: how many alerts there were, and those that tell of several identities.

use std::collections::{BTreeMap, BTreeSet};

use qualm_model::{level::Level, time::Timestamp};
use qualm_scorer::{
    incidents::Shared,
    notify::cause,
    verdict::{Cause, Verdict},
};
use serde::Serialize;

use super::trust::rfc3339;

/// Incidents that are kept; of more, the number.
const MOST: usize = 20_000;

/// As they come.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    known: BTreeMap<String, Known>,
    /// The incident of whoever stands above *trusted*.
    of: BTreeMap<String, String>,
    beyond: u64,
}

#[derive(Debug)]
struct Known {
    since: Timestamp,
    shared: Option<Shared>,
    level: Level,
    identities: BTreeSet<String>,
}

/// `incidents` of `report.json`.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// Alerts, each one incident.
    pub(super) alerts: u64,
    /// Those of several identities, in their order.
    pub(super) of_several: Vec<OfSeveral>,
}

/// An incident of several identities.
#[derive(Debug, Serialize)]
pub(super) struct OfSeveral {
    /// The alert's id.
    pub(super) alert: String,
    pub(super) since: String,
    /// What they share.
    pub(super) cause: String,
    /// The highest level that any of them entered.
    pub(super) level: Level,
    pub(super) identities: Vec<String>,
}

impl Incidents {
    /// Takes in what was decided.
    pub(super) fn note(&mut self, verdict: &Verdict) {
        if verdict.level == Level::Trusted {
            self.of.remove(&verdict.identity);
            return;
        }
        if verdict.cause != Cause::Evidence {
            return;
        }
        if let Some(incident) = &verdict.incident {
            if self.known.len() == MOST && !self.known.contains_key(&incident.id) {
                self.beyond += 1;
                return;
            }
            let known = self.known.entry(incident.id.clone()).or_insert_with(|| Known {
                since: incident.since,
                shared: None,
                level: verdict.level,
                identities: BTreeSet::new(),
            });
            known.identities.insert(verdict.identity.clone());
            known.shared = incident.shared.clone().or(known.shared.take());
            self.of.insert(verdict.identity.clone(), incident.id.clone());
        }
        let known = self.of.get(&verdict.identity).and_then(|id| self.known.get_mut(id));
        if let Some(known) = known {
            known.level = known.level.max(verdict.level);
        }
    }

    /// What is told of them.
    pub(super) fn told(&self) -> Told {
        let mut several: Vec<(&String, &Known)> =
            self.known.iter().filter(|(_, known)| known.identities.len() > 1).collect();
        several.sort_by_key(|(id, known)| (known.since, *id));
        let of_several = several
            .into_iter()
            .map(|(id, known)| OfSeveral {
                alert: id.clone(),
                since: rfc3339(known.since),
                cause: known.shared.as_ref().map(cause).unwrap_or_default(),
                level: known.level,
                identities: known.identities.iter().cloned().collect(),
            })
            .collect();
        Told { alerts: self.known.len() as u64 + self.beyond, of_several }
    }
}
