//! The ready mappings under `datasets/mappings`, on the data sets they are for.
//!
//! Needs `../shared/data` beside the repository. Skipped with a message where it is missing; an error under
//! `QUALM_REQUIRE_DATA=1`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use qualm_ingest::{
    config::read_mapping,
    counters::reason,
    file::FileReader,
    parse::{Format, Parser},
};
use qualm_model::{event::Kind, identity::Provenance};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The file of a data set, `None` where the data are not there.
fn data(file: &str) -> Option<PathBuf> {
    let path = root().join("../shared/data").join(file);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("QUALM_REQUIRE_DATA").is_ok_and(|value| value == "1");
    assert!(!required, "{} is missing and QUALM_REQUIRE_DATA=1", path.display());
    eprintln!("SKIPPED: {} is missing", path.display());
    None
}

#[derive(Debug, Default)]
struct Read {
    rows: i64,
    events: i64,
    rejected: BTreeMap<&'static str, i64>,
    without_destination: i64,
    kinds: Vec<Kind>,
    first: Option<(i64, String, String, String)>,
}

fn read(mapping: &str, path: PathBuf) -> Read {
    let mapping = read_mapping(&root().join("datasets/mappings").join(mapping)).unwrap();
    let parser = Parser::for_format(Format::Mapped, Some(mapping)).unwrap();
    let mut reader = FileReader::new(vec![path], parser, 0);
    let mut read = Read::default();
    while let Some(batch) = reader.next_batch().unwrap() {
        for event in batch.events.events() {
            let (source, destination) = (event.source(), event.destination());
            read.events += 1;
            read.without_destination += i64::from(destination.principal().is_empty());
            assert_eq!(source.provenance(), Provenance::Declared);
            if !read.kinds.contains(&event.kind()) {
                read.kinds.push(event.kind());
            }
            read.first.get_or_insert_with(|| {
                let [source, destination] = [source, destination].map(|party| party.principal().to_owned());
                (event.start().0, source, destination, event.operation().to_owned())
            });
        }
        for rejected in &batch.rejected {
            *read.rejected.entry(reason(rejected.why)).or_default() += 1;
        }
    }
    read.rows = reader.rows();
    assert_eq!(read.rows, read.events + read.rejected.values().sum::<i64>());
    read
}

fn first(time: i64, source: &str, destination: &str, operation: &str) -> Option<(i64, String, String, String)> {
    Some((time, source.to_owned(), destination.to_owned(), operation.to_owned()))
}

#[test]
fn data_darpa_edges_are_connections_and_ten_impossible_dates_are_invalid() {
    let Some(path) = data("darpa-edges/darpa_original.csv.zst") else { return };
    let read = read("darpa-edges.toml", path);
    assert_eq!((read.rows, read.kinds), (4_554_344, vec![Kind::Connection]));
    assert_eq!(read.rejected, BTreeMap::from([("impossible_time", 10)]));
    assert_eq!(read.first, first(896_687_700_000_000_000, "172.016.112.020", "192.168.001.010", ""));
}

#[test]
fn data_ait_alerts_are_what_a_host_did() {
    let mut rows = 0;
    for name in ["fox", "russellmitchell", "shaw", "wardbeck"] {
        let Some(path) = data(&format!("ait-alerts/{name}_alerts.csv.zst")) else { return };
        let read = read("ait-alerts.toml", path);
        assert_eq!(read.rejected, BTreeMap::new(), "{name}");
        if name == "fox" {
            assert_eq!(read.first, first(1_642_213_952_000_000_000, "mail", "", "Wazuh: ClamAV database update"));
        }
        rows += read.rows;
    }
    assert_eq!(rows, 680_687);
}

#[test]
fn data_k8s_flows_are_connections() {
    let Some(path) = data("k8s-flows-benign/flows.csv.zst") else { return };
    let read = read("k8s-flows-benign.toml", path);
    assert_eq!((read.rows, read.rejected), (10_989, BTreeMap::new()));
    assert_eq!(read.first, first(1_645_791_570_013_000_000, "53.255.61.238", "190.215.9.28", "tcp"));
}

#[test]
fn data_trainticket_calls_are_requests() {
    let Some(path) = data("nezha-trainticket/trainticket_edges.csv.zst") else { return };
    let read = read("nezha-trainticket.toml", path);
    assert_eq!((read.rows, read.rejected, read.kinds), (88_882, BTreeMap::new(), vec![Kind::Request]));
    assert_eq!(read.first, first(1_674_981_729_479_000_000, "external", "ts-gateway-service", "/*"));
    assert_eq!(read.without_destination, 0);
}

#[test]
fn data_iot23_conn_log_is_read_by_column_numbers() {
    let Some(path) = data("iot23-zeek/conn.log.labeled.zst") else { return };
    let read = read("iot23-zeek.toml", path);
    assert_eq!((read.rows, read.rejected), (23_145, BTreeMap::new()));
    assert_eq!(read.first, first(1_545_403_816_962_094_000, "192.168.1.195", "185.244.25.235", "tcp"));
}

#[test]
fn data_stratosphere_conn_logs_are_read_by_column_numbers() {
    let Some(path) = data("stratosphere-zeek/zeek.tar.zst") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut unpack = std::process::Command::new("tar");
    unpack.arg("--zstd").arg("-xf").arg(&path).arg("-C").arg(folder.path());
    assert!(unpack.status().unwrap().success(), "tar with zstd is needed to unpack {}", path.display());
    let mut rows = 0;
    for name in [
        "001-zeek-scenario-malicious/labeled-conn.log",
        "002-zeek-scenario-port-scanning/conn.log",
        "003-zeek-scenario-malicious/conn.log",
        "005-zeek-scenario-malicious/conn.log",
        "008-zeek-mixed/data/conn.log.labeled",
        "011-zeek-mixed/data/conn.log.labeled",
    ] {
        let mapping = if name.starts_with("002") { "stratosphere-zeek-json.toml" } else { "stratosphere-zeek.toml" };
        let read = read(mapping, folder.path().join(name));
        assert_eq!(read.rejected, BTreeMap::new(), "{name}");
        assert!(read.rows > 0, "{name}");
        rows += read.rows;
    }
    assert!(rows > 16_064, "{rows}");
}

#[test]
fn data_lanl_red_team_logins_are_authentications_by_second_of_the_collection() {
    let Some(path) = data("extras/lanl_redteam.txt.gz") else { return };
    let read = read("lanl-redteam.toml", path);
    assert_eq!((read.rows, read.rejected, read.kinds), (749, BTreeMap::new(), vec![Kind::Authentication]));
    assert_eq!(read.first, first(150_885_000_000_000, "U620@DOM1", "C1003", ""));
}

#[test]
fn data_zeeks_ssh_log_is_logins() {
    let Some(path) = data("ssh-auth/stratosphere_007_zeek_ssh.log.zst") else { return };
    let read = read("ssh-zeek.toml", path);
    assert_eq!((read.rows, read.rejected, read.kinds), (8_528, BTreeMap::new(), vec![Kind::Authentication]));
    assert_eq!(
        read.first.map(|(_, source, destination, _)| (source, destination)),
        Some(("63.143.42.242".to_owned(), "192.168.1.194".to_owned()))
    );
}
