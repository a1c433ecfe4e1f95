//! Episodes with one cause are one incident: whoever meets the same new peer, suffers from the same dependency, or is
//! another part of the same service that changes, within ten minutes.
//!
//! Nothing here moves evidence or a level: it only says which alerts are one. Found when an episode begins, by the
//! strongest of its reasons that others could share; journalled with the verdict, so that after a crash the journal, not
//! re-derivation, says to what an episode belongs.

use qualm_model::{
    detector::Question,
    level::Level,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    operator::announced::service_of,
    table::Subject,
    verdict::{Reason, Verdict},
};

/// Whoever enters so long after the last one who shares the cause still belongs to it.
const WITHIN: Span = Span(10 * Span::MINUTE.0);
/// An incident takes nobody in that comes so long after its begin: what has gone on for an hour is told anew, or an alert
/// of the morning could swallow those of the day.
const LONGEST: Span = Span::HOUR;
/// Incidents of the last hour that are known; the oldest goes first. Twice the table's usual bound of newcomers a minute.
const OPEN: usize = 1024;
/// Identities of one incident; the next one begins another, so that a flood of alerts is bounded and nobody is unnamed.
const MEMBERS: usize = 64;
/// A reason is weak beside one of more than twice its bits: what that one says is not what they share.
const WEAK: f64 = 0.5;

/// What the episodes of an incident have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shared {
    /// A peer, or something at it, that is new to them; its name.
    NewPeer(String),
    /// A dependency at which their calls fail, are refused, last long, or come again and again; its name.
    Dependency(String),
    /// They are one service, in several clusters or of several names, that changes; `namespace/service`.
    Service(String),
}

impl Shared {
    /// Whom it is about.
    pub fn of(&self) -> &str {
        match self {
            Self::NewPeer(of) | Self::Dependency(of) | Self::Service(of) => of,
        }
    }
}

/// The incident that an episode belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The id of its alert: that of its first episode.
    pub id: String,
    /// Event time of its first entry.
    pub since: Timestamp,
    /// What the episode that this is said of has in common with the others; `None` while it is the first.
    pub shared: Option<Shared>,
}

/// The id of an episode, and of its alert: of identity and first entry, the same whenever the same events are read again.
/// The begin of the evidence alone would not do, since a lease may end, and another entry follow, before all of the
/// evidence has decayed. 128 bits, hex.
pub fn episode_id(identity: &str, entered: Timestamp) -> String {
    let mut hash = Sha256::new();
    hash.update(identity);
    hash.update([0]);
    hash.update(entered.0.to_le_bytes());
    const_hex::encode(&hash.finalize()[..16])
}

/// One that may still take somebody in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    id: String,
    since: Timestamp,
    last: Timestamp,
    /// What its members could share, of any of them.
    causes: Vec<Shared>,
    members: Vec<Member>,
}

/// Whoever has entered a level because of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    identity: String,
    principal: String,
    stands: bool,
}

/// The incidents of the last hour, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Incidents {
    open: Vec<Open>,
}

impl Incidents {
    /// The incident of an episode that begins now.
    pub(crate) fn join(&mut self, subject: &Subject, now: Timestamp, reasons: &[Reason]) -> Incident {
        self.expire(now);
        let causes = causes(subject, reasons);
        let principal = subject.principal.as_str();
        let found = self.open.iter().enumerate().find_map(|(place, open)| {
            let is_near = (now - open.last).0.abs() <= WITHIN.0 && open.members.len() < MEMBERS;
            Some((place, open.shares(&causes, principal).filter(|_| is_near)?))
        });
        let Some((place, shared)) = found else { return self.begin(subject, now, causes) };
        let open = &mut self.open[place];
        open.take(subject, now, causes);
        Incident { id: open.id.clone(), since: open.since, shared: Some(shared) }
    }

    fn begin(&mut self, subject: &Subject, now: Timestamp, causes: Vec<Shared>) -> Incident {
        let id = episode_id(&subject.identity(), now);
        self.put(&id, (now, now), subject, causes);
        Incident { id, since: now, shared: None }
    }

    fn put(&mut self, id: &str, (since, last): (Timestamp, Timestamp), subject: &Subject, causes: Vec<Shared>) {
        if self.open.len() == OPEN {
            self.open.remove(0);
        }
        let mut open = Open { id: id.to_owned(), since, last, causes: Vec::new(), members: Vec::new() };
        open.take(subject, last, causes);
        self.open.push(open);
    }

