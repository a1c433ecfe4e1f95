//! Answers for people and as JSON.

use std::fmt::Write as _;

use anyhow::Result;
use qualm_model::time::{Span, Timestamp};
use qualm_proto::{
    operator::v1::{Announcement, Containment, Enforcement, Entry, Hold, ListResponse, Origin, Receipt, ShowResponse},
    trust::v1::{Level, Mode},
};
use qualm_scorer::notify::plain;
use serde_json::{Value, json};

use super::accepted;
use crate::clock;

/// So many peers are named for people; JSON has all.
const NAMED: usize = 20;

pub(super) fn list(answer: &ListResponse) -> Result<String> {
    let mut text = in_force(answer.enforcement.as_ref())?;
    if answer.entries.is_empty() {
        writeln!(text, "nobody stands above trusted")?;
    }
    for entry in &answer.entries {
        self::entry(&mut text, entry)?;
    }
    for hold in &answer.holds {
        self::hold(&mut text, hold)?;
    }
    for of in &answer.acceptances {
        writeln!(text, "{}", accepted::line(of))?;
    }
    for of in &answer.announcements {
        let at = if of.cluster.is_empty() { String::new() } else { format!(" in {}", plain(&of.cluster)) };
        let (service, by, why) = (plain(&of.service), plain(&of.by), plain(&of.reason));
        writeln!(text, "announced   {service}{at}  is deployed until {}, by {by}: {why}", time(of.until.as_ref()))?;
    }
    if answer.left_out > 0 {
        writeln!(text, "and {} more: ask for a level or a part of a name", answer.left_out)?;
    }
    Ok(text)
}

pub(super) fn show(answer: &ShowResponse) -> Result<String> {
    let mut text = in_force(answer.enforcement.as_ref())?;
    writeln!(text, "identity   {}", plain(&answer.identity))?;
    if answer.protected {
        writeln!(text, "protected  by [enforce] `protected`: never denied, but by an admin's explicit word")?;
    }
    if answer.entries.is_empty() {
        writeln!(text, "stands at  trusted")?;
    }
    for entry in &answer.entries {
        self::entry(&mut text, entry)?;
    }
    if let Some(hold) = &answer.hold {
        self::hold(&mut text, hold)?;
    }
    for of in &answer.acceptances {
        writeln!(text, "{}", accepted::line(of))?;
    }
    writeln!(text, "evidence   {:.1} bits", answer.evidence_bits)?;
    if let (Some(first), Some(last)) = (&answer.first_seen, &answer.last_seen) {
        writeln!(text, "known      since {}, last seen {}", time(Some(first)), time(Some(last)))?;
    }
    if !answer.instances.is_empty() {
        let instances: Vec<String> = answer.instances.iter().map(|instance| plain(instance)).collect();
        writeln!(text, "instances  {}", instances.join(", "))?;
    }
    for of in &answer.containment {
        containment(&mut text, of)?;
    }
    for step in &answer.decisions {
        let (previous, level) = (level(step.previous), level(step.level));
        let (at, bits) = (time(step.decided.as_ref()), step.evidence_bits);
        writeln!(text, "{at}  {previous} -> {level}: {}, {bits:.1} bits, decision {}", step.cause, step.decision_id)?;
        for reason in &step.reasons {
            writeln!(text, "    {}", plain(reason))?;
        }
    }
    if !answer.peers.is_empty() {
        writeln!(text, "called within 24 hours, with usual calls a day:")?;
        for peer in answer.peers.iter().take(NAMED) {
            writeln!(text, "  {:>10.0}  {}", peer.calls_a_day, plain(&peer.destination))?;
        }
        let more = answer.peers.len().saturating_sub(NAMED) + answer.peers_left_out as usize;
        if more > 0 {
            writeln!(text, "  and {more} more")?;
        }
    }
    Ok(text)
}

pub(super) fn receipt(answer: &Receipt) -> Result<String> {
    let mut text = String::new();
    let (what, by) = (if answer.repeated { "done before" } else { "done" }, plain(&answer.by));
    writeln!(text, "{what}, as {by}: record {} of the journal", answer.record)?;
    if answer.ended > 0 {
        writeln!(text, "ended: {}", answer.ended)?;
    }
    for entry in &answer.entries {
        self::entry(&mut text, entry)?;
    }
    text.push_str(&in_force(answer.enforcement.as_ref())?);
    for note in &answer.notes {
        writeln!(text, "note: {}", plain_note(note))?;
    }
    Ok(text)
}

