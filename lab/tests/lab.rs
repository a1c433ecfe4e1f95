//! `lab` as it is used: its own binary, its files.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use polars::prelude::{Column, DataFrame, DataType, TimeUnit};
use polars_io::{
    SerReader as _,
    parquet::{read::ParquetReader, write::ParquetWriter},
};
use qualm_peers::Model;
use serde_json::{Value, json};

const MINUTE: i64 = 60_000_000_000;
/// 2026-01-05T00:00:00Z.
const BEGIN: i64 = 1_767_571_200_000_000_000;

fn lab<I, S>(arguments: I) -> Output
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    Command::new(env!("CARGO_BIN_EXE_lab")).args(arguments).output().unwrap()
}

/// An empty folder of one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", said(output));
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(path: &Path, columns: Vec<Column>) {
    let mut frame = DataFrame::new_infer_height(columns).unwrap();
    ParquetWriter::new(File::create(path).unwrap()).finish(&mut frame).unwrap();
}

/// A run of ten minutes, two sources and a call of each a minute: `thief` scores `odd` bits in the last two. One record
/// is none.
fn run(folder: &Path, odd: f64) {
    let (mut time, mut source, mut score, mut evidence) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for minute in 0..10 {
        for who in ["honest", "thief"] {
            time.push(BEGIN + minute * MINUTE);
            source.push(who);
            let bits = if who == "thief" && minute >= 8 { odd } else { -1.0 + 0.1 * minute as f64 };
            score.push(Some(bits));
            evidence.push(Some(bits.max(0.0)));
        }
    }
    time.push(BEGIN);
    source.push("unread");
    score.push(None);
    evidence.push(None);
    let count = time.len();
    let time = Column::new("time".into(), time).cast(&DataType::Datetime(TimeUnit::Nanoseconds, None)).unwrap();
    let columns = vec![
        Column::new("row".into(), (0..count as i64).collect::<Vec<_>>()),
        time,
        Column::new("source".into(), source),
        Column::new("destination".into(), vec!["db"; count]),
        Column::new("detector".into(), vec!["rate-1m"; count]),
        Column::new("score_bits".into(), score),
        Column::new("identity_bits".into(), evidence),
    ];
    fs::create_dir_all(folder).unwrap();
    write(&folder.join("scores.parquet"), columns);
    let level = |level: &str, per_day: f64| json!({"level": level, "armed": true, "budget_per_day": per_day});
    let levels =
        [level("watched", 10.0), level("throttled", 1.0), level("restricted", 0.1), level("quarantined", 0.03)];
    fs::write(folder.join("report.json"), json!({"days": 2.0, "levels": levels}).to_string()).unwrap();
    let entry = |identity: &str, time: &str| {
        json!({"time": time, "identity": identity, "level": "watched", "previous": "trusted", "cause": "evidence",
            "reasons": [{"detector": "rate-1m", "bits": 7.0}]})
    };
    let trust = format!("{}\n{}\n", entry("thief", "2026-01-05T00:08:30Z"), entry("honest", "2026-01-05T00:03:00Z"));
    fs::write(folder.join("trust.jsonl"), trust).unwrap();
}