    /// An identity is trusted again. An incident of which nobody stands any more is over: its alert is closed, and whoever
    /// enters later begins another.
    pub(crate) fn leave(&mut self, identity: &str) {
        for open in &mut self.open {
            open.members.iter_mut().filter(|of| of.identity == identity).for_each(|of| of.stands = false);
        }
        self.open.retain(|open| open.members.iter().any(|of| of.stands));
    }

    fn expire(&mut self, now: Timestamp) {
        self.open.retain(|open| now - open.since <= LONGEST);
    }

    /// Takes over what the journal says of an episode that began after the snapshot.
    pub(crate) fn take_over(&mut self, verdict: &Verdict) {
        if verdict.level == Level::Trusted {
            self.leave(&verdict.identity);
            return;
        }
        let Some(incident) = &verdict.incident else { return };
        let causes = causes(&verdict.subject, &verdict.reasons);
        match self.open.iter_mut().find(|open| open.id == incident.id) {
            Some(open) => open.take(&verdict.subject, verdict.time, causes),
            None => self.put(&incident.id, (incident.since, verdict.time), &verdict.subject, causes),
        }
    }
}

impl Open {
    /// What somebody with these causes shares with its members.
    fn shares(&self, causes: &[Shared], principal: &str) -> Option<Shared> {
        let same = causes.iter().find(|cause| self.causes.contains(cause));
        // A calls B, which calls C: where C fails, A suffers from B because B suffers from C.
        let suffers_from_member = |cause: &&Shared| match cause {
            Shared::Dependency(of) => self.suffers() && self.members.iter().any(|of_it| of_it.principal == *of),
            _ => false,
        };
        let is_suffered_from = |cause: &&Shared| {
            matches!(cause, Shared::Dependency(_)) && self.causes.contains(&Shared::Dependency(principal.to_owned()))
        };
        let chained = || causes.iter().find(|cause| suffers_from_member(cause) || is_suffered_from(cause));
        same.or_else(chained).cloned()
    }

    fn suffers(&self) -> bool {
        self.causes.iter().any(|cause| matches!(cause, Shared::Dependency(_)))
    }

    fn take(&mut self, subject: &Subject, now: Timestamp, causes: Vec<Shared>) {
        self.last = self.last.max(now);
        let identity = subject.identity();
        if let Some(known) = self.members.iter_mut().find(|of| of.identity == identity) {
            known.stands = true;
        } else if self.members.len() < MEMBERS {
            self.members.push(Member { identity, principal: subject.principal.clone(), stands: true });
        }
        // As many as members, times two: one by what they do, one by what they are.
        let new: Vec<Shared> = causes.into_iter().filter(|cause| !self.causes.contains(cause)).collect();
        self.causes.extend(new);
        self.causes.truncate(2 * MEMBERS);
    }
}

