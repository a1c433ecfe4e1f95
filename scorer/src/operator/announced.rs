//! Deployments that were announced: for a time, what the announced service does anew is as likely its new version as not.
//!
//! An announcement widens tolerance and hides nothing. It is about one service; what others do counts as ever. Within the
//! service it speaks for what at least two replicas do: that is recognised as the service's own at once, instead of when
//! half of the replicas do it, and evidence that comes from several of them leads to *watched* at most. A pod that came
//! with the deployment leads to *watched* at most for its first ten minutes, also by a new TLS client, failures or bigger
//! calls. What one replica alone goes on doing, a network outside the mesh, and a credential that does not add up count in
//! full, so that whoever has got into one pod gains nothing by a deployment, nor by announcing one.

use qualm_model::{
    identity::Hierarchy,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::{Instruction, Refusal};
use crate::{scorer::Scorer, shard::Source};

/// Announcements that stand at once.
const MOST: usize = 256;
/// A pipeline tells of a deployment a little after its first pod is there.
const BEFORE: Span = Span(5 * Span::MINUTE.0);

/// A deployment that was announced. Its times are event times, as it is events that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// `namespace/service`.
    pub service: String,
    /// Only in this cluster; everywhere, where none is named.
    pub cluster: Option<String>,
    /// Who has announced it.
    pub by: String,
    /// What for.
    pub why: String,
    /// From when on.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// All of them, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Announcements {
    standing: Vec<Announcement>,
}

/// `namespace/service` of a principal, or of one of several workloads that share it.
pub fn service_of(principal: &str, workload: Option<&str>) -> String {
    let place = Hierarchy::of(principal);
    format!("{}/{}", place.namespace.unwrap_or("-"), workload.unwrap_or(place.service))
}

impl Announcement {
    /// Whether it is about a source.
    fn is_about(&self, source: &Source) -> bool {
        let is_there = self.cluster.is_none() || self.cluster.as_deref() == source.cluster.as_deref();
        is_there && service_of(&source.principal, source.workload.as_deref()) == self.service
    }
}

impl Announcements {
    pub(crate) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Announcement> {
        self.standing.iter()
    }

    /// The span for which what a source does was announced, by the latest that lasts longest.
    pub(crate) fn span_of(&self, source: &Source) -> Option<(Timestamp, Timestamp)> {
        let about = self.standing.iter().filter(|of| of.is_about(source));
        about.map(|of| (of.since, of.until)).max_by_key(|(_, until)| *until)
    }

    /// The one that speaks for a source at `now`.
    pub(crate) fn of(&self, source: &Source, now: Timestamp) -> Option<&Announcement> {
        self.standing.iter().rev().find(|of| (of.since..=of.until).contains(&now) && of.is_about(source))
    }

    /// Puts one in the place of the one before about the same service.
    pub(super) fn put(&mut self, new: Announcement) -> Result<(), Refusal> {
        self.standing.retain(|of| of.until >= new.since && (of.service != new.service || of.cluster != new.cluster));
        if self.standing.len() >= MOST {
            return Err(Refusal::TooMany(MOST));
        }
        self.standing.push(new);
        Ok(())
    }

    /// Lets go of those that have ended.
    pub(crate) fn end(&mut self, now: Timestamp) {
        self.standing.retain(|of| of.until >= now);
    }
}

impl Scorer {
    /// Takes an announcement in; a note where nobody of that service is known.
    pub(super) fn announce(
        &mut self,
        of: &Instruction,
        (service, cluster): (&str, Option<&str>),
        lasts: Span,
    ) -> Result<Vec<String>, Refusal> {
        self.announced.put(Announcement {
            service: service.to_owned(),
            cluster: cluster.map(str::to_owned),
            by: of.by.clone(),
            why: of.why.clone(),
            since: of.event - BEFORE,
            until: of.event + lasts,
        })?;
        let about = self.tell_sources_what_is_announced();
        let nobody = "no identity of that service is known yet: it counts for those that come; services are named \
                      `namespace/service`, as `qualm explain` lists them under `service`";
        Ok(if about == 0 { vec![nobody.to_owned()] } else { Vec::new() })
    }

    /// Gives each source the span that was announced for it; how many have one.
    pub(crate) fn tell_sources_what_is_announced(&mut self) -> usize {
        let announced = &self.announced;
        let mut about = 0;
        for source in self.shards.iter_mut().flat_map(|shard| shard.sources.values_mut()) {
            source.announced = announced.span_of(source);
            about += usize::from(source.announced.is_some());
        }
        about
    }

    /// Deployments that are announced now.
    pub fn announcements(&self) -> impl Iterator<Item = &Announcement> {
        self.announced.iter()
    }
}
