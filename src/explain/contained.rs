//! Whether a decision holds, by the journal: its timeline, and what it does not cut.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;
use qualm_model::time::Timestamp;
use qualm_scorer::{
    containment::Timeline,
    journal::{Kind, Record},
    notify::plain,
};
use serde::Deserialize;

use super::rfc3339;

/// The latest timeline of each decision.
#[derive(Debug, Default)]
pub(super) struct Contained(BTreeMap<String, Timeline>);

#[derive(Deserialize)]
struct Told {
    timeline: Timeline,
}

impl Contained {
    /// Takes in a record, where it is one of a decision's containment.
    pub(super) fn take(&mut self, record: &Record, part: &str) -> Result<(), serde_json::Error> {
        if record.kind != Kind::Command || !record.json().starts_with(r#"{"command":"containment""#) {
            return Ok(());
        }
        let Told { timeline } = record.payload()?;
        if timeline.identity.contains(part) {
            self.0.insert(timeline.decision.clone(), timeline);
        }
        Ok(())
    }

    /// What is known of a decision; nothing where nothing was told of it yet.
    pub(super) fn told(&self, decision: &str) -> Result<String> {
        let Some(of) = self.0.get(decision) else { return Ok(String::new()) };
        let mut text = String::new();
        let nodes: Vec<String> = of.nodes.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
        writeln!(text, "contained  {} at {}: {}", of.state.as_str(), rfc3339(of.at), nodes.join(", "))?;
        if let Some(span) = of.time_to_contain() {
            writeln!(text, "           proven {:.1} s after what led to it", span.as_seconds())?;
        }
        let moments: [(&str, Option<Timestamp>); 8] = [
            ("event", of.event),
            ("crossed", Some(of.crossed)),
            ("pushed", Some(of.pushed)),
            ("first acknowledged", of.first_acknowledged),
            ("last acknowledged", of.last_acknowledged),
            ("first denied", of.first_denied),
            ("last served", of.last_served),
            ("contained", of.contained),
        ];
        for (name, at) in moments.into_iter().filter_map(|(name, at)| Some((name, at?))) {
            writeln!(text, "           {name:<19}{}", rfc3339(at))?;
        }
        writeln!(text, "           {} calls refused, {} served that began after it was decided", of.denied, of.served)?;
        for node in &of.worst {
            writeln!(text, "           not contained at {}", plain(node))?;
        }
        if of.escalated {
            writeln!(text, "           it has leaked: what is configured for that acts too")?;
        }
        for open in &of.not_cut {
            writeln!(text, "not cut    {}", plain_words(open))?;
        }
        Ok(text)
    }
}

/// Qualm's own words, with a name in them.
fn plain_words(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
