//! `qualm backtest`: logs of the past through the same scorer, and what it would have done.
//!
//! # Layout
//! - `sort`, `spill`: all records in the order of their report times, in bounded memory
//! - `replay`: the scorer; `finding` beside this module: its verdicts as alerts
//! - `rows`, `outcomes`, `word`, `scores`: `scores.parquet`, in the order of rows
//! - `events`: `events.parquet`, for the lab
//! - `trust`, `report`, `labels`: the other outputs
//! - `chronicle`, `page`: what happened when, and `report.html`

mod chronicle;
mod events;
mod incidents;
mod labels;
mod outcomes;
mod page;
mod replay;
mod report;
mod rows;
mod scores;
mod sort;
mod spill;
mod trust;
mod word;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use qualm_ingest::{
    config::read_mapping,
    counters::reason,
    file::FileReader,
    parse::{Format, Parser},
    source::Rejection,
};
use qualm_model::level::Level;
use qualm_scorer::scorer::Scorer;

use self::{
    events::Events,
    labels::Labels,
    outcomes::Outcomes,
    replay::Replay,
    report::{FirstUnread, Memory, OfLevel, Report, Spilled, Throughput, cpu_seconds, days},
    rows::Rows,
    sort::{Sorted, Sorter},
};
use crate::{
    cli::BacktestArgs,
    config::{self, Config},
};

/// What may be held before it goes to disk.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Bytes of events.
    event_bytes: usize,
    /// Rows of scores.
    rows: usize,
}

const ROOM: Room = Room { event_bytes: 512 << 20, rows: outcomes::STRETCH };

/// Everything that was read, and how.
struct Read {
    sorted: Sorted,
    rows: Option<Rows>,
    records: u64,
    rejected: BTreeMap<&'static str, u64>,
    /// The first that is no access log of this format, where all are none.
    none_read: Option<FirstUnread>,
    spilled: Spilled,
}

