//! What was generated, in words and figures.

use std::{collections::BTreeMap, fmt::Write as _};

use qualm_datasets::{AuthLog, Label};

use super::{
    args::{GenerateArgs, LogFormat},
    feed::Line,
    files,
    order::Order,
};

/// What went out.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Records of all logs.
    pub(super) lines: u64,
    of_attacks: u64,
    by_log: BTreeMap<Option<AuthLog>, u64>,
}

impl Tally {
    /// Counts a line.
    pub(super) fn count(&mut self, line: &Line<'_>) {
        self.lines += 1;
        self.of_attacks += u64::from(line.is_attack);
        *self.by_log.entry(line.issuer).or_default() += 1;
    }

    /// One sentence.
    pub(super) fn told(&self, order: &Order, args: &GenerateArgs) -> String {
        let attacks: usize = order.clusters.iter().map(|cluster| cluster.scenario.attacks().len()).sum();
        let changes: usize = order.clusters.iter().map(|cluster| cluster.scenario.changes().len()).sum();
        let place = match (&args.out, &args.topic) {
            (Some(out), _) => out.display().to_string(),
            (None, topic) => topic.clone().unwrap_or_default(),
        };
        let bound = if self.lines >= args.records { "; stopped at --records" } else { "" };
        format!(
            "{} records, {} of them of {attacks} attacks; {changes} honest changes; in {place}{bound}",
            self.lines, self.of_attacks
        )
    }
}

/// The card: a page of Markdown.
pub(super) fn text(order: &Order, tally: &Tally, args: &GenerateArgs) -> String {
    let mut card = String::from("# A generated mesh\n\n");
    let _ = writeln!(
        card,
        "From {} to {}, {} services, {} calls a second, seed {}. Made by `qualm` {}; the same command makes the same bytes:\n\n```\n{}\n```\n",
        order.start,
        order.end,
        args.services,
        args.rate,
        args.seed,
        env!("CARGO_PKG_VERSION"),
        command(args, &order.start.to_string())
    );
    let _ = writeln!(card, "{}.\n\n| file | format | records |\n|---|---|---|", tally.told(order, args));
    let access = match order.format {
        LogFormat::IstioJson => "istio_json",
        LogFormat::IstioText => "istio_text",
    };
    for (issuer, records) in &tally.by_log {
        let format = issuer.map_or(access, AuthLog::format);
        let _ = writeln!(card, "| `{}` | `{format}`, {} | {records} |", files::name(*issuer), order.envelope.name());
    }
    card.push_str(
        "\n`labels.jsonl` holds the attacks, for `qualm backtest --labels`; `changes.jsonl` what is honest.\n",
    );
    for (title, labels) in [("attack", false), ("honest change", true)] {
        let _ = writeln!(card, "\n| {title} | times |\n|---|---|");
        for (kind, times) in by_kind(order, labels) {
            let _ = writeln!(card, "| `{kind}` | {times} |");
        }
    }
    card
}

fn by_kind(order: &Order, honest: bool) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for cluster in &order.clusters {
        let labels: &[Label] = if honest { cluster.scenario.changes() } else { cluster.scenario.attacks() };
        for label in labels {
            *kinds.entry(label.kind).or_default() += 1;
        }
    }
    kinds
}

/// The command that makes the same again: everything that differs from the default.
fn command(args: &GenerateArgs, start: &str) -> String {
    let mut text = format!(
        "qualm generate --seed {} --days {} --services {} --rate {} --churn {} --attacks {} --start {start}",
        args.seed, args.days, args.services, args.rate, args.churn, args.attacks
    );
    let dirt = &args.dirt;
    let mut number = |name: &str, value: f64, default: f64| {
        if value != default {
            let _ = write!(text, " {name} {value}");
        }
    };
    number("--intensity", args.intensity, 1.0);
    number("--pace", args.pace, 1.0);
    number("--spread", args.spread, 0.4);
    number("--quiet", args.quiet, 0.5);
    number("--chained", args.chained, 0.0);
    number("--auth-delay", args.auth_delay.into(), 0.0);
    number("--shared-accounts", args.shared_accounts, 0.0);
    number("--clusters", args.clusters.into(), 1.0);
    number("--lost", dirt.lost, 0.0);
    number("--lost-outbound", dirt.lost_outbound, 0.0);
    number("--duplicates", dirt.duplicates, 0.0);
    number("--delay", dirt.delay, 0.0);
    number("--stragglers", dirt.stragglers, 0.0);
    number("--skew", dirt.skew, 0.0);
    number("--sampled", dirt.sampled.unwrap_or(2.0), 2.0);
    number("--interim", dirt.interim.unwrap_or(0).into(), 0.0);
    number("--records", args.records as f64, 5e8);
    for (name, given) in [
        ("--users", args.users),
        ("--auth", args.auth),
        ("--shared-certificates", args.shared_certificates),
        ("--failures-only", dirt.failures_only),
    ] {
        if given {
            let _ = write!(text, " {name}");
        }
    }
    for (name, kinds) in [("--changes", &args.changes), ("--kinds", &args.kinds)] {
        if !kinds.is_empty() {
            let _ = write!(text, " {name} {}", kinds.join(","));
        }
    }
    for (name, word, default) in [
        ("--clocks", word(&args.clocks), "utc"),
        ("--reporters", word(&dirt.reporters), "inbound"),
        ("--format", word(&args.format), "istio_json"),
        ("--envelope", word(&args.envelope), "bare"),
    ] {
        if word != default {
            let _ = write!(text, " {name} {word}");
        }
    }
    text.push_str(" --out DIR");
    text
}

fn word(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
