//! What the loop answers in the words of `qualm.operator.v1`, and what was asked for in ours.

use qualm_model::{
    detector::Question,
    event::Position,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_proto::{
    operator::v1::{
        Acceptance, Announcement, Containment, Denied, Enforcement, Entry, Hold, ListResponse, Origin,
        Override as WireOverride, Pause, Peer, Receipt, RehearseAcceptanceResponse, RehearseResponse, ShowResponse,
        Step, Withheld,
    },
    trust::v1::{Level as WireLevel, Mode as WireMode},
};
use qualm_scorer::{
    config::Mode,
    containment::Timeline,
    operator::{
        Override,
        accepted::{Acceptance as Accepted, Part, Preview},
        announced::Announcement as Announced,
        look::{Line, PeerCalls},
        orders,
        rehearsed::Rehearsal,
    },
    verdict::{Cause, Verdict},
    withheld,
};
use tonic::Status;

use super::{Done, InForce, Portrait, Table};
use crate::finding::in_words;

/// A level as it was asked for; none is the lowest.
pub(super) fn level(level: WireLevel) -> Result<Level, Status> {
    match level {
        WireLevel::Unspecified | WireLevel::Trusted => Ok(Level::Trusted),
        WireLevel::Watched => Ok(Level::Watched),
        WireLevel::Throttled => Ok(Level::Throttled),
        WireLevel::Restricted => Ok(Level::Restricted),
        WireLevel::Quarantined => Ok(Level::Quarantined),
        WireLevel::Revoked => Ok(Level::Revoked),
    }
}

/// A question as it was asked for; empty is all.
pub(super) fn question(name: &str) -> Result<Option<Question>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    Question::named(name).map(Some).ok_or_else(|| {
        let known = Question::ALL.map(Question::name).join(", ");
        Status::invalid_argument(format!("there is no such question; those there are: {known}"))
    })
}

/// What is to be disregarded.
pub(super) fn overrides(said: impl Iterator<Item = WireOverride>) -> Result<Vec<Override>, Status> {
    let mut overrides = Vec::new();
    for said in said {
        let of = match said {
            WireOverride::Protected => Override::Protected,
            WireOverride::MaxShare => Override::MaxShare,
            WireOverride::Unspecified => {
                return Err(Status::invalid_argument("an override is not known here; it is PROTECTED or MAX_SHARE"));
            }
        };
        if !overrides.contains(&of) {
            overrides.push(of);
        }
    }
    Ok(overrides)
}

/// A length of time; what is beyond all bounds stays so.
pub(super) fn span(duration: Option<prost_types::Duration>) -> Option<Span> {
    let duration = duration?;
    let seconds = duration.seconds.saturating_mul(Span::SECOND.0);
    Some(Span(seconds.saturating_add(i64::from(duration.nanos))))
}

/// The table, as far as it was asked for.
pub(super) fn table(table: &Table, at_least: Level, part: &str, limit: usize) -> ListResponse {
    let lines = table.lines.iter().filter(|line| line.entry.level >= at_least);
    let lines: Vec<&Line> = lines.filter(|line| line.subject().identity().contains(part)).collect();
    let holds = table.holds.iter().filter(|hold| hold.identity.contains(part)).take(limit);
    ListResponse {
        left_out: u32::try_from(lines.len().saturating_sub(limit)).unwrap_or(u32::MAX),
        entries: lines.into_iter().take(limit).map(entry).collect(),
        holds: holds.map(hold).collect(),
        enforcement: Some(enforcement(&table.in_force)),
        announcements: table.announcements.iter().map(announcement).collect(),
        acceptances: {
            let meant = table.acceptances.iter().filter(|of| of.identity.contains(part));
            meant.take(limit).map(acceptance).collect()
        },
    }
}