/// What others could share of an episode: its strongest reason that is about somebody else, and that it is one service.
fn causes(subject: &Subject, reasons: &[Reason]) -> Vec<Shared> {
    let strongest = reasons.first().map_or(0.0, |reason| reason.bits);
    let telling = reasons.iter().filter(|reason| reason.bits >= WEAK * strongest);
    let with_others = telling.filter(|reason| !reason.destination.is_empty()).find_map(|reason| {
        let of = reason.destination.clone();
        match reason.detector {
            Question::RarePeer
            | Question::StrangePeer
            | Question::RareDestination
            | Question::NewOperation
            | Question::RareOperation
            | Question::FanIn
            | Question::Rhythm => Some(Shared::NewPeer(of)),
            Question::Failing
            | Question::Refused
            | Question::Longer
            | Question::EdgeRate
            | Question::OperationRate
            | Question::DestinationRate => Some(Shared::Dependency(of)),
            _ => None,
        }
    });
    let service = service_of(&subject.principal, subject.workload.as_deref());
    with_others.into_iter().chain([Shared::Service(service)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str, cluster: Option<&str>) -> Subject {
        Subject {
            principal: format!("spiffe://mesh.test/ns/shop/sa/{name}"),
            cluster: cluster.map(str::to_owned),
            workload: None,
            instance: None,
        }
    }

    fn reason(detector: Question, bits: f64, destination: &str) -> Reason {
        Reason {
            detector,
            bits,
            observed: 0.0,
            expected: 0.0,
            n: 0.0,
            usual: None,
            destination: format!("spiffe://mesh.test/ns/shop/sa/{destination}"),
            operation: None,
            familiar: None,
        }
    }

    fn minute(minute: i64) -> Timestamp {
        Timestamp(minute * Span::MINUTE.0)
    }

    #[test]
    fn whoever_suffers_from_the_same_dependency_within_ten_minutes_is_one_incident() {
        let mut incidents = Incidents::default();
        let failing = [reason(Question::Failing, 20.0, "payments")];
        let first = incidents.join(&subject("cart", None), minute(0), &failing);
        assert_eq!((first.since, &first.shared), (minute(0), &None));
        let second = incidents.join(&subject("checkout", None), minute(9), &failing);
        let shared = Some(Shared::Dependency("spiffe://mesh.test/ns/shop/sa/payments".to_owned()));
        assert_eq!((&second.id, second.since, &second.shared), (&first.id, minute(0), &shared));
        let third = incidents.join(&subject("mail", None), minute(18), &failing);
        assert_eq!(third.id, first.id, "ten minutes count from the latest");
        let other = incidents.join(&subject("search", None), minute(19), &[reason(Question::Failing, 20.0, "ads")]);
        assert_ne!(other.id, first.id, "another dependency is another cause");
        let late = incidents.join(&subject("tax", None), minute(40), &failing);
        assert_ne!(late.id, first.id, "too late for it");
    }

    #[test]
    fn what_has_gone_on_for_an_hour_is_told_anew() {
        let mut incidents = Incidents::default();
        let failing = [reason(Question::Failing, 20.0, "payments")];
        let ids: Vec<String> =
            (0..9).map(|n| incidents.join(&subject(&format!("s{n}"), None), minute(n * 9), &failing).id).collect();
        assert!(ids[..7].iter().all(|id| *id == ids[0]) && ids[7] != ids[0], "{ids:?}");
        assert_eq!(ids[7], ids[8]);
    }

    #[test]
    fn who_fails_because_its_dependency_does_belongs_to_it_in_either_order() {
        for turned in [false, true] {
            let mut incidents = Incidents::default();
            let mut told = [
                (subject("orders", None), reason(Question::Failing, 20.0, "database")),
                (subject("cart", None), reason(Question::Longer, 12.0, "orders")),
            ];
            if turned {
                told.reverse();
            }
            let ids: Vec<String> =
                told.iter().map(|(who, why)| incidents.join(who, minute(1), std::slice::from_ref(why)).id).collect();
            assert_eq!(ids[0], ids[1]);
        }
    }

    #[test]
    fn one_service_in_two_clusters_is_one_incident_and_two_that_share_nothing_are_two() {
        let mut incidents = Incidents::default();
        let east =
            incidents.join(&subject("cart", Some("east")), minute(0), &[reason(Question::NewOperation, 9.0, "a")]);
        let west =
            incidents.join(&subject("cart", Some("west")), minute(3), &[reason(Question::NewOperation, 9.0, "b")]);
        assert_eq!((&west.id, &west.shared), (&east.id, &Some(Shared::Service("shop/cart".to_owned()))));
        let other = incidents.join(&subject("mail", None), minute(3), &[reason(Question::NewOperation, 9.0, "c")]);
        assert_ne!(other.id, east.id);
    }

    #[test]
    fn a_weak_reason_beside_a_strong_one_joins_nothing() {
        let mut incidents = Incidents::default();
        let first = incidents.join(&subject("cart", None), minute(0), &[reason(Question::Failing, 8.0, "payments")]);
        let attack = [reason(Question::NewFingerprint, 30.0, "vault"), reason(Question::Failing, 8.0, "payments")];
        assert_ne!(incidents.join(&subject("mail", None), minute(1), &attack).id, first.id);
    }

    #[test]
    fn once_nobody_of_it_stands_whoever_enters_begins_another() {
        let mut incidents = Incidents::default();
        let failing = [reason(Question::Failing, 20.0, "payments")];
        let (cart, mail) = (subject("cart", None), subject("mail", None));
        let first = incidents.join(&cart, minute(0), &failing);
        incidents.join(&mail, minute(1), &failing);
        incidents.leave(&cart.identity());
        assert_eq!(incidents.join(&subject("tax", None), minute(2), &failing).id, first.id, "mail still stands");
        incidents.leave(&mail.identity());
        incidents.leave(&subject("tax", None).identity());
        assert_ne!(incidents.join(&cart, minute(3), &failing).id, first.id);
    }

    #[test]
    fn members_and_incidents_are_bounded() {
        let mut incidents = Incidents::default();
        let failing = [reason(Question::Failing, 20.0, "payments")];
        let ids: std::collections::BTreeSet<String> = (0..2 * MEMBERS)
            .map(|n| incidents.join(&subject(&format!("s{n}"), None), minute(0), &failing).id)
            .collect();
        assert_eq!(ids.len(), 2);
        for n in 0..2 * OPEN {
            incidents.join(
                &subject(&format!("t{n}"), None),
                minute(0),
                &[reason(Question::Failing, 9.0, &n.to_string())],
            );
        }
        assert_eq!(incidents.open.len(), OPEN);
    }
}
