//! The end: what was found and missed, by labels that nobody else sees; throughput, latency, memory.

use std::{fs, time::Duration};

use qualm_datasets::{Cause, Label, Millis, Scenario};
use qualm_model::{level::Level, time::Span};
use qualm_scorer::verdict::Cause as Why;

use super::{
    screen::{Screen, grouped},
    story::{Fate, Step, Story, millis, named},
    tempo::timestamp,
};

/// An attack is found up to so long after its end.
const GRACE: Span = Span(5 * Span::MINUTE.0);

/// What was measured along the way.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Events of the quiet days, and how long they took.
    pub(super) history: (u64, Duration),
    /// Lines written in all.
    pub(super) written: u64,
    /// How long the whole demo took.
    pub(super) took: Duration,
}

/// What the demo is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Entries into *throttled* and above that were acknowledged.
    pub(super) acted: usize,
}

/// Writes the summary.
pub(super) fn summarise(
    scenario: &Scenario,
    live: Millis,
    story: &Story,
    measured: &Measured,
    screen: &Screen,
) -> Outcome {
    screen.line("");
    screen.line(&screen.bold("What was done to the mesh (labels; only this summary sees them)"));
    for (index, attack) in scenario.attacks().iter().enumerate() {
        tell_attack(index, attack, story, screen);
    }
    for change in scenario.changes().iter().filter(|change| change.start >= live) {
        tell_change(change, story, screen);
    }
    tell_others(scenario, live, story, screen);
    tell_measures(story, measured, screen);
    let acted = entries(story).filter(|step| step.verdict.level >= Level::Throttled);
    Outcome { acted: acted.filter(|step| step.acknowledged_in.is_some()).count() }
}

fn entries(story: &Story) -> impl Iterator<Item = &Step> {
    story.steps.iter().filter(|step| step.verdict.cause == Why::Evidence)
}

fn is_of(step: &Step, label: &Label) -> bool {
    label.identities.contains(&step.verdict.subject.principal)
}

fn is_within(step: &Step, label: &Label) -> bool {
    let time = step.verdict.time;
    timestamp(label.start) <= time && time <= timestamp(label.end) + GRACE
}

fn tell_attack(index: usize, attack: &Label, story: &Story, screen: &Screen) {
    let found: Vec<&Step> = entries(story).filter(|step| is_of(step, attack) && is_within(step, attack)).collect();
    let who = attack.identities.first().map(|identity| named(identity)).unwrap_or_default();
    let head = format!("  attack  {:<22} by {who:<24}", attack.kind);
    let Some(highest) = found.iter().max_by_key(|step| step.verdict.level) else {
        return screen.line(&format!("{head} missed"));
    };
    let after = |step: &Step| (step.verdict.time - timestamp(attack.start)).as_seconds();
    let calls = || story.fates.iter().filter(|fate| fate.call.cause == Cause::Attack(index as u32));
    let denied = calls().filter(|fate| fate.denied.is_some()).count();
    let first_denied = calls().position(|fate| fate.denied.is_some());
    let through = first_denied.map_or(0, |first| calls().skip(first).filter(|fate| fate.denied.is_none()).count());
    screen.line(&format!(
        "{head} found after {:.0} s, {} after {:.0} s of demo time; of its {} calls {denied} denied, {through} let through \
         since the first denial",
        found.iter().map(|step| after(step)).fold(f64::INFINITY, f64::min),
        screen.level(highest.verdict.level),
        after(highest),
        calls().count(),
    ));
}

fn tell_change(change: &Label, story: &Story, screen: &Screen) {
    let highest = entries(story).filter(|step| is_of(step, change)).map(|step| step.verdict.level).max();
    let who: Vec<String> = change.identities.iter().map(|identity| named(identity)).collect();
    let level = highest.unwrap_or(Level::Trusted);
    let cost = if level <= Level::Watched { "it cost nothing" } else { "it was wronged" };
    screen.line(&format!(
        "  honest  {:<22} of {:<24} never above {}: {cost}",
        change.kind,
        who.join(", "),
        screen.level(level),
    ));
}

/// Everybody else: entries that no attack explains, honest calls that were denied.
fn tell_others(scenario: &Scenario, live: Millis, story: &Story, screen: &Screen) {
    let is_true = |step: &&Step| scenario.attacks().iter().any(|attack| is_of(step, attack) && is_within(step, attack));
    let wrongful: Vec<&Step> = entries(story).filter(|step| !is_true(step)).collect();
    let of = |level| wrongful.iter().filter(|step| step.verdict.level == level).count();
    let who: Vec<String> = wrongful
        .iter()
        .map(|step| format!("{} {}", named(&step.verdict.subject.principal), step.verdict.level))
        .collect();
    let names = if who.is_empty() { String::new() } else { format!(" ({})", who.join(", ")) };
    screen.line(&format!(
        "  wrongful entries: watched {}, throttled {}, restricted {}, quarantined {}{names}",
        of(Level::Watched),
        of(Level::Throttled),
        of(Level::Restricted),
        of(Level::Quarantined),
    ));
    let honest = || story.fates.iter().filter(|fate| !fate.call.is_attack() && fate.call.start >= live);
    let is_attacked = |fate: &Fate| {
        let identity = scenario.mesh().identity(fate.call.source);
        scenario.attacks().iter().any(|attack| attack.identities.iter().any(|attacked| attacked == identity))
    };
    let (of_attacked, of_others): (Vec<_>, Vec<_>) =
        honest().filter(|fate| fate.denied.is_some()).partition(|fate| is_attacked(fate));
    screen.line(&format!(
        "  honest calls denied, of {}: {} of identities that attackers held, {} of others",
        grouped(honest().count() as u64),
        of_attacked.len(),
        of_others.len(),
    ));
}

fn tell_measures(story: &Story, measured: &Measured, screen: &Screen) {
    let (events, took) = measured.history;
    screen.line("");
    screen.line(&screen.bold("What it took"));
    screen.line(&format!(
        "  {} events in {:.0} s; the quiet days at {} events a second, from Kafka to verdict, beside generator and \
         broker in the same process",
        grouped(measured.written),
        measured.took.as_secs_f64(),
        grouped((events as f64 / took.as_secs_f64().max(1e-3)) as u64),
    ));
    let mut latencies: Vec<f64> =
        story.steps.iter().filter_map(|step| Some(millis(step.decided_in? + step.acknowledged_in?))).collect();
    latencies.sort_by(f64::total_cmp);
    if let (Some(p50), Some(p99)) = (percentile(&latencies, 0.5), percentile(&latencies, 0.99)) {
        screen.line(&format!(
            "  event written to Kafka → denial acknowledged: p50 {p50:.1} ms, p99 {p99:.1} ms (real time, {} entries)",
            latencies.len(),
        ));
    }
    if let Some(peak) = peak_memory_mib() {
        screen.line(&format!("  memory: {peak} MiB at most, Kafka and generator included"));
    }
    let by_level: Vec<String> = Level::BY_BEHAVIOUR
        .into_iter()
        .map(|level| format!("{level} {}", entries(story).filter(|step| step.verdict.level == level).count()))
        .collect();
    screen.line(&format!("  entries: {}", by_level.join(", ")));
}

/// The nearest rank.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Peak resident memory of this process, where the system tells.
fn peak_memory_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[3.0], 0.99), Some(3.0));
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0], 0.5), Some(2.0));
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0], 0.99), Some(4.0));
    }
}
