//! The grounds of one step: what was seen, what is usual and on how much that rests, how often it was seen before and by
//! whom, what it points at, and which records carried it.

use std::fmt::Write as _;

use anyhow::Result;
use qualm_scorer::{
    carriers::Carrier,
    familiar::{Cell, Familiar, Thing},
    notify::{Reason, Technique, plain},
    verdict::Verdict,
};

use super::rfc3339;
use crate::finding::in_words;

/// Writes them below the step.
pub(super) fn tell(text: &mut String, verdict: &Verdict) -> Result<()> {
    for reason in verdict.reasons.iter().map(in_words) {
        writeln!(
            text,
            "      {:>5.1} bits  {}: it {}{}",
            reason.bits,
            reason.detector,
            reason.observed,
            usual(&reason)
        )?;
        if let Some(familiar) = &reason.familiar {
            writeln!(text, "                  {}", seen_before(familiar))?;
        }
        if let Some(technique) = Technique::of(&reason.detector) {
            let (uid, name) = technique.sub.unwrap_or((technique.uid, technique.name));
            writeln!(text, "                  as in ATT&CK {uid} {name} ({})", technique.tactic.1)?;
        }
    }
    if !verdict.carried_by.is_empty() {
        writeln!(text, "      carried by these records of it:")?;
    }
    for run in &verdict.carried_by {
        writeln!(text, "        {}", records(run))?;
    }
    Ok(())
}

fn usual(reason: &Reason) -> String {
    let rests = format!("rests on {:.0}", reason.n);
    let usual = match (reason.expected.is_empty(), reason.range.is_empty()) {
        (true, true) => return format!(" ({rests})"),
        (false, true) => reason.expected.clone(),
        (true, false) => reason.range.clone(),
        (false, false) => format!("{}, and from {}", reason.expected, reason.range),
    };
    format!(", usual: {usual} ({rests})")
}

/// The row of the grid: {first time, uncommon, usual} × {itself, peers, mesh}.
fn seen_before(of: &Familiar) -> String {
    let what = match of.thing {
        Thing::Peer => "this peer",
        Thing::Operation => "this operation",
    };
    let calls = |cell: &Cell| match cell.of {
        Some(of) => format!("{} ({:.0} of {of:.0} calls)", cell.seen.as_str(), cell.count),
        None => format!("{} ({:.0} calls)", cell.seen.as_str(), cell.count),
    };
    let mut row = format!("{what}: of itself {}", calls(&of.own));
    if let Some(Cell { seen, count, of }) = of.peers {
        row.push_str(&format!("; of its peers {} ({count:.0} of {:.0} do it)", seen.as_str(), of.unwrap_or_default()));
    }
    if let Some(cell) = &of.mesh {
        row.push_str(&format!("; of the rest of the mesh {}", calls(cell)));
    }
    row
}

fn records(run: &Carrier) -> String {
    let place = match run.partition {
        0 if run.input.starts_with("topic") => format!("{}, partition 0, offset", plain(&run.input)),
        0 => format!("{}, row", plain(&run.input)),
        pushed if pushed < 0 => format!("{}, record", plain(&run.input)),
        partition => format!("{}, partition {partition}, offset", plain(&run.input)),
    };
    let span = if run.first == run.last { run.first.to_string() } else { format!("{} to {}", run.first, run.last) };
    let to = run.destination.as_deref().map(|to| format!(", to {}", plain(to))).unwrap_or_default();
    let events = if run.events == 1 { "1 event".to_owned() } else { format!("{} events", run.events) };
    let (since, until) = (rfc3339(run.since), rfc3339(run.until));
    let when = if since == until { since } else { format!("{since} to {until}") };
    format!("{place} {span}{to}: {events}, up to {:.1} bits, {when}", run.bits)
}
