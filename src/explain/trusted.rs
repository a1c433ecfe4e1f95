//! What there is to say of an identity about which nothing was ever decided: what the snapshot knows of it.

use std::fmt::Write as _;

use anyhow::Result;
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::arms_at,
    notify::plain,
    snapshot::{Glance, Known},
};

use super::rfc3339;

/// The whole answer.
pub(super) fn told(known: &Known, glance: &Glance) -> Result<String> {
    let mut text = String::new();
    if known.level > Level::Trusted {
        writeln!(text, "{} stands at {}, and the journal does not say why.", plain(&known.identity), known.level)?;
    } else {
        writeln!(text, "{} is trusted: nothing was ever decided about it.", plain(&known.identity))?;
    }
    writeln!(text, "\nidentity   {}", plain(&known.identity))?;
    writeln!(text, "stands at  {}", known.level)?;
    writeln!(text, "known      since {}, last seen {}", rfc3339(known.first), rfc3339(known.last))?;
    writeln!(text, "calls      {}, from {}", count(known.peers, "peer"), count(known.instances, "instance"))?;
    writeln!(text, "levels     {}", levels(glance))?;
    if let Some(until) = glance.until {
        writeln!(text, "as of      the last snapshot, which has read telemetry up to {}", rfc3339(until))?;
    }
    writeln!(text, "\nwhat to do next:\n  - {}", next(known, glance))?;
    Ok(text)
}

fn next(known: &Known, glance: &Glance) -> &'static str {
    let silent = glance.until.is_some_and(|until| until - known.last > Span::DAY);
    match (known.level, glance.armed.is_empty()) {
        (level, _) if level > Level::Trusted => {
            "find out where the journal went: it is `journal` in the state directory, and holds every decision"
        }
        (_, true) => "wait: no level is armed yet, whatever it does",
        _ if silent => "nothing; if it should be calling, see whether its proxy still reports",
        _ => "nothing: it behaves as it did",
    }
}

/// Which levels behaviour may lead to, and when the others will be.
fn levels(glance: &Glance) -> String {
    let named = |levels: Vec<Level>| levels.iter().map(|level| level.as_str()).collect::<Vec<_>>().join(", ");
    let armed = match named(glance.armed.clone()) {
        none if none.is_empty() => "none is armed".to_owned(),
        armed => format!("armed: {armed}"),
    };
    let waiting = Level::BY_BEHAVIOUR.into_iter().filter(|level| !glance.armed.contains(level));
    let due = |level: Level| match glance.birth.map(|birth| arms_at(level, birth)) {
        Some(due) if is_past(due, glance.until) => format!("{level} not yet, for want of episodes"),
        Some(due) => format!("{level} not before {}", rfc3339(due)),
        None => format!("{level} not yet"),
    };
    let waiting: Vec<String> = waiting.map(due).collect();
    [vec![armed], waiting].concat().join("; ")
}

fn is_past(due: Timestamp, until: Option<Timestamp>) -> bool {
    until.is_some_and(|until| until >= due)
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