fn acceptance(of: &Accepted) -> Acceptance {
    let part = |part: &Part| Withheld {
        question: part.question.name().to_owned(),
        object: part.object.clone(),
        events: part.events,
        most_bits: f64::from(part.most_millibits) / 1000.0,
        ..Withheld::default()
    };
    Acceptance {
        identity: of.identity.clone(),
        question: of.question.map_or("", Question::name).to_owned(),
        object: of.object.clone().unwrap_or_default(),
        by: of.by.clone(),
        reason: of.why.clone(),
        since: Some(time(of.since)),
        until: Some(time(of.until)),
        parts: of.parts.iter().map(part).collect(),
        hid_events: of.hid_events,
        hid_bits: of.hid_bits,
        hid_last: of.hid_last.map(time),
    }
}

/// What an acceptance would have hidden.
pub(super) fn preview(of: &Preview, decisions: &[Verdict]) -> RehearseAcceptanceResponse {
    let record = |at: &Position| {
        let input = of.inputs.get(usize::from(at.source)).map_or("?", String::as_str);
        format!("{input}, partition {}, position {}", at.partition, at.offset)
    };
    let withheld = |of: &withheld::Withheld| Withheld {
        question: of.question.name().to_owned(),
        object: of.object.clone(),
        events: of.events,
        minutes: of.minutes,
        most_bits: of.most_bits,
        sum_bits: of.sum_bits,
        first: Some(time(of.first)),
        last: Some(time(of.last)),
        records: of.records.iter().map(record).collect(),
    };
    RehearseAcceptanceResponse {
        identity: of.identity.clone(),
        withheld: of.withheld.iter().map(withheld).collect(),
        decisions: decisions.iter().map(step).collect(),
    }
}

fn announcement(of: &Announced) -> Announcement {
    Announcement {
        service: of.service.clone(),
        cluster: of.cluster.clone().unwrap_or_default(),
        by: of.by.clone(),
        reason: of.why.clone(),
        since: Some(time(of.since)),
        until: Some(time(of.until)),
    }
}

/// What a level would have been.
pub(super) fn rehearsal(of: &Rehearsal) -> RehearseResponse {
    RehearseResponse {
        identity: of.identity.clone(),
        level: wire_level(of.level).into(),
        calls: of.calls,
        denied: of.denied,
        since: Some(time(of.since)),
        destinations: of
            .destinations
            .iter()
            .map(|of| Denied {
                destination: of.destination.clone(),
                calls: of.calls,
                denied: of.denied,
                last: Some(time(of.last)),
            })
            .collect(),
        destinations_left_out: u32::try_from(of.destinations_left_out).unwrap_or(u32::MAX),
        callers: of.callers.iter().map(peer).collect(),
        callers_left_out: u32::try_from(of.callers_left_out).unwrap_or(u32::MAX),
        instances: of.instances.clone(),
        instances_left: of.instances_left.clone(),
        notes: of.notes.clone(),
    }
}

fn peer(of: &PeerCalls) -> Peer {
    Peer { destination: of.destination.clone(), calls_a_day: of.calls_a_day, last: Some(time(of.last)) }
}

/// One identity.
pub(super) fn portrait(of: &Portrait) -> ShowResponse {
    let shown = &of.shown;
    ShowResponse {
        identity: shown.identity.clone(),
        entries: shown.lines.iter().map(entry).collect(),
        hold: shown.hold.as_ref().map(hold),
        evidence_bits: shown.evidence_bits,
        first_seen: shown.seen.map(|(first, _)| time(first)),
        last_seen: shown.seen.map(|(_, last)| time(last)),
        instances: shown.instances.clone(),
        decisions: of.decisions.iter().map(step).collect(),
        peers: shown.peers.iter().map(peer).collect(),
        peers_left_out: u32::try_from(shown.peers_left_out).unwrap_or(u32::MAX),
        protected: shown.is_protected,
        acceptances: of.acceptances.iter().map(acceptance).collect(),
        enforcement: Some(enforcement(&of.in_force)),
        containment: of.contained.iter().map(containment).collect(),
    }
}

