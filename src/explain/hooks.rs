//! What hooks have done about an identity, by the journal: what each cuts, what survives it and until when.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;
use qualm_model::time::Timestamp;
use qualm_scorer::{
    journal::{Kind, Record},
    notify::plain,
};
use serde::Deserialize;

use super::rfc3339;

/// Effects that are remembered; the oldest go.
const EFFECTS: usize = 4_096;

/// The latest word of each effect.
#[derive(Debug, Default)]
pub(super) struct ByHooks(BTreeMap<String, Latest>);

#[derive(Debug)]
struct Latest {
    at: Timestamp,
    told: Told,
    /// From the call to the effect, once it was in effect.
    took_ms: Option<u64>,
}

/// A hook's record of the journal.
#[derive(Debug, Deserialize)]
struct Told {
    hook: String,
    kind: String,
    id: String,
    subject: String,
    target: Option<String>,
    state: String,
    words: String,
    cuts: String,
    survives: String,
    took_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Command {
    hook: Told,
}

impl ByHooks {
    /// Takes in a record, where it is a hook's.
    pub(super) fn take(&mut self, record: &Record) -> Result<(), serde_json::Error> {
        if record.kind != Kind::Command || !record.json().starts_with(r#"{"command":"hook""#) {
            return Ok(());
        }
        // A word of a person has another name that begins so.
        let Ok(Command { hook: told }) = record.payload() else { return Ok(()) };
        let took_ms = told.took_ms.or_else(|| self.0.get(&told.id).and_then(|known| known.took_ms));
        self.0.insert(told.id.clone(), Latest { at: record.wall, told, took_ms });
        if self.0.len() > EFFECTS {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.at).map(|(id, _)| id.clone());
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        Ok(())
    }

    /// What there is to say of an identity, after all else; the fastest effect first.
    pub(super) fn told(&self, identity: &str) -> Result<String> {
        let is_about = |known: &&Latest| {
            known.told.subject == identity
                || known.told.subject.strip_prefix(identity).is_some_and(|rest| rest.starts_with(" at "))
        };
        let mut effects: Vec<&Latest> = self.0.values().filter(is_about).collect();
        let mut text = String::new();
        if effects.is_empty() {
            return Ok(text);
        }
        effects.sort_by_key(|known| (known.took_ms.unwrap_or(u64::MAX), known.at));
        writeln!(text, "\nwhat hooks have done, the fastest first:")?;
        for Latest { at, told, took_ms } in effects {
            let took = took_ms.map_or_else(String::new, |took| format!(", in effect {took} ms after the call"));
            let (state, hook, kind) = (plain(&told.state), plain(&told.hook), plain(&told.kind));
            writeln!(text, "  - {hook} ({kind}): {state} since {}{took}, effect {}", rfc3339(*at), plain(&told.id))?;
            let survives = if told.state == "in effect" { told.survives.as_str() } else { "" };
            let lines = [
                ("on", told.target.as_deref().unwrap_or_default()),
                ("why", told.words.as_str()),
                ("cuts", told.cuts.as_str()),
                ("survives", survives),
            ];
            for (what, words) in lines.into_iter().filter(|(_, words)| !words.is_empty()) {
                writeln!(text, "      {what}: {}", plain(words))?;
            }
        }
        Ok(text)
    }
}
