//! `report.html`: what a person wants to see before enforcement is turned on. One file without scripts and without anything
//! from elsewhere; names come from logs and are escaped.

mod picture;

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};

pub(super) use self::picture::Window;
use self::picture::number;
use super::{
    chronicle::{Chronicle, Met, Step},
    report::Report,
    trust::rfc3339,
};

const STYLE: &str = include_str!("page/style.css");
/// Rows of a table or picture; of more, the number is told.
const ROWS: usize = 40;

/// The page.
pub(super) fn page(report: &Report, chronicle: &Chronicle, window: Option<Window>) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Qualm: what would have been" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "What Qualm would have done" }
                (read(report))
                (budget(report))
                (blocks(report, chronicle))
                @if let Some(window) = window {
                    (over_time(report, chronicle, window))
                }
                (shared(report))
                (steps(chronicle))
                (incidents(report))
                (deviations(report))
                (labels(report))
                (cost(report))
            }
        }
    };
    page.into_string()
}

fn read(report: &Report) -> Markup {
    let span = report.first_time.as_deref().zip(report.last_time.as_deref());
    html! {
        p {
            (report.records) " records"
            @if let Some((first, last)) = span { " from " (first) " to " (last) " (" (number(report.days)) " days)" }
            ", " (report.scored) " scored."
        }
        @if !report.rejected.is_empty() {
            p { "Not scored: " (list(report.rejected.iter().map(|(reason, count)| format!("{count} {reason}")))) "." }
        }
        p class="faint" {
            (list(report.inputs.iter().map(|input| input.display().to_string()))) ", read as " (report.format)
            "; qualm " (report.version) ", configuration " (report.config_hash)
        }
    }
}

fn budget(report: &Report) -> Markup {
    html! {
        h2 { "Entries and the budget" }
        p { "An entry counts for its level and all below. A budget is what chance may cost; attacks come on top." }
        table {
            tr { th { "level" } th { "armed" } th class="n" { "entries" } th class="n" { "a day" } th class="n" { "budget a day" } th class="n" { "ratio" } }
            @for of in &report.levels {
                tr {
                    td { (word(of.level)) }
                    td {
                        @match (&of.armed_at, &of.arms_not_before) {
                            (Some(at), _) => { "since " (at) }
                            (None, Some(at)) => { "never; not before " (at) ", and not before its curve can be read" }
                            (None, None) => { "never" }
                        }
                    }
                    td class="n" { (of.entries) }
                    td class="n" { (of.entries_per_day.map_or_else(String::new, number)) }
                    td class="n" { (number(of.budget_per_day)) }
                    td class="n" { (of.ratio.map_or_else(String::new, number)) }
                }
            }
        }
    }
}

/// What enforcement would have met.
fn blocks(report: &Report, chronicle: &Chronicle) -> Markup {
    let labelled = report.labels.is_some();
    let mut met: Vec<(&String, &Met)> = chronicle.met().iter().collect();
    met.sort_by(|a, b| b.1.wrongly.iter().rev().cmp(a.1.wrongly.iter().rev()).then_with(|| a.0.cmp(b.0)));
    let denied: u64 = met.iter().map(|(_, met)| met.wrongly[3]).sum();
    let services = met.iter().filter(|(_, met)| met.wrongly[3] > 0).count();
    html! {
        h2 { "Had enforcement been on" }
        p {
            @if denied == 0 {
                "No call would have been denied" @if labelled { " wrongly" } ": nobody called while " (word(Level::Quarantined))
                @if labelled { " outside a labelled attack" } "."
            } @else {
                b class="quarantined" { (denied) " calls of " (services) @if services == 1 { " service" } @else { " services" } }
                " would have been denied" @if labelled { " outside every labelled attack" } ". "
                @if !labelled { "Whether wrongly only you know: there are no labels." }
            }
        }
        @if !met.is_empty() {
            p { "Calls made while at each level" @if labelled { "; in parentheses those outside every label" } ". What stands longer because the attack is not stopped in a log of the past is counted too." }
            table {
                tr { th { "identity" } @for level in Level::BY_BEHAVIOUR { th class="n" { (level.as_str()) } } }
                @for (identity, met) in met.iter().take(ROWS) {
                    tr {
                        td { (identity) }
                        @for (calls, wrongly) in met.calls.iter().zip(met.wrongly) {
                            td class="n" { (calls) @if labelled { " (" (wrongly) ")" } }
                        }
                    }
                }
            }
            (more(met.len()))
        }
    }
}

