//! Writes what fuzzing begins with, for each format a folder of its own: its sample, bare (`corpus/formats/`) and in
//! envelopes (`corpus/envelopes/`), once more with a secret wherever callers write, and a dictionary of its words
//! (`corpus/words/`).

use std::{collections::BTreeSet, fs, io, path::Path};

use qualm_ingest::parse::Format;
use qualm_ingest_fuzz::{MAPPED, SECRET, format_of};

/// Records of a sample that are begun with; the others are for the fuzzer to find.
const RECORDS: usize = 12;
/// Words of a dictionary: more of them find less.
const WORDS: usize = 200;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (first, format) in (0..=u8::MAX).map(|first| (first, format_of(first))).take(Format::ALL.len()) {
        let [bare, enveloped] = ["formats", "envelopes"].map(|target| corpus.join(target).join(format.as_str()));
        fs::create_dir_all(&bare)?;
        fs::create_dir_all(&enveloped)?;
        for (row, (first, record)) in records(first, format).into_iter().enumerate() {
            let input = |record: &str| [&[first], record.as_bytes()].concat();
            fs::write(bare.join(format!("seed-{row}")), input(&record))?;
            fs::write(bare.join(format!("seed-{row}-secret")), input(&with_secret(&record)))?;
            for (envelope, wrapped) in wrapped(&record) {
                fs::write(enveloped.join(format!("seed-{row}-{envelope}")), input(&wrapped))?;
            }
        }
        fs::create_dir_all(corpus.join("words"))?;
        fs::write(corpus.join("words").join(format.as_str()), dictionary(format))?;
    }
    Ok(())
}

/// Records of a format, each with the first byte of its input.
fn records(first: u8, format: Format) -> Vec<(u8, String)> {
    match format {
        Format::Mapped => (0..).zip(MAPPED).map(|(first, (_, record))| (first, record.to_owned())).collect(),
        Format::Auto => {
            let samples = Format::ALL.iter().filter_map(|format| format.sample().lines().next());
            samples.map(|record| (first, record.to_owned())).collect()
        }
        named => {
            let lines: Vec<&str> = named.sample().lines().collect();
            let several = lines[..lines.len().min(3)].join("\n");
            let single = lines.iter().take(RECORDS).map(|&line| line.to_owned());
            single.chain([several]).map(|record| (first, record)).collect()
        }
    }
}

/// A record with the secret in its paths.
fn with_secret(record: &str) -> String {
    record.replacen("/v1/", &format!("/{SECRET}/"), 1).replacen('?', &format!("?key={SECRET}&"), 1)
}

fn dictionary(format: Format) -> String {
    let sample: String = match format {
        Format::Mapped => MAPPED.map(|(_, record)| record).join("\n"),
        Format::Auto => String::new(),
        named => named.sample().to_owned(),
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.-:".contains(c);
    let words: BTreeSet<&str> = sample.split(|c| !is_part(c)).filter(|word| word.len() > 2 && word.len() < 40).collect();
    let lines = words.into_iter().chain([SECRET]).take(WORDS).map(|word| format!("\"{word}\"\n"));
    lines.chain([format!("\"{SECRET}\"\n")]).collect()
}

fn wrapped(record: &str) -> [(&'static str, String); 6] {
    let escaped = record.replace('\\', r"\\").replace('"', r#"\""#).replace('\t', r"\t").replace('\n', r"\n");
    [
        ("cri", format!("2026-11-22T02:02:25.1Z stdout F {record}")),
        ("syslog", format!("<34>Nov 22 02:02:25 node-3 envoy[812]: {record}")),
        ("docker", format!(r#"{{"log":"{escaped}\n","stream":"stdout","time":"2026-11-22T02:02:25.1Z"}}"#)),
        ("fluent", format!(r#"{{"log":"{escaped}","_p":"F","kubernetes":{{"pod_name":"a-1","namespace_name":"b"}}}}"#)),
        (
            "filebeat",
            format!(r#"{{"@timestamp":"2026-11-22T02:02:25Z","message":"{escaped}","kubernetes":{{"pod":{{"name":"a-1"}}}}}}"#),
        ),
        (
            "otlp",
            format!(
                r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"{escaped}"}}}}]}}]}}]}}"#
            ),
        ),
    ]
}
