//! A thousand secrets in the logs, none in anything that Qualm writes: topics, alerts, dead letters, snapshot, journal,
//! log, metrics, answers of commands.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use support::{
    discovery::now,
    kafka::Kafka,
    parts::{Part, present},
    ports,
    qualm::Qualm,
    wait::{PATIENCE, until_true},
};

const SECRETS: usize = 1000;
const SERVICES: usize = 8;
const LINES: usize = 40_000;
const BEAT_MS: i64 = 3_000;

/// Numbers that look random, from numbers that do not.
fn mixed(number: usize, salt: usize) -> u64 {
    let mut x = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (salt as u64).wrapping_mul(0xD1B5_4A32_D192_ED03);
    x ^= x >> 31;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 29)
}

fn letters(number: usize, alphabet: &[u8], count: usize) -> String {
    (0..count).map(|place| alphabet[(mixed(number, place + 7) as usize) % alphabet.len()] as char).collect()
}

/// A payment card's number with its check digit.
fn card(number: usize) -> String {
    let digits = format!("4{}", letters(number, b"0123456789", 14));
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0') * if place % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

/// A secret, and a line's members that hold it.
fn planted(number: usize) -> (String, serde_json::Value) {
    const ANY: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const HEX: &[u8] = b"0123456789abcdef";
    let secret = match number % 8 {
        0 => format!("eyJhbGciOiJIUzI1NiJ9.{}.{}", letters(number, ANY, 60), letters(number + 1, ANY, 43)),
        1 => format!("ghp_{}", letters(number, ANY, 36)),
        2 => format!("AKIA{}", letters(number, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)),
        3 => format!("jane.{}@customers.example", letters(number, b"abcdefghijklmnopqrstuvwxyz", 9)),
        4 => card(number),
        5 => format!("sk_live_{}", letters(number, ANY, 24)),
        6 => letters(number, HEX, 40),
        _ => format!("hvs.{}", letters(number, ANY, 24)),
    };
    let members = match number / 8 % 5 {
        0 => json!({ "path": format!("/v1/reset/{secret}") }),
        1 => json!({ "path": format!("/v1/login?token={secret}&next=/") }),
        2 => json!({ "path": format!("/v1/users/{secret}/orders?q={secret}") }),
        3 => json!({ "path": "/v1/orders", "authorization": format!("Bearer {secret}"), "cookie": secret }),
        _ => json!({ "path": format!("/v1/items;session={secret}"), "user_agent": format!("curl {secret}") }),
    };
    (secret, members)
}

/// Envoy's lines of a day and a half, with a thousand secrets in them: in usual calls, in those of one service that calls
/// everybody towards the end, and in lines that cannot be read.
fn lines(end_ms: i64) -> (Vec<String>, Vec<String>) {
    let mut secrets = Vec::new();
    let every = LINES / SECRETS;
    let line = |number: usize| {
        let is_odd = number > LINES - 1000 && number.is_multiple_of(3);
        let source = if is_odd { 5 } else { mixed(number, 1) as usize % SERVICES };
        let peers = if is_odd || mixed(number, 6).is_multiple_of(500) { SERVICES - 1 } else { 3 };
        let destination = (source + 1 + mixed(number, 2) as usize % peers) % SERVICES;
        let start = end_ms - (LINES - number) as i64 * BEAT_MS;
        let start = jiff::Timestamp::from_millisecond(start).unwrap().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let mut line = json!({
            "start_time": start, "duration": 3, "method": "GET", "path": format!("/v1/items/{}", number % 5),
            "protocol": "HTTP/1.1", "response_code": 200, "bytes_received": 10, "bytes_sent": 300,
            "request_id": format!("request-{number}"), "upstream_cluster": "inbound|8080||",
            "downstream_remote_address": format!("10.0.0.{source}:32830"), "x_forwarded_for": null,
            "downstream_local_address": format!("10.0.1.{destination}:8080"),
            "downstream_peer_uri_san": format!("spiffe://mesh.test/ns/shop/sa/s{source}"),
            "downstream_local_uri_san": format!("spiffe://mesh.test/ns/shop/sa/s{destination}"),
        });
        if number.is_multiple_of(every) {
            let (secret, members) = planted(number / every);
            line.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            secrets.push(secret);
        }
        let text = line.to_string();
        let is_cut = number.is_multiple_of(every * 10);
        if is_cut { text[..text.len() - 2].to_owned() } else { text }
    };
    ((0..LINES).map(line).collect(), secrets)
}

fn qualm(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_qualm")).args(arguments).current_dir(folder).output().unwrap();
    [output.stdout, output.stderr].concat()
}

/// Every file under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_thousand_planted_secrets_are_in_nothing_that_is_written() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(folder.path());
    for topic in ["mesh", "letters", "alerts"] {
        kafka.create_topic(topic, 1);
    }
    let (lines, secrets) = lines(now().0 / 1_000_000);
    assert_eq!(secrets.len(), SECRETS);
    let input = folder.path().join("mesh.log");
    fs::write(&input, lines.join("\n")).unwrap();
    kafka.produce("mesh", Some(0), lines.iter().map(|line| ("k", line.as_bytes())));
    let http = ports::free();
    let config = format!(
        "[[kafka]]\nbrokers = \"{brokers}\"\ntopics = [{{ name = \"mesh\", format = \"istio_json\" }}]\n\
         dead_letter_topic = \"letters\"\ndead_letters_per_minute = 1000\n\
         [alerts]\nstdout = true\n[alerts.kafka]\nbrokers = \"{brokers}\"\ntopic = \"alerts\"\n\
         [log]\nlevel = \"debug\"\n[state]\nsnapshot_every = \"1s\"\n[observe]\naddress = \"127.0.0.1:{http}\"\n",
        brokers = kafka.bootstrap(),
    );
    let mut qualm_run = Qualm::launch(folder.path(), &config, http);
    let judged = || qualm_run.metric("qualm_events_scored_total").unwrap_or(0.0) as usize;
    until_true("all that can be read is judged", PATIENCE, || judged() == LINES - SECRETS / 10);
    qualm_run.wait_until_next_snapshot();

    let mut written: Vec<(String, Vec<u8>)> = vec![
        ("metrics".to_owned(), qualm_run.page("/metrics").unwrap().body.into_bytes()),
        ("log".to_owned(), qualm_run.output().into_bytes()),
        ("dead letters".to_owned(), kafka.records("letters").concat()),
        ("alerts".to_owned(), kafka.records("alerts").concat()),
    ];
    qualm_run.stop();
    let place = folder.path();
    written.push(("explain".to_owned(), qualm(&place.join("qualm"), &["explain", "spiffe://mesh.test/ns/shop/sa/s5"])));
    written.push(("look".to_owned(), qualm(place, &["look", "mesh.log", "--write", "-"])));
    written.push(("look --json".to_owned(), qualm(place, &["look", "mesh.log", "--json"])));
    written.push((
        "backtest".to_owned(),
        qualm(place, &["backtest", "mesh.log", "--format", "istio_json", "--scores", "--out", "out"]),
    ));
    for file in [files(&place.join("qualm")), files(&place.join("out"))].concat() {
        written.push((file.display().to_string(), fs::read(&file).unwrap()));
    }
    let told = |name: &str| written.iter().find(|(known, _)| known.ends_with(name)).map_or(0, |(_, text)| text.len());
    for name in ["metrics", "log", "dead letters", "snapshot.redb", "alerts.jsonl", "look", "explain"] {
        assert!(told(name) > 100, "{name} holds nothing, so that nothing is shown");
    }
    for (name, text) in &written {
        let found: Vec<&String> =
            secrets.iter().filter(|secret| memchr::memmem::find(text, secret.as_bytes()).is_some()).collect();
        assert!(found.is_empty(), "{name} tells {} secrets, the first {:?}", found.len(), found[0]);
    }
}
