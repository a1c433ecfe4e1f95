//! How it is told: plain sentences, with pictures in text on a terminal.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use qualm_model::identity::Hierarchy;
use qualm_scorer::notify::plain;

use super::{
    questions::Answer,
    schemas::Schema,
    summary::{Caller, Edge, Refused, Stored, Summary},
};

/// Width of the longest bar.
const BAR: usize = 30;

/// A bar on a terminal while it is read.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// For so many of `what`; 0 where nobody knows.
    pub(super) fn new(total: u64, what: &str) -> Self {
        let bar = if total > 0 { ProgressBar::new(total) } else { ProgressBar::new_spinner() };
        let style = format!("{{elapsed_precise}} {{wide_bar}} {{percent}} % of {what}");
        if let (true, Ok(style)) = (total > 0, ProgressStyle::with_template(&style)) {
            bar.set_style(style);
        }
        if !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self(bar)
    }

    pub(super) fn reached(&mut self, place: u64) {
        let end = self.0.length().unwrap_or(u64::MAX);
        self.0.set_position(place.min(end));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Writes to standard output.
pub(super) fn say(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

/// Writes the skeleton of a mapping.
pub(super) fn say_skeleton(skeleton: &str) -> io::Result<()> {
    say(
        "\nThese look like columns, or keys, of somebody's own. A mapping tells which is what; of this one, complete what has a `?`:\n\n",
    )?;
    say(&skeleton.lines().fold(String::new(), |text, line| text + "    " + line + "\n"))
}

/// The whole answer.
pub(super) fn told(summary: &Summary) -> String {
    let mut text = String::new();
    head(&mut text, summary);
    if summary.events > 0 {
        mesh(&mut text, summary);
        reporting(&mut text, summary);
        time(&mut text, summary);
        asked(&mut text, summary);
    }
    text
}

fn head(text: &mut String, summary: &Summary) {
    let read = if summary.complete { "all of it read" } else { "a sample read" };
    let megabytes = summary.bytes as f64 / 1e6;
    let _ = writeln!(
        text,
        "{}: {} records, {megabytes:.1} MB, {read} in {:.1} s ({:.0} MB/s)",
        summary.name,
        summary.records,
        summary.elapsed_s,
        megabytes / summary.elapsed_s.max(1e-3)
    );
    if let Some(topic) = &summary.topic {
        let history = topic.history_s.map_or_else(String::new, |history| format!(", {} of history", length(history)));
        let _ = writeln!(
            text,
            "The topic holds {} records in {} partitions{history}{}.",
            topic.records,
            topic.partitions,
            retention(topic)
        );
    }
    if summary.records == 0 {
        text.push_str("There are no records.\n");
        return;
    }
    text.push_str("\nRecords\n");
    for format in &summary.formats {
        let _ = writeln!(text, "  {:<16} {:>6.2} %  {}", format.name, 100.0 * format.share, bar(format.share));
    }
    if let Some(mapping) = &summary.mapping {
        let _ =
            writeln!(text, "  This is what the mapping {mapping} reads; its head says what each column is taken for.");
    }
    if summary.parts > 0 {
        let _ = writeln!(
            text,
            "  {:<16} {:>6.2} %  (pieces of longer lines, and entries from before a call was on its way: no event by themselves)",
            "part",
            100.0 * summary.parts_share
        );
    }
    refused(text, "foreign", "no access logs: counted apart, never an error", &summary.foreign);
    for (why, tally) in &summary.invalid {
        refused(text, &format!("invalid: {why}"), "cannot be read", tally);
    }
    if !summary.entries_refused.is_empty() {
        let refused = summary.entries_refused.iter().map(|(why, count)| format!("{why} {count}"));
        let _ = writeln!(
            text,
            "  Within records that hold several entries, entries were refused: {}.",
            refused.collect::<Vec<_>>().join(", ")
        );
    }
    wrapped(text, summary);
    believed(text, summary);
    if let Some(topic) = &summary.topic {
        schemas(text, &topic.schemas);
    }
}

/// What the records came in.
fn wrapped(text: &mut String, summary: &Summary) {
    let shares = summary.envelopes.iter().map(|of| format!("{} {:.1} %", of.name, 100.0 * of.share));
    if !summary.envelopes.is_empty() {
        let _ = writeln!(text, "  Envelopes: {}.", shares.collect::<Vec<_>>().join("; "));
    }
    if let Some(envelope) = &summary.envelope {
        let _ = writeln!(text, "  The line stands at {envelope} of each record: envelope = \"{envelope}\".");
    }
}

/// Whose word is not taken.
fn believed(text: &mut String, summary: &Summary) {
    for (container, records) in &summary.strangers {
        let _ = match container.as_str() {
            "" => writeln!(
                text,
                "  Not believed: {records} records name certificates, and were written in another namespace than the proxy \
                 says it is in."
            ),
            container => writeln!(
                text,
                "  Not believed: {records} records name certificates, and were written by container {}, which is none of a \
                 proxy's as far as is known: names alone are taken from them. If it is a proxy, say so: --proxy {0}, or \
                 proxies = [\"{0}\"] at the topic or file.",
                plain(container)
            ),
        };
    }
}

/// For how long the broker keeps what is in a topic.
fn retention(topic: &Stored) -> String {
    let Some(time) = topic.retention_s else { return String::new() };
    let time = if time < 0.0 { "for ever".to_owned() } else { format!("for {}", length(time)) };
    match topic.retention_bytes {
        Some(bytes) if bytes >= 0 => format!("; it keeps them {time}, up to {:.0} MB a partition", bytes as f64 / 1e6),
        _ => format!("; it keeps them {time}"),
    }
}

fn schemas(text: &mut String, schemas: &[Schema]) {
    for schema in schemas {
        let known = if schema.is_known { "" } else { ", by the looks of them" };
        let Schema { id, records, kind, .. } = schema;
        let _ = writeln!(text, "  schema {id:<9} {records:>8} records have its id in front: {kind}{known}");
    }
    if schemas.iter().any(|schema| !schema.is_known && !schema.is_asked && schema.kind != "JSON") {
        text.push_str(
            "  They can be read with the schema registry. Look again with --registry URL, and add to [[kafka]]:\n    \
             registry = { url = \"https://REGISTRY:8081\" }\n",
        );
    }
}

fn refused(text: &mut String, name: &str, meaning: &str, tally: &Refused) {
    if tally.count > 0 {
        let _ =
            writeln!(text, "  {name:<16} {:>6.2} %  ({meaning}) for example: {}", 100.0 * tally.share, tally.example);
    }
}

fn mesh(text: &mut String, summary: &Summary) {
    let _ = writeln!(
        text,
        "\nMesh\n  {} call {} over {}; {} of them are proven by a certificate ({:.0} % of the calls).",
        counted(summary.identities, "identity", "identities"),
        counted(summary.destinations, "destination", "destinations"),
        counted(summary.edges, "edge", "edges"),
        summary.verified_identities,
        100.0 * summary.verified_share
    );
    calls(text, summary);
    let more = match summary.services_in_all - summary.services.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    if summary.services_in_all > 0 {
        let _ = writeln!(text, "  Services ({}): {}{more}", summary.services_in_all, summary.services.join(", "));
    }
    text.push_str("  Who calls whom, the busiest first\n");
    for caller in &summary.graph {
        branches(text, caller, summary);
    }
    let rarest = summary.rarest.iter().map(|edge| format!("{} ({}×)", arrow(edge), edge.calls));
    let _ = writeln!(text, "  Rarest: {}", rarest.collect::<Vec<_>>().join(", "));
    for shared in &summary.shared {
        let _ = writeln!(
            text,
            "  {} is shared by {} workloads: {}. Each is judged by its own past once they have called side by side in 24 \
             hours; a service account of its own for each lets rules be about one.",
            short(&shared.principal),
            shared.workloads.len(),
            shared.workloads.iter().map(|workload| plain(workload)).collect::<Vec<_>>().join(", ")
        );
    }
    if !summary.clusters_named {
        text.push_str(
            "  No cluster is named. With more than one cluster, set `cluster` at the topic or file: the same principal in two \
             clusters is two identities.\n",
        );
    }
}

/// How many calls the records tell of.
fn calls(text: &mut String, summary: &Summary) {
    let others = [
        (summary.confirming, "confirm what the other proxy of the call tells"),
        (summary.going_on, "tell of streams that go on"),
        (summary.repeated, "were delivered again"),
    ];
    let others: Vec<String> =
        others.iter().filter(|(records, _)| *records > 0).map(|(records, what)| format!("{records} {what}")).collect();
    let others =
        if others.is_empty() { String::new() } else { format!("; of the other entries {}", others.join(", ")) };
    let _ = writeln!(text, "  {} entries are {} calls{others}.", summary.events, summary.calls);
}

/// A source with its edges, as a small tree.
fn branches(text: &mut String, caller: &Caller, summary: &Summary) {
    let most = summary.busiest.first().map_or(1, |edge| edge.calls).max(1);
    let source = short(&caller.source);
    let indent = " ".repeat(source.chars().count());
    let ends = caller.edges.iter().map(|edge| (called(edge), edge.calls));
    let rest = (caller.more.0 > 0).then(|| (counted(caller.more.0, "more", "more"), caller.more.1));
    let ends: Vec<(String, u64)> = ends.chain(rest).collect();
    let width = ends.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (place, (name, calls)) in ends.iter().enumerate() {
        let line = match (place, ends.len() - place) {
            (0, 1) => "───▶",
            (0, _) => "─┬─▶",
            (_, 1) => " ╰─▶",
            _ => " ├─▶",
        };
        let from = if place == 0 { &source } else { &indent };
        let bar = "█".repeat(((*calls as f64 / most as f64) * BAR as f64).ceil().min(BAR as f64) as usize);
        let share = 100.0 * *calls as f64 / summary.calls.max(1) as f64;
        let pad = " ".repeat(width - name.chars().count());
        let _ = writeln!(text, "    {from} {line} {name}{pad}  {bar} {share:.1} %");
    }
}

/// The called of an edge.
fn called(edge: &Edge) -> String {
    if edge.destination.is_empty() { "(nobody named)".to_owned() } else { short(&edge.destination) }
}

fn arrow(edge: &Edge) -> String {
    format!("{} ──▶ {}", short(&edge.source), called(edge))
}

/// A bar of a share.
fn bar(share: f64) -> String {
    "█".repeat((share * BAR as f64).round() as usize)
}

/// `namespace/service`, or the name itself where it has no such parts.
pub(super) fn short(name: &str) -> String {
    let (principal, cluster) = match name.split_once('@') {
        Some((principal, cluster)) if principal.starts_with("spiffe://") => (principal, format!("@{cluster}")),
        _ => (name, String::new()),
    };
    let place = Hierarchy::of(principal);
    let short =
        place.namespace.map_or_else(|| place.service.to_owned(), |namespace| format!("{namespace}/{}", place.service));
    plain(&(short + &cluster))
}

fn reporting(text: &mut String, summary: &Summary) {
    let share = |count: u64| 100.0 * count as f64 / summary.events.max(1) as f64;
    let list = |counts: &std::collections::BTreeMap<&'static str, u64>| {
        counts.iter().map(|(name, &count)| format!("{name} {:.1} %", share(count))).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(text, "\nReports\n  of {}; written by the {}", list(&summary.kinds), list(&summary.reporters));
    for suspicion in &summary.suspicions {
        let _ = writeln!(text, "  Suspected: {suspicion}.");
    }
}

fn time(text: &mut String, summary: &Summary) {
    if let (Some(first), Some(last)) = (&summary.first, &summary.last) {
        let _ = writeln!(text, "\nTime\n  from {first} to {last} ({})", length(summary.span_s));
        // Where the years of records without one begin.
        if first.starts_with("1972") {
            text.push_str(
                "  the records name no year: 1972 and the next stand in; a shipper's envelope would tell it\n",
            );
        }
    }
    if let Some(delay) = &summary.delay_s {
        let _ = writeln!(
            text,
            "  from the end of a call to the topic: p50 {}, p99 {}",
            length(delay.p50),
            length(delay.p99)
        );
    }
    for skew in &summary.skewed {
        let reporter = plain(&skew.reporter);
        let _ = match (skew.by_both_ends, skew.ahead_s > 0.0) {
            (false, _) => writeln!(text, "  the clock of {reporter} is at least {} ahead", length(skew.ahead_s)),
            (true, true) => writeln!(text, "  the clock of {reporter} is {} ahead of the others", length(skew.ahead_s)),
            (true, false) => writeln!(text, "  the clock of {reporter} is {} behind the others", length(-skew.ahead_s)),
        };
    }
    let armed = &summary.armed_with_history;
    let told = if armed.is_empty() { "no level yet".to_owned() } else { armed.join(", ") };
    let _ =
        writeln!(text, "  History read first would arm: {told} (1 h arms watched, 1 day throttled, 6 days the rest)");
}

fn asked(text: &mut String, summary: &Summary) {
    text.push_str("\nWhat can be asked\n");
    for asked in &summary.questions {
        let mark = match asked.answer {
            Answer::Yes => "yes   ",
            Answer::Partly => "partly",
            Answer::No => "no    ",
        };
        let _ = writeln!(text, "  {mark} {} ({:.0} % of the records have it)", asked.question, 100.0 * asked.share);
        if let Some((first, rest)) = asked.add.split_first() {
            let _ = writeln!(text, "         add {first}");
            rest.iter().for_each(|line| text.push_str(&format!("             {line}\n")));
        }
    }
}

fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// A length of time, as people say it.
fn length(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "-" } else { "" };
    let seconds = seconds.abs();
    match seconds {
        s if s < 1.0 => format!("{sign}{:.0} ms", 1000.0 * s),
        s if s < 120.0 => format!("{sign}{s:.1} s"),
        s if s < 7200.0 => format!("{sign}{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{sign}{:.1} h", s / 3600.0),
        s => format!("{sign}{:.1} days", s / 86_400.0),
    }
}
