//! What an acceptance would have hidden, and what stands has hidden, for people and as JSON.

use std::fmt::Write as _;

use anyhow::Result;
use qualm_proto::operator::v1::{Acceptance, RehearseAcceptanceResponse};
use qualm_scorer::notify::plain;
use serde_json::{Value, json};

use super::tell::{level, time};

/// What was withheld, and which decisions it led to.
pub(super) fn told(of: &RehearseAcceptanceResponse) -> Result<String> {
    let mut text = String::new();
    let whom = plain(&of.identity);
    if of.withheld.is_empty() {
        writeln!(
            text,
            "nothing that {whom} did in the last 21 days was too odd to be learned, as far as was asked for"
        )?;
        return Ok(text);
    }
    writeln!(text, "in the last 21 days this would have been hidden of {whom}:")?;
    for of in &of.withheld {
        let question = plain(&of.question);
        let object = if of.object.is_empty() { String::new() } else { format!(" to {}", plain(&of.object)) };
        let (first, last) = (time(of.first.as_ref()), time(of.last.as_ref()));
        writeln!(
            text,
            "  {question}{object}: {} events in {} minutes, up to {:.1} bits, from {first} to {last}",
            of.events, of.minutes, of.most_bits
        )?;
        for record in &of.records {
            writeln!(text, "      {}", plain(record))?;
        }
    }
    for step in &of.decisions {
        let (previous, now, at) = (level(step.previous), level(step.level), time(step.decided.as_ref()));
        writeln!(text, "  and the first reason of: {at} {previous} -> {now}, decision {}", plain(&step.decision_id))?;
    }
    Ok(text)
}

/// One that stands, on a line.
pub(super) fn line(of: &Acceptance) -> String {
    let (who, by, why) = (plain(&of.identity), plain(&of.by), plain(&of.reason));
    let about = match (of.question.as_str(), of.object.as_str()) {
        ("", "") => "what was withheld".to_owned(),
        (question, "") => plain(question),
        ("", object) => format!("what it does to {}", plain(object)),
        (question, object) => format!("{} to {}", plain(question), plain(object)),
    };
    let last = of.hid_last.as_ref().map(|last| format!(", last at {}", time(Some(last)))).unwrap_or_default();
    let (until, events, bits) = (time(of.until.as_ref()), of.hid_events, of.hid_bits);
    format!(
        "accepted    {who}  {about}, until {until}, by {by}: {why}; it has hidden {bits:.0} bits of {events} events{last}"
    )
}

/// All of it, for scripts.
pub(super) fn json(of: &Acceptance) -> Value {
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    let parts = of.parts.iter().map(|part| {
        json!({ "question": part.question, "object": part.object, "events": part.events, "most_bits": part.most_bits })
    });
    json!({
        "identity": of.identity, "question": said(&of.question), "object": said(&of.object), "by": of.by,
        "reason": of.reason, "since": time(of.since.as_ref()), "until": time(of.until.as_ref()),
        "parts": parts.collect::<Vec<_>>(), "hid_events": of.hid_events, "hid_bits": of.hid_bits,
        "hid_last": of.hid_last.as_ref().map(|last| time(Some(last))),
    })
}