/// How far a decision has come.
fn containment(of: &Timeline) -> Containment {
    let proxies = of.nodes.iter().map(|(state, count)| (state.as_str().to_owned(), *count)).collect();
    Containment {
        decision_id: of.decision.clone(),
        instance: of.instance.clone().unwrap_or_default(),
        level: wire_level(of.level).into(),
        state: of.state.as_str().to_owned(),
        proxies,
        not_contained_at: of.worst.clone(),
        event: of.event.map(time),
        crossed: Some(time(of.crossed)),
        pushed: Some(time(of.pushed)),
        first_acknowledged: of.first_acknowledged.map(time),
        last_acknowledged: of.last_acknowledged.map(time),
        first_denied: of.first_denied.map(time),
        last_served: of.last_served.map(time),
        contained: of.contained.map(time),
        denied: of.denied,
        served: of.served,
        escalated: of.escalated,
        not_cut: of.not_cut.clone(),
    }
}

/// What was done.
pub(super) fn receipt(by: String, done: &Done) -> Receipt {
    Receipt {
        record: done.record.map_or(0, |record| record.0),
        by,
        repeated: done.repeated,
        entries: done.lines.iter().map(entry).collect(),
        ended: u32::try_from(done.ended).unwrap_or(u32::MAX),
        enforcement: Some(enforcement(&done.in_force)),
        notes: done.notes.clone(),
    }
}

fn entry(line: &Line) -> Entry {
    let of = &line.entry;
    let (by, reason) = line.by.clone().unwrap_or_else(|| (String::new(), of.reason.clone()));
    Entry {
        identity: of.subject.identity(),
        instance: of.subject.instance.clone().unwrap_or_default(),
        level: wire_level(of.level).into(),
        mode: if of.enforce { WireMode::Enforce } else { WireMode::Shadow }.into(),
        origin: if line.by.is_some() { Origin::Operator } else { Origin::Evidence }.into(),
        decided: Some(time(of.decided)),
        expires: Some(time(of.expires)),
        evidence_bits: of.evidence_bits,
        reason,
        decision_id: of.decision.clone(),
        by,
    }
}

fn hold(of: &orders::Hold) -> Hold {
    let kept_from = if of.kept_from == Level::Trusted { WireLevel::Unspecified } else { wire_level(of.kept_from) };
    Hold {
        identity: of.identity.clone(),
        by: of.by.clone(),
        reason: of.why.clone(),
        until: Some(time(of.until)),
        kept_from: kept_from.into(),
    }
}

fn step(verdict: &Verdict) -> Step {
    let cause = match verdict.cause {
        Cause::Evidence => "evidence",
        Cause::Renewed => "renewed",
        Cause::Lease => "lease",
        Cause::Operator | Cause::Ordered => "operator",
        Cause::Lifted => "lifted",
        Cause::Shared => "shared",
        Cause::Held => "held",
        Cause::Freed => "freed",
    };
    let told = verdict.reasons.iter().map(in_words);
    Step {
        decided: Some(time(verdict.decided)),
        previous: wire_level(verdict.previous).into(),
        level: wire_level(verdict.level).into(),
        cause: cause.to_owned(),
        evidence_bits: verdict.evidence_bits,
        reasons: told.map(|reason| format!("{:.1} bits: it {}", reason.bits, reason.observed)).collect(),
        decision_id: verdict.decision.clone(),
    }
}

fn enforcement(of: &InForce) -> Enforcement {
    let pause = of.pause.as_ref().map(|pause| Pause {
        by: pause.by.clone(),
        reason: pause.why.clone(),
        since: Some(time(pause.since)),
        until: Some(time(pause.until)),
    });
    let mode = match of.mode {
        Mode::Shadow => WireMode::Shadow,
        Mode::Enforce => WireMode::Enforce,
    };
    Enforcement { mode: mode.into(), pause }
}

/// A level as the wire has it.
pub(crate) fn wire_level(level: Level) -> WireLevel {
    match level {
        Level::Trusted => WireLevel::Trusted,
        Level::Watched => WireLevel::Watched,
        Level::Throttled => WireLevel::Throttled,
        Level::Restricted => WireLevel::Restricted,
        Level::Quarantined => WireLevel::Quarantined,
        Level::Revoked => WireLevel::Revoked,
    }
}

pub(super) fn time(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.0.rem_euclid(Span::SECOND.0);
    prost_types::Timestamp {
        seconds: time.0.div_euclid(Span::SECOND.0),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}