/// Who has a principal together with others.
fn shared(report: &Report) -> Markup {
    if report.shared_principals.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Shared principals" }
        p {
            "Several workloads have one principal, and each is judged by its own past, as principal#workload. An entry about "
            "one of their instances acts on that alone; any other is a shadow, since it would act on all of them. A service "
            "account of its own for each workload does away with that."
        }
        table {
            tr { th { "principal" } th { "workloads" } }
            @for (principal, workloads) in report.shared_principals.iter().take(ROWS) {
                tr { td { (principal) } td { (workloads.join(", ")) } }
            }
        }
        (more(report.shared_principals.len()))
    }
}

fn over_time(report: &Report, chronicle: &Chronicle, window: Window) -> Markup {
    let day = |at: Timestamp| at.window(Span::DAY);
    let days: Vec<i64> = (day(window.from)..=day(window.until)).take(20_000).collect();
    let hours: Vec<_> = chronicle.hours().iter().map(|(&hour, peak)| (hour, peak)).collect();
    let rows = rows(chronicle);
    html! {
        h2 { "Over time" }
        @for (place, of) in report.levels.iter().enumerate() {
            @let by_day: Vec<u64> = days.iter().map(|day| chronicle.days().get(day).map_or(0, |entries| entries[place])).collect();
            (picture::bars(of.level, &by_day, of.budget_per_day))
        }
        (picture::curve(&hours, window))
        @if !rows.is_empty() {
            p { "Who stood where, and when; the strongest evidence first." }
            (picture::stretches(&rows, window))
        }
    }
}

