//! What a level would have denied in the last 24 hours, for people and as JSON.

use std::fmt::Write as _;

use anyhow::Result;
use qualm_proto::operator::v1::RehearseResponse;
use qualm_scorer::notify::plain;
use serde_json::json;

use super::tell::{level, time};

/// For people; at most `named` destinations and callers.
pub(super) fn told(of: &RehearseResponse, named: usize) -> Result<String> {
    let mut text = String::new();
    let (whom, at) = (plain(&of.identity), level(of.level));
    writeln!(text, "since {} {whom} has made {} calls", time(of.since.as_ref()), number(of.calls))?;
    let all = of.destinations.len() + of.destinations_left_out as usize;
    if all == 0 {
        writeln!(text, "at {at} none of them would have been denied")?;
    } else {
        writeln!(text, "at {at} {} of them would have been denied, to {all} destinations:", number(of.denied))?;
    }
    for to in of.destinations.iter().take(named) {
        let calls = if to.denied < to.calls { format!(" (of {})", number(to.calls)) } else { String::new() };
        writeln!(text, "  {:>10}{calls}  {}", number(to.denied), plain(&to.destination))?;
    }
    more(&mut text, all, of.destinations.len().min(named))?;
    let callers = of.callers.len() + of.callers_left_out as usize;
    if all > 0 && callers > 0 {
        writeln!(text, "it serves these, which may need what it asks others for (calls in 24 hours):")?;
        for caller in of.callers.iter().take(named) {
            writeln!(text, "  {:>10}  {}", number(caller.calls_a_day), plain(&caller.destination))?;
        }
        more(&mut text, callers, of.callers.len().min(named))?;
    }
    writeln!(
        text,
        "replicas that called within ten minutes: {}; left: {}",
        of.instances.len(),
        of.instances_left.len()
    )?;
    for note in &of.notes {
        writeln!(text, "note: {}", plain(note))?;
    }
    Ok(text)
}

fn more(text: &mut String, all: usize, told: usize) -> Result<()> {
    if all > told {
        writeln!(text, "  and {} more", all - told)?;
    }
    Ok(())
}

fn number(calls: f64) -> String {
    format!("{calls:.0}")
}

/// All of it, for scripts.
pub(super) fn json(of: &RehearseResponse) -> String {
    let destinations = of.destinations.iter().map(|to| {
        json!({
            "destination": to.destination, "calls": to.calls, "denied": to.denied, "last": time(to.last.as_ref()),
        })
    });
    let callers = of
        .callers
        .iter()
        .map(|from| json!({ "caller": from.destination, "calls": from.calls_a_day, "last": time(from.last.as_ref()) }));
    json!({
        "identity": of.identity,
        "level": level(of.level),
        "since": time(of.since.as_ref()),
        "calls": of.calls,
        "denied": of.denied,
        "destinations": destinations.collect::<Vec<_>>(),
        "destinations_left_out": of.destinations_left_out,
        "callers": callers.collect::<Vec<_>>(),
        "callers_left_out": of.callers_left_out,
        "instances": of.instances,
        "instances_left": of.instances_left,
        "notes": of.notes,
    })
    .to_string()
}
