//! `qualm backtest` as it is used: its own binary, its files.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

#[path = "backtest/figures.rs"]
mod figures;
#[path = "backtest/made_up.rs"]
mod made_up;
#[path = "../scorer/tests/mesh/mod.rs"]
mod mesh;
#[path = "backtest/offline.rs"]
mod offline;
#[path = "backtest/output.rs"]
mod output;
#[path = "backtest/public_sets.rs"]
mod public_sets;
#[path = "../scorer/tests/shared/mod.rs"]
mod shared;
#[path = "backtest/workloads.rs"]
mod workloads;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use qualm_datasets::{AccessLog, Attack, AttackKind, MeshConfig, Millis, Scenario, Traffic, write_labels};
use serde_json::Value;
use tempfile::TempDir;

use self::{
    made_up::{MAPPING, SCAN, SCANNER},
    output::{Backtest, backtest, qualm},
};

/// The made-up log on disk.
struct Log {
    folder: TempDir,
    mapping: PathBuf,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mapping = folder.path().join("mapping.toml");
        fs::write(&mapping, MAPPING).unwrap();
        Self { folder, mapping }
    }

    fn file(&self, name: &str, lines: &[String]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        path
    }

    fn backtest(&self, inputs: &[&Path], options: &[&str]) -> Backtest {
        let mapping = ["--mapping", self.mapping.to_str().unwrap()];
        backtest(inputs, &[&mapping, options].concat())
    }
}

#[test]
fn the_order_of_lines_and_files_does_not_matter() {
    let (log, lines) = (Log::new(), made_up::lines());
    let sorted = log.backtest(&[&log.file("sorted.csv", &lines)], &[]);
    let scores = sorted.scores();
    assert!(!sorted.entries().is_empty(), "nothing was flagged: {}", sorted.stdout);

    let (first, second) = lines.split_at(12_345);
    let split = log.backtest(&[&log.file("1.csv", first), &log.file("2.csv", second)], &[]);
    assert_eq!(split.scores(), scores);

    let places = made_up::shuffled(lines.len());
    let shuffled: Vec<String> = places.iter().map(|&place| lines[place].clone()).collect();
    let shuffled = log.backtest(&[&log.file("shuffled.csv", &shuffled)], &[]);
    for (row, &place) in shuffled.scores().iter().zip(&places) {
        assert_eq!(*row, scores[place]);
    }
    for file in ["trust.jsonl", "alerts.jsonl"] {
        assert_eq!(wherever_it_stands(&split.text(file)), wherever_it_stands(&sorted.text(file)));
        assert_eq!(wherever_it_stands(&shuffled.text(file)), wherever_it_stands(&sorted.text(file)));
    }
}

/// JSON lines without the places of the records that carried what is told: these are other ones in another file.
fn wherever_it_stands(lines: &str) -> Vec<Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("carried_by");
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let parsed = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
    parsed
        .map(|mut value| {
            strip(&mut value);
            value
        })
        .collect()
}