fn label(folder: &Path) -> String {
    let path = folder.join("labels.jsonl");
    let label = json!({"start": "2026-01-05T00:08:00Z", "end": "2026-01-05T00:09:00Z", "kind": "theft", "identities": ["thief"]});
    fs::write(&path, label.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn a_run_is_evaluated_by_labels_and_by_rows_to_the_same_ranking() {
    let folder = folder("evaluate");
    let out = folder.join("out");
    run(&out, 9.0);
    let labels = label(&folder);
    let by_time =
        lab([OsStr::new("evaluate"), out.as_os_str(), "--labels".as_ref(), labels.as_ref(), "--json".as_ref()]);
    let by_time: Value = serde_json::from_str(&said(&by_time)).unwrap();
    assert_eq!((&by_time["records"], &by_time["scored"]), (&json!(21), &json!(20)));
    assert_eq!(by_time["events"]["all"]["auc"], json!(1.0));
    assert_eq!(by_time["events"]["by_kind"]["theft"]["odd"], json!(2));
    assert_eq!(by_time["collapsed"]["all"]["usual"], json!(18));
    assert_eq!(by_time["entries"]["found"]["watched"], json!(1));
    assert_eq!(by_time["entries"]["outside"]["watched"], json!(1));
    assert_eq!(by_time["entries"]["by_kind"]["theft"]["delay_s"], json!(30.0));
    assert_eq!(by_time["calibration"]["budget"][0]["entries_per_day"], json!(0.5));
    let mut rows = String::new();
    for minute in 0..10 {
        writeln!(rows, "a,-\nb,{}", if minute >= 8 { "theft" } else { "-" }).unwrap();
    }
    rows.push_str("c,-\n");
    let file = folder.join("rows.csv");
    fs::write(&file, &rows).unwrap();
    let evaluate = |file: &Path| {
        let given = ["--label-column", "1", "--json", "--row-labels"].map(OsStr::new);
        lab([OsStr::new("evaluate"), out.as_os_str()].into_iter().chain(given).chain([file.as_os_str()]))
    };
    let by_row: Value = serde_json::from_str(&said(&evaluate(&file))).unwrap();
    assert_eq!(by_row["events"], by_time["events"]);
    assert_eq!(by_row["entries"]["by_kind"]["theft"]["labels"], json!(1));
    // Labels that do not fit are no shift.
    fs::write(&file, &rows[4..]).unwrap();
    let error = complaint(&evaluate(&file));
    assert!(error.contains("20 labels for the 21 records"), "{error}");
}

#[test]
fn runs_are_compared_figure_by_figure() {
    let folder = folder("compare");
    let labels = label(&folder);
    let (before, after) = (folder.join("before"), folder.join("after"));
    run(&before, -0.5);
    run(&after, 9.0);
    let error = complaint(&lab([OsStr::new("compare"), before.as_os_str(), after.as_os_str()]));
    assert!(error.contains("evaluation.json") && error.contains("lab evaluate"), "{error}");
    for out in [&before, &after] {
        let done = lab([OsStr::new("evaluate"), out.as_os_str(), "--labels".as_ref(), labels.as_ref()]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    fs::write(after.join("trust.jsonl"), "").unwrap();
    let told = said(&lab([OsStr::new("compare"), before.as_os_str(), after.as_os_str()]));
    let line = told.lines().find(|line| line.starts_with("event AUC ")).unwrap();
    assert!(
        line.ends_with(|end: char| end.is_ascii_digit()) && line.contains("1.0000") && line.contains('+'),
        "{line}"
    );
    assert!(told.contains("2 decisions of before alone") && told.contains("  honest: watched"), "{told}");
}

/// Twelve callers for three hours: six make many small calls, six a few large ones.
fn log(path: &Path) {
    let mut log = String::new();
    for minute in 0..180_i64 {
        for who in 0..12_i64 {
            let is_busy = who < 6;
            for call in 0..if is_busy { 5 + (minute * 7 + who) % 3 } else { 1 } {
                let at = BEGIN / 1_000_000_000 + minute * 60 + call;
                let bytes = if is_busy { 200 + 10 * (minute % 7) } else { 90_000 + 1_000 * (minute % 5) };
                writeln!(
                    log,
                    "{{\"time\":{at},\"source\":\"app{who}\",\"destination\":\"db{}\",\"bytes_out\":{bytes}}}",
                    call % 2
                )
                .unwrap();
            }
        }
    }
    log.push_str("no call\n");
    fs::write(path, log).unwrap();
}

/// Rows of a table that `lab features` wrote, each as its identity, calls, peers, bytes.
fn rows(path: &Path) -> Vec<(String, f64, f64, f64)> {
    let table = ParquetReader::new(File::open(path).unwrap()).finish().unwrap();
    let numbers = |name: &str| table.column(name).unwrap().f64().unwrap().iter().flatten().collect::<Vec<f64>>();
    let (calls, peers, bytes) = (numbers("calls"), numbers("peers"), numbers("bytes"));
    let names = table.column("identity").unwrap().str().unwrap();
    names.iter().enumerate().map(|(n, name)| (name.unwrap().to_owned(), calls[n], peers[n], bytes[n])).collect()
}

#[test]
fn a_history_becomes_a_table_of_windows_whether_it_is_in_lines_or_in_parquet() {
    let folder = folder("history");
    let at = |name: &str| folder.join(name);
    log(&at("log.jsonl"));
    let features = |inputs: &Path, out: &Path| {
        lab([OsStr::new("features"), inputs.as_os_str(), "--out".as_ref(), out.as_os_str()])
    };
    let done = features(&at("log.jsonl"), &at("features.parquet"));
    let told = said(&done);
    assert!(told.contains("216 windows of 12 identities; 1 lines were no calls"), "{told}{:?}", done.stderr);
    let of_lines = rows(&at("features.parquet"));
    assert_eq!(of_lines.len(), 216);
    // Ten minutes of one call each, in the order of names: app0, app1, app10.
    assert_eq!((of_lines[36].0.as_str(), of_lines[36].1, of_lines[36].2), ("app10", 10.0, 1.0));
    assert_eq!(of_lines[36].3, 2.0 * (90_000.0 + 91_000.0 + 92_000.0 + 93_000.0 + 94_000.0));
    assert_eq!(of_lines[0].2, 2.0, "two destinations are two, however often they are called");
    // The same rows out of Parquet are the same table.
    let text = fs::read_to_string(at("log.jsonl")).unwrap();
    let calls: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let text = |field: &str| calls.iter().map(|call| call[field].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let times: Vec<i64> = calls.iter().map(|call| call["time"].as_i64().unwrap() * 1_000_000_000).collect();
    let sizes: Vec<i64> = calls.iter().map(|call| call["bytes_out"].as_i64().unwrap()).collect();
    let time = Column::new("time".into(), times).cast(&DataType::Datetime(TimeUnit::Nanoseconds, None)).unwrap();
    let columns = vec![
        time,
        Column::new("source".into(), text("source")),
        Column::new("destination".into(), text("destination")),
        Column::new("bytes_out".into(), sizes),
    ];
    write(&at("table.parquet"), columns);
    features(&at("table.parquet"), &at("again.parquet"));
    assert_eq!(rows(&at("again.parquet")), of_lines);
}

#[test]
fn a_table_becomes_a_model_file_that_the_product_reads() {
    let folder = folder("fit");
    let at = |name: &str| folder.join(name);
    log(&at("log.jsonl"));
    let (log, table, model) = (at("log.jsonl"), at("features.parquet"), at("peers.model"));
    lab([OsStr::new("features"), log.as_os_str(), "--out".as_ref(), table.as_os_str()]);
    let fit = |out: &Path| lab([OsStr::new("fit"), table.as_os_str(), "--out".as_ref(), out.as_os_str()]);
    let done = fit(&model);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let fitted = Model::read(&model).unwrap();
    assert_eq!((fitted.identities, fitted.windows), (12, 216));
    assert!(fitted.peers.groups.len() > 2, "two kinds are told apart: {}", said(&done));
    assert_eq!(fitted.prior.iter().map(|(_, count)| count).sum::<u32>(), 216);
    // Dice have a fixed seed.
    fit(&at("again.model"));
    assert_eq!(fs::read(at("again.model")).unwrap(), fs::read(&model).unwrap());
}

#[test]
fn what_is_no_table_or_too_short_a_history_is_refused_with_the_way_on() {
    let table = folder("no-table").join("features.parquet");
    let fit = || lab([OsStr::new("fit"), table.as_os_str()]);
    fs::write(&table, "no parquet").unwrap();
    assert!(complaint(&fit()).contains("`lab features` writes it"));
    write(&table, vec![Column::new("identity".into(), vec!["a"])]);
    assert!(complaint(&fit()).contains("no column `calls`"));
    let names = ["calls", "failed", "refused", "bytes", "sized", "lasted_ms", "timed", "peers", "operations"];
    let mut columns = vec![Column::new("identity".into(), vec!["a"])];
    columns.extend(names.map(|name| Column::new(name.into(), vec![1.0])));
    write(&table, columns);
    assert!(complaint(&fit()).contains("peers need 8 identities"));
}

#[test]
fn what_is_no_history_is_refused_with_the_way_on() {
    let folder = folder("no-history");
    let input = folder.join("input.parquet");
    let features = |input: &Path| lab([OsStr::new("features"), input.as_os_str()]);
    fs::write(&input, "no parquet").unwrap();
    assert!(complaint(&features(&input)).contains("input.parquet"));
    write(&input, vec![Column::new("source".into(), vec!["a"])]);
    assert!(complaint(&features(&input)).contains("needs the columns `time` and `source`"));
    write(&input, vec![Column::new("source".into(), vec!["a"]), Column::new("time".into(), vec!["noon"])]);
    assert!(complaint(&features(&input)).contains("must be a timestamp"));
    let lines = folder.join("lines.jsonl");
    fs::write(&lines, "{\"who\":\"a\"}\n").unwrap();
    assert!(complaint(&features(&lines)).contains("no calls in it"));
}