/// Notes are Qualm's own, longer than what comes from outside may be, and may name somebody.
pub(super) fn plain_note(note: &str) -> String {
    note.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn in_force(enforcement: Option<&Enforcement>) -> Result<String> {
    let mut text = String::new();
    let Some(enforcement) = enforcement else { return Ok(text) };
    if enforcement.mode() == Mode::Shadow {
        writeln!(
            text,
            "the mode of the configuration is shadow: entries are marked, and deny nothing unless said below"
        )?;
    }
    if let Some(pause) = &enforcement.pause {
        let (by, why) = (plain(&pause.by), plain(&pause.reason));
        writeln!(text, "all enforcement is paused until {} by {by}: {why}", time(pause.until.as_ref()))?;
    }
    Ok(text)
}

fn entry(text: &mut String, entry: &Entry) -> Result<()> {
    let instance = if entry.instance.is_empty() { String::new() } else { format!(" at {}", plain(&entry.instance)) };
    let effect = if entry.mode() == Mode::Enforce { "acts" } else { "in shadow" };
    let why = match entry.origin() {
        Origin::Operator => format!("set by {}: {}", plain(&entry.by), plain(&entry.reason)),
        _ => format!("on evidence, {:.1} bits: {}", entry.evidence_bits, plain(&entry.reason)),
    };
    let until = time(entry.expires.as_ref());
    writeln!(text, "{:<11} {}{instance}  {effect}, until {until}, {why}", level(entry.level), plain(&entry.identity))?;
    Ok(())
}

fn containment(text: &mut String, of: &Containment) -> Result<()> {
    let mut proxies: Vec<String> =
        of.proxies.iter().map(|(state, count)| format!("{count} {}", plain(state))).collect();
    proxies.sort();
    let proxies = if proxies.is_empty() { "no proxy that matters is known".to_owned() } else { proxies.join(", ") };
    let (state, level, Containment { denied, served, .. }) = (plain(&of.state), level(of.level), of);
    writeln!(
        text,
        "contained  {state} ({proxies}): {level}, {denied} calls refused, {served} served that began after it"
    )?;
    let moments = [("first denied", &of.first_denied), ("last served", &of.last_served), ("proven", &of.contained)];
    for (name, at) in moments.into_iter().filter_map(|(name, at)| Some((name, at.as_ref()?))) {
        writeln!(text, "           {name:<13}{}", time(Some(at)))?;
    }
    for node in &of.not_contained_at {
        writeln!(text, "           not contained at {}", plain(node))?;
    }
    if of.escalated {
        writeln!(text, "           it has leaked: what is configured for that acts too")?;
    }
    for open in &of.not_cut {
        writeln!(text, "not cut    {}", plain_note(open))?;
    }
    Ok(())
}

fn hold(text: &mut String, hold: &Hold) -> Result<()> {
    let (identity, by, why) = (plain(&hold.identity), plain(&hold.by), plain(&hold.reason));
    let kept = match hold.kept_from() {
        Level::Unspecified => String::new(),
        of => format!("; it has kept it from {}", level(of.into())),
    };
    let until = time(hold.until.as_ref());
    writeln!(text, "held        {identity}  enters no level on behaviour until {until}, by {by}: {why}{kept}")?;
    Ok(())
}

pub(super) fn json_of_list(answer: &ListResponse) -> String {
    json!({
        "entries": answer.entries.iter().map(json_of_entry).collect::<Vec<_>>(),
        "left_out": answer.left_out,
        "holds": answer.holds.iter().map(json_of_hold).collect::<Vec<_>>(),
        "acceptances": answer.acceptances.iter().map(accepted::json).collect::<Vec<_>>(),
        "announcements": answer.announcements.iter().map(json_of_announcement).collect::<Vec<_>>(),
        "enforcement": json_of_enforcement(answer.enforcement.as_ref()),
    })
    .to_string()
}

pub(super) fn json_of_show(answer: &ShowResponse) -> String {
    let decisions = answer.decisions.iter().map(|step| {
        json!({
            "decided": time(step.decided.as_ref()), "previous": level(step.previous), "level": level(step.level),
            "cause": step.cause, "evidence_bits": step.evidence_bits, "reasons": step.reasons,
            "decision": step.decision_id,
        })
    });
    let peers = answer.peers.iter().map(|peer| {
        json!({
            "destination": peer.destination, "calls_a_day": peer.calls_a_day, "last": time(peer.last.as_ref()),
        })
    });
    json!({
        "identity": answer.identity,
        "entries": answer.entries.iter().map(json_of_entry).collect::<Vec<_>>(),
        "hold": answer.hold.as_ref().map(json_of_hold),
        "evidence_bits": answer.evidence_bits,
        "first_seen": answer.first_seen.as_ref().map(|at| time(Some(at))),
        "last_seen": answer.last_seen.as_ref().map(|at| time(Some(at))),
        "instances": answer.instances,
        "decisions": decisions.collect::<Vec<_>>(),
        "peers": peers.collect::<Vec<_>>(),
        "peers_left_out": answer.peers_left_out,
        "protected": answer.protected,
        "acceptances": answer.acceptances.iter().map(accepted::json).collect::<Vec<_>>(),
        "containment": answer.containment.iter().map(json_of_containment).collect::<Vec<_>>(),
        "enforcement": json_of_enforcement(answer.enforcement.as_ref()),
    })
    .to_string()
}

pub(super) fn json_of_receipt(answer: &Receipt) -> String {
    json!({
        "record": answer.record,
        "by": answer.by,
        "repeated": answer.repeated,
        "ended": answer.ended,
        "entries": answer.entries.iter().map(json_of_entry).collect::<Vec<_>>(),
        "enforcement": json_of_enforcement(answer.enforcement.as_ref()),
        "notes": answer.notes,
    })
    .to_string()
}

fn json_of_entry(entry: &Entry) -> Value {
    json!({
        "identity": entry.identity,
        "instance": (!entry.instance.is_empty()).then_some(&entry.instance),
        "level": level(entry.level),
        "acts": entry.mode() == Mode::Enforce,
        "origin": if entry.origin() == Origin::Operator { "operator" } else { "evidence" },
        "by": (!entry.by.is_empty()).then_some(&entry.by),
        "reason": entry.reason,
        "evidence_bits": entry.evidence_bits,
        "decided": time(entry.decided.as_ref()),
        "expires": time(entry.expires.as_ref()),
        "decision": entry.decision_id,
    })
}

fn json_of_containment(of: &Containment) -> Value {
    let at = |at: &Option<prost_types::Timestamp>| at.as_ref().map(|at| time(Some(at)));
    json!({
        "decision": of.decision_id,
        "instance": (!of.instance.is_empty()).then_some(&of.instance),
        "level": level(of.level),
        "state": of.state,
        "proxies": of.proxies.iter().map(|(state, count)| (state.clone(), json!(count))).collect::<serde_json::Map<_, _>>(),
        "not_contained_at": of.not_contained_at,
        "event": at(&of.event), "crossed": at(&of.crossed), "pushed": at(&of.pushed),
        "first_acknowledged": at(&of.first_acknowledged), "last_acknowledged": at(&of.last_acknowledged),
        "first_denied": at(&of.first_denied), "last_served": at(&of.last_served), "contained": at(&of.contained),
        "denied": of.denied, "served": of.served, "escalated": of.escalated, "not_cut": of.not_cut,
    })
}

fn json_of_hold(hold: &Hold) -> Value {
    let kept = hold.kept_from();
    json!({
        "identity": hold.identity, "by": hold.by, "reason": hold.reason, "until": time(hold.until.as_ref()),
        "kept_from": (kept != Level::Unspecified).then(|| level(kept.into())),
    })
}

fn json_of_announcement(of: &Announcement) -> Value {
    json!({
        "service": of.service, "cluster": (!of.cluster.is_empty()).then_some(&of.cluster), "by": of.by,
        "reason": of.reason, "since": time(of.since.as_ref()), "until": time(of.until.as_ref()),
    })
}

fn json_of_enforcement(enforcement: Option<&Enforcement>) -> Value {
    let Some(enforcement) = enforcement else { return Value::Null };
    let pause = enforcement.pause.as_ref().map(|pause| {
        json!({
            "by": pause.by, "reason": pause.reason, "since": time(pause.since.as_ref()),
            "until": time(pause.until.as_ref()),
        })
    });
    json!({ "mode": if enforcement.mode() == Mode::Enforce { "enforce" } else { "shadow" }, "pause": pause })
}

/// The word of a level; a later release may know more of them.
pub(super) fn level(number: i32) -> String {
    let name = Level::try_from(number).map_or("UNKNOWN", |level| level.as_str_name());
    name.trim_start_matches("LEVEL_").to_ascii_lowercase()
}

/// RFC 3339 to the second.
pub(super) fn time(time: Option<&prost_types::Timestamp>) -> String {
    let Some(time) = time else { return "?".to_owned() };
    jiff::Timestamp::from_second(time.seconds).map_or_else(|_| time.seconds.to_string(), |time| time.to_string())
}

/// A length of time for people, with the time at which it ends.
pub(super) fn length(span: Span) -> String {
    let Timestamp(end) = clock::system().now() + span;
    let seconds = span.0 / Span::SECOND.0;
    let end = time(Some(&prost_types::Timestamp { seconds: end / Span::SECOND.0, nanos: 0 }));
    match seconds {
        ..120 => format!("{seconds} s, until {end}"),
        120..7200 => format!("{} min, until {end}", seconds / 60),
        _ => format!("{:.1} h, until {end}", span.as_seconds() / 3600.0),
    }
}