#[test]
fn every_record_is_one_row_and_what_is_no_record_is_none() {
    let log = Log::new();
    let mut lines = made_up::lines();
    lines.truncate(2_000);
    lines[0] = "not a time,svc-1,svc-2,GET /,1".to_owned();
    lines[700] = "1767571200000".to_owned();
    lines[1_999] = "1767571200000,,svc-2,GET /,1".to_owned();
    let records = lines.clone();
    for at in [1_500, 900, 1] {
        lines.insert(at, "# no record".to_owned());
        lines.insert(at, String::new());
    }
    let backtest = log.backtest(&[&log.file("log.csv", &lines)], &[]);
    let scores = backtest.scores();
    assert_eq!(scores.len(), records.len());
    for (row, record) in scores.iter().zip(&records) {
        let fields: Vec<&str> = record.split(',').collect();
        if &*row.detector == "invalid" {
            assert_eq!((row.time, row.score_bits, &row.source), (None, None, &None));
            continue;
        }
        let [time, source, destination, ..] = fields[..] else { panic!("{record}") };
        assert_eq!(row.time, time.parse::<i64>().ok().map(|millis| millis * 1_000_000));
        assert_eq!((row.source.as_deref(), row.destination.as_deref()), (Some(source), Some(destination)));
        assert!(row.score_bits.is_some());
    }
    let invalid: Vec<usize> = (0..scores.len()).filter(|&row| &*scores[row].detector == "invalid").collect();
    assert_eq!(invalid, [0, 700, 1_999]);
    let report = backtest.report();
    assert_eq!((&report["records"], &report["scored"]), (&2_000.into(), &1_997.into()));
    let rejected: u64 = report["rejected"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(rejected, 3);
    assert!(backtest.stdout.starts_with("2000 records"), "{}", backtest.stdout);
}

#[test]
fn labels_are_found_or_missed_and_every_other_entry_is_false() {
    let log = Log::new();
    let time = |millis: i64| jiff::Timestamp::from_millisecond(millis).unwrap();
    let labels: Vec<String> = [(SCANNER, SCAN, "scan"), ("svc-19", SCAN, "scan"), (SCANNER, made_up::BEGIN, "early")]
        .iter()
        .map(|(identity, start, kind)| {
            let (start, end) = (time(*start), time(start + 480_000));
            format!(r#"{{"start":"{start}","end":"{end}","kind":"{kind}","identities":["{identity}"]}}"#)
        })
        .collect();
    let labels = log.file("labels.jsonl", &labels);
    let input = log.file("log.csv", &made_up::lines());
    let backtest = log.backtest(&[&input], &["--labels", labels.to_str().unwrap()]);

    let within = |entry: &Value| {
        let at: jiff::Timestamp = entry["time"].as_str().unwrap().parse().unwrap();
        let delay = at.as_millisecond() - SCAN;
        (entry["identity"] == SCANNER && (0..=480_000 + 300_000).contains(&delay)).then_some(delay as f64 / 1000.0)
    };
    let entries = backtest.entries();
    let first = entries.iter().find_map(within).expect("the scan is found");
    let outside = entries.iter().filter(|entry| within(entry).is_none()).count();

    let evaluation = &backtest.report()["labels"];
    assert_eq!([&evaluation["labels"], &evaluation["found"], &evaluation["missed"]], [3, 1, 2]);
    assert_eq!(evaluation["false_entries"]["watched"], outside);
    let scan = &evaluation["by_kind"]["scan"];
    assert_eq!([&scan["labels"], &scan["found"]], [2, 1]);
    assert!((scan["delay_median_s"].as_f64().unwrap() - first).abs() < 1e-3);
    assert_eq!(evaluation["each"][1]["found"], false);
    assert_eq!(evaluation["by_kind"]["early"]["delay_p90_s"], Value::Null);
}

#[test]
fn attacks_in_a_generated_mesh_are_found_with_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let start = Millis::from_seconds(1_767_571_200);
    let config = MeshConfig { seed: 7, services: 30, calls_per_second: 1.0 };
    let mut scenario = Scenario::quiet(config, start, 2.0).unwrap();
    let attacks = [AttackKind::LateralMove, AttackKind::PeerScan, AttackKind::DataPull, AttackKind::StolenIdentity];
    for (number, kind) in attacks.into_iter().enumerate() {
        let hours = 36 + 2 * number as i64;
        scenario.attack(Attack::new(kind, Millis::from_seconds(1_767_571_200 + hours * 3600)).intensity(4.0));
    }
    let [input, labels] = ["events.jsonl", "labels.jsonl"].map(|name| folder.path().join(name));
    write_labels(scenario.attacks(), fs::File::create(&labels).unwrap()).unwrap();
    let scenario = Arc::new(scenario);
    let (log, mut text) = (AccessLog::new(scenario.mesh()), Vec::new());
    for call in Traffic::new(Arc::clone(&scenario)) {
        log.push_inbound(&call, &mut text);
        text.push(b'\n');
    }
    fs::write(&input, &text).unwrap();

    let backtest = backtest(&[&input], &["--format", "istio_json", "--labels", labels.to_str().unwrap()]);
    assert_eq!(backtest.scores().len(), text.iter().filter(|&&byte| byte == b'\n').count());
    let report = backtest.report();
    assert!(report["labels"]["found"].as_u64().unwrap() >= 2, "{:#}", report["labels"]);
    for entry in backtest.entries() {
        let reasons = entry["reasons"].as_array().unwrap();
        assert!(reasons.iter().all(|reason| reason["bits"].is_f64() && reason["detector"].is_string()));
        assert!(!reasons.is_empty() && entry["evidence_bits"].as_f64() >= entry["threshold_bits"].as_f64(), "{entry}");
        assert!(entry["lease_s"].as_f64().unwrap() > 0.0);
    }
    alerts_tell_whole_episodes(&backtest);
}

/// Each uid is created once, first; what ends in `trusted` is closed.
fn alerts_tell_whole_episodes(backtest: &Backtest) {
    let (mut open, mut known) = (BTreeSet::new(), BTreeSet::new());
    for alert in backtest.lines("alerts.jsonl") {
        assert_eq!(alert["class_uid"], 2004);
        let uid = alert["finding_info"]["uid"].as_str().unwrap().to_owned();
        match alert["activity_id"].as_u64() {
            Some(1) => assert!(known.insert(uid.clone()) && open.insert(uid), "created twice"),
            Some(2) => assert!(open.contains(&uid), "updated before it was created"),
            Some(3) => assert!(open.remove(&uid), "closed before it was created"),
            other => panic!("activity {other:?}"),
        }
    }
    let transitions = backtest.lines("trust.jsonl");
    let closed = transitions.iter().filter(|line| line["level"] == "trusted").count();
    assert_eq!(closed, known.len() - open.len());
    assert!(!known.is_empty());
}

#[test]
fn what_is_wrong_with_the_arguments_is_said_with_its_remedy() {
    let log = Log::new();
    let input = log.file("log.csv", &made_up::lines()[..10]);
    let bad = log.file("labels.jsonl", &[r#"{"start":"2026-01-05T00:00:00Z"}"#.to_owned()]);
    let blocked = input.join("out");
    let [out, read] = ["out", "read"].map(|name| log.folder.path().join(name));
    let (missing, mapping) = (log.folder.path().join("missing.csv"), log.mapping.as_path());
    let [format, with_mapping, labels, to] = ["--format", "--mapping", "--labels", "--out"].map(Path::new);
    let cases: [(&[&Path], &str); 6] = [
        // What it was read as, and that nothing was understood, is known only after it was read.
        (&[&input, to, &read], "qualm formats"),
        (&[&input, format, Path::new("istio_json"), with_mapping, mapping, to, &out], "cannot be used with"),
        (&[&input, format, Path::new("mapped"), to, &out], "--mapping"),
        (&[&missing, with_mapping, mapping, to, &out], "missing.csv"),
        (&[&input, with_mapping, mapping, labels, &bad, to, &out], "line 1"),
        (&[&input, with_mapping, mapping, to, &blocked], "--out"),
    ];
    for (arguments, remedy) in cases {
        let arguments: Vec<&OsStr> = arguments.iter().map(|path| path.as_os_str()).collect();
        let output = qualm(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(remedy), "{remedy}: {said}");
    }
    assert!(!out.exists(), "nothing is written before the arguments are known to be right");
}