/// The identities with the highest levels and strongest evidence, and their steps.
fn rows(chronicle: &Chronicle) -> Vec<(&str, Vec<&Step>)> {
    let mut by_identity: BTreeMap<&str, Vec<&Step>> = BTreeMap::new();
    for step in chronicle.steps().0 {
        by_identity.entry(&step.identity).or_default().push(step);
    }
    let mut rows: Vec<_> = by_identity.into_iter().collect();
    let strength = |steps: &[&Step]| {
        let level = steps.iter().map(|step| step.level).max();
        (level, steps.iter().map(|step| step.evidence_bits).fold(0.0, f64::max))
    };
    rows.sort_by(|a, b| {
        let (a, b) = (strength(&a.1), strength(&b.1));
        b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    rows.truncate(ROWS);
    rows
}

fn steps(chronicle: &Chronicle) -> Markup {
    let (steps, more_steps) = chronicle.steps();
    let mut strongest: Vec<&Step> = steps.iter().filter(|step| !step.reasons.is_empty()).collect();
    strongest.sort_by(|a, b| b.level.cmp(&a.level).then(b.evidence_bits.total_cmp(&a.evidence_bits)));
    html! {
        h2 { "Decisions and their reasons" }
        @if strongest.is_empty() { p { "Nobody entered a level." } } @else {
            table {
                tr { th { "time" } th { "identity" } th { "level" } th class="n" { "bits (threshold)" } th { "what was seen; what is usual" } }
                @for step in strongest.iter().take(ROWS) {
                    tr {
                        td { (rfc3339(step.from)) }
                        td { (step.identity) @if let Some(instance) = &step.instance { " at " (instance) } }
                        td { (word(step.level)) @match step.is_true { Some(true) => " (labelled)", Some(false) => " (in no label)", None => "" } }
                        td class="n" { (number(step.evidence_bits)) " (" (number(step.threshold_bits)) ")" }
                        td {
                            ul { @for reason in &step.reasons {
                                li { (reason.observed) @if !reason.expected.is_empty() { "; usually " (reason.expected) }
                                    " " span class="faint" { "(" (reason.detector) ", " (number(reason.bits)) " bits)" } }
                            } }
                        }
                    }
                }
            }
            (more(strongest.len() + more_steps as usize))
            p class="faint" { "All of them are in trust.jsonl, as alerts in alerts.jsonl." }
        }
    }
}

fn incidents(report: &Report) -> Markup {
    let of = &report.incidents.of_several;
    html! {
        h2 { "Incidents" }
        p {
            (report.incidents.alerts) " alerts"
            @if of.is_empty() { ", each about one identity." } @else {
                "; of these " (of.len()) " about several identities that share a cause, each of which is one alert:"
            }
        }
        @if !of.is_empty() {
            table {
                tr { th { "since" } th { "level" } th { "what they share" } th { "who" } }
                @for incident in of.iter().take(ROWS) {
                    tr {
                        td { (incident.since) }
                        td { (word(incident.level)) }
                        td { (incident.cause) }
                        td { (list(incident.identities.iter().cloned())) }
                    }
                }
            }
            (more(of.len()))
        }
    }
}

fn deviations(report: &Report) -> Markup {
    html! {
        h2 { "Strongest deviations" }
        table {
            tr { th { "time" } th { "who" } th { "whom" } th { "what" } th { "question" } th class="n" { "bits" } th class="n" { "row" } }
            @for of in &report.top_deviations {
                tr {
                    td { (of.time) } td { (of.source) } td { (of.destination) } td { (of.operation) }
                    td { (of.detector.unwrap_or("–")) } td class="n" { (number(of.score_bits)) } td class="n" { (of.row) }
                }
            }
        }
    }
}

fn labels(report: &Report) -> Markup {
    let Some(labels) = &report.labels else { return html! {} };
    html! {
        h2 { "Known attacks" }
        p { (labels.found) " of " (labels.labels) " found; " (labels.missed) " missed." }
        table {
            tr { th { "kind" } th class="n" { "labels" } th class="n" { "found" } th class="n" { "missed" } th class="n" { "delay, median" } th class="n" { "delay, 90 %" } }
            @for (kind, of) in &labels.by_kind {
                tr {
                    td { (kind) } td class="n" { (of.labels) } td class="n" { (of.found) } td class="n" { (of.missed) }
                    td class="n" { (seconds(of.delay_median_s)) } td class="n" { (seconds(of.delay_p90_s)) }
                }
            }
        }
        @let missed: Vec<_> = labels.each.iter().filter(|each| !each.found).collect();
        @if !missed.is_empty() {
            p { "Missed:" }
            ul { @for each in missed.iter().take(ROWS) { li { (each.kind) ", " (each.start) " to " (each.end) ": " (list(each.identities.iter().cloned())) } } }
            (more(missed.len()))
        }
    }
}

fn cost(report: &Report) -> Markup {
    let (memory, speed) = (&report.memory, &report.throughput);
    html! {
        p class="faint" {
            (memory.identities) " identities and " (memory.edges) " edges in " (number(memory.baseline_bytes as f64 / f64::from(1 << 20))) " MiB; "
            (number(speed.seconds)) " s, " (number(speed.records_per_second)) " records a second."
        }
    }
}

fn word(level: Level) -> Markup {
    html! { b class=(level.as_str()) { (level.as_str()) } }
}

fn seconds(delay: Option<f64>) -> String {
    delay.map_or_else(String::new, |delay| format!("{} s", number(delay)))
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// How many rows are left out.
fn more(all: usize) -> Markup {
    html! { @if all > ROWS { p class="faint" { "and " (all - ROWS) " more" } } }
}