/// Runs the command.
///
/// # Errors
/// An argument, the configuration, an input or the output directory is not as it must be.
pub(crate) fn run(args: &BacktestArgs) -> Result<ExitCode> {
    let report = backtest(args, ROOM)?;
    let out = args.out.display();
    let scores = if args.scores { ", scores.parquet" } else { "" };
    writeln!(io::stdout(), "{}\n{out}: trust.jsonl, alerts.jsonl, report.json, report.html{scores}", report.summary())?;
    if let Some(first) = report.none_read {
        bail!(
            "none of the {} records could be read as {}: the first, row {}, is `{}`; name the format that they have with \
             --format (`qualm formats` lists them), or the columns with --mapping",
            report.records,
            report.format,
            first.row,
            first.reason
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn backtest(args: &BacktestArgs, room: Room) -> Result<Report> {
    let began = Instant::now();
    let (mut config, config_hash) = match &args.config {
        Some(path) => Config::read(path)?,
        None => (Config::default(), config::hash("")),
    };
    if let Some(model) = &args.model {
        config.peers.model.clone_from(model);
    }
    let model = config.peers.read()?;
    let (parser, format) = parser(args)?;
    let labels = args.labels.as_deref().map(Labels::read).transpose()?;
    check_inputs(&args.inputs)?;
    fs::create_dir_all(&args.out)
        .with_context(|| format!("{}: cannot be made; name another directory with --out", args.out.display()))?;
    let mut scorer = Scorer::new(config.scorer());
    scorer.limit_sources(vec![args.max_level]);
    // Rows are counted over all of them.
    scorer.name_sources(vec![match args.inputs.as_slice() {
        [one] => format!("file {}", one.display()),
        _ => "the inputs in their order".to_owned(),
    }]);
    scorer.leave_aside(args.without.iter().copied());
    scorer.take_peers(config.peers.from(model.as_ref()));
    let mut replay = Replay::new(scorer, labels, &args.out)?;

    let mut read = read(args, parser, room)?;
    let count = usize::try_from(read.records)?;
    let mut outcomes = read.rows.is_some().then(|| Outcomes::new(&args.out, count, room.rows)).transpose()?;
    let bar = progress("scoring", Some(read.records));
    let mut events = args.events.then(|| Events::create(&args.out.join("events.parquet"))).transpose()?;
    while let Some(batch) = read.sorted.next_batch()? {
        if let Some(events) = &mut events {
            events.push(&batch)?;
        }
        replay.observe(&batch, outcomes.as_mut())?;
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    events.map_or(Ok(()), Events::finish)?;
    replay.finish()?;
    drop(read.sorted);
    if let (Some(rows), Some(outcomes)) = (read.rows.take(), outcomes) {
        scores::write(&args.out.join("scores.parquet"), rows.read()?, outcomes.read())?;
    }

    let seconds = began.elapsed().as_secs_f64();
    let (chronicle, window) = replay.take_chronicle();
    let mut report = report(replay, &config, read.records, read.rejected, read.spilled);
    report.none_read = read.none_read;
    report.config_hash = config_hash;
    report.inputs.clone_from(&args.inputs);
    report.format = format;
    report.throughput =
        Throughput { seconds, records_per_second: report.records as f64 / seconds, cpu_seconds: cpu_seconds() };
    write_report(&report, &args.out.join("report.json"))?;
    let page_path = args.out.join("report.html");
    fs::write(&page_path, page::page(&report, &chronicle, window))
        .with_context(|| format!("{}: cannot be written", page_path.display()))?;
    Ok(report)
}

/// The parser asked for, and what to call it.
fn parser(args: &BacktestArgs) -> Result<(Parser, String)> {
    let (format, mapping) = match (args.format, &args.mapping) {
        (Some(_), Some(_)) => bail!("--format and --mapping exclude each other; a mapping is for records of your own"),
        (Some(Format::Mapped), None) => bail!("--format mapped needs to know the columns; give --mapping FILE instead"),
        (format, None) => (format.unwrap_or_default(), None),
        (None, Some(path)) => (Format::Mapped, Some(read_mapping(path)?)),
    };
    let name = args.mapping.as_ref().map_or_else(|| format.to_string(), |path| format!("mapping {}", path.display()));
    Ok((Parser::for_format(format, mapping)?, name))
}

fn check_inputs(inputs: &[PathBuf]) -> Result<()> {
    for path in inputs.iter().filter(|path| path.as_path() != Path::new("-")) {
        let file = File::open(path).with_context(|| format!("{}: cannot be read; check the path", path.display()))?;
        if file.metadata()?.is_dir() {
            bail!("{}: is a directory; name the files in it", path.display());
        }
    }
    Ok(())
}

fn read(args: &BacktestArgs, parser: Parser, room: Room) -> Result<Read> {
    let mut reader = FileReader::new(args.inputs.clone(), parser, 0);
    let mut sorter = Sorter::new(&args.out, room.event_bytes);
    let mut rows = args.scores.then(|| Rows::new(&args.out));
    let mut rejected = BTreeMap::new();
    let (mut unread, mut first_unread) = (0, None);
    let bar = progress("reading", None);
    while let Some(batch) = reader.next_batch()? {
        for rejection in &batch.rejected {
            let reason = reason(rejection.why);
            *rejected.entry(reason).or_default() += 1;
            if matches!(rejection.why, Rejection::Invalid(_) | Rejection::Foreign) {
                unread += 1;
                first_unread.get_or_insert(FirstUnread { row: rejection.position.offset, reason });
            }
        }
        sorter.push(&batch.events)?;
        if let Some(rows) = &mut rows {
            rows.push(&batch)?;
            if sorter.has_spilled() {
                rows.spill()?;
            }
        }
        bar.set_position(reader.rows() as u64);
    }
    bar.finish_and_clear();
    let spilled = if sorter.has_spilled() { Spilled::Yes } else { Spilled::No };
    let none_read = first_unread.filter(|_| unread == reader.rows());
    Ok(Read { sorted: sorter.finish()?, rows, records: reader.rows() as u64, rejected, none_read, spilled })
}

/// A bar on standard error where that is a terminal.
fn progress(what: &'static str, of: Option<u64>) -> ProgressBar {
    let (bar, template) = match of {
        Some(records) => (ProgressBar::new(records), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} records {per_sec} {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn report(
    replay: Replay,
    config: &Config,
    records: u64,
    mut rejected: BTreeMap<&'static str, u64>,
    spilled: Spilled,
) -> Report {
    let (birth, tally) = (replay.scorer().birth(), replay.scorer().tally());
    let shared_principals = replay.scorer().parted();
    let seen = replay.seen;
    for (reason, count) in seen.unscored {
        *rejected.entry(reason).or_default() += count;
    }
    let days = days(seen.first, seen.last);
    let by_level = |entries| Level::BY_BEHAVIOUR.into_iter().zip(entries).collect();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        config_hash: String::new(),
        inputs: Vec::new(),
        format: String::new(),
        records,
        scored: seen.scored,
        rejected,
        none_read: None,
        first_time: seen.first.map(trust::rfc3339),
        last_time: seen.last.map(trust::rfc3339),
        days,
        shared_principals,
        levels: OfLevel::all(seen.entries, &seen.armed, birth, days, &config.budget),
        namespaces: seen.namespaces.into_iter().map(|(name, entries)| (name, by_level(entries))).collect(),
        incidents: seen.incidents.told(),
        top_deviations: seen.top.into_deviations(),
        labels: seen.labels.as_ref().map(Labels::evaluate),
        memory: Memory::of(tally, spilled),
        throughput: Throughput { seconds: 0.0, records_per_second: 0.0, cpu_seconds: None },
    }
}

fn write_report(report: &Report, path: &Path) -> Result<()> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: &str = "format = \"csv\"\ntime = { column = 0, format = \"epoch_s\" }\n[fields]\nsource = \"{1}\"\ndestination = \"{2}\"\n";

    /// Callers in turn over two days in no order, one line in a hundred broken, and at the end a scan.
    fn log() -> String {
        let mut log = String::new();
        for number in 0..20_000_i64 {
            let time = 1_767_571_200 + number * 7_919 % 20_000 * 8;
            // Now and then somebody calls a stranger: without that nothing is learned of chance.
            let stranger = if number % 150 == 0 { 7 + number % 397 } else { 0 };
            let (source, destination) = (number % 13, number % 7 + stranger);
            match number % 100 {
                99 => log.push_str("broken\n"),
                _ => log.push_str(&format!("{time},s{source},d{destination}\n")),
            }
        }
        for number in 0..100 {
            log.push_str(&format!("{},s1,stranger-{number}\n", 1_767_571_200 + 150_000 + number * 5));
        }
        log
    }

    /// A run over a log in a folder, into a folder in it.
    fn args(folder: &Path, log: &str, out: &str) -> BacktestArgs {
        fs::write(folder.join("log"), log).expect("written");
        fs::write(folder.join("mapping"), MAPPING).expect("written");
        BacktestArgs {
            inputs: vec![folder.join("log")],
            format: None,
            mapping: Some(folder.join("mapping")),
            config: None,
            model: None,
            labels: None,
            scores: true,
            events: false,
            max_level: Level::Quarantined,
            without: Vec::new(),
            out: folder.join(out),
        }
    }

    #[test]
    fn the_page_needs_nothing_else_and_no_name_of_a_log_is_markup_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let hostile = log().replace(",s1,", ",s1<script src=\"x\">,");
        let report = backtest(&args(folder.path(), &hostile, "out"), ROOM).expect("it runs");
        let page = fs::read_to_string(folder.path().join("out/report.html")).expect("written");
        assert!(page.contains("s1&lt;script src=&quot;x&quot;&gt;") && !page.contains("<script"));
        assert!(!page.contains("http") && !page.contains("url(") && !page.contains("@import"));
        let entries = report.levels[0].entries;
        assert!(entries > 0 && page.contains(&format!("<td class=\"n\">{entries}</td>")), "{page}");
        // Each picture is there and has something in it.
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("<polyline class=\"curve\" points=\"2") && page.contains("<rect class=\"watched\""));
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn with_hardly_any_room_every_output_is_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let run = |out: &str, room: Room| {
            let args = args(folder.path(), &log(), out);
            let report = backtest(&args, room).expect("it runs");
            let files = ["trust.jsonl", "alerts.jsonl", "scores.parquet"];
            (report, files.map(|file| fs::read(path(out).join(file)).expect("written")))
        };
        let (held, expected) = run("held", ROOM);
        let (spilled, files) = run("spilled", Room { event_bytes: 100_000, rows: 777 });
        assert!(!held.memory.spilled && spilled.memory.spilled);
        assert!(held.levels[0].entries > 0);
        assert!(files == expected, "the outputs differ");
        assert_eq!(fs::read_dir(path("spilled")).expect("listed").count(), 5, "spill files are left behind");
    }
}
