//! Writes what fuzzing begins with: the sample of every format, bare and in envelopes, into `corpus/`.

use std::{fs, io, path::Path};

use qualm_ingest::parse::Format;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in ["formats", "envelopes"] {
        fs::create_dir_all(corpus.join(target))?;
    }
    let formats = (0..=u8::MAX).map(|first| (first, qualm_ingest_fuzz::format_of(first)));
    for (first, format) in formats.take(Format::ALL.len() - 1) {
        for (row, record) in format.sample().lines().take(4).enumerate() {
            let name = format!("{format}-{row}");
            let input = |record: &str| [&[first], record.as_bytes()].concat();
            fs::write(corpus.join("formats").join(&name), input(record))?;
            for (envelope, wrapped) in wrapped(record) {
                fs::write(corpus.join("envelopes").join(format!("{name}-{envelope}")), input(&wrapped))?;
            }
        }
    }
    Ok(())
}

fn wrapped(record: &str) -> [(&'static str, String); 5] {
    let escaped = record.replace('\\', r"\\").replace('"', r#"\""#).replace('\t', r"\t");
    [
        ("cri", format!("2026-11-22T02:02:25.1Z stdout F {record}")),
        ("syslog", format!("<34>Nov 22 02:02:25 node-3 envoy[812]: {record}")),
        ("docker", format!(r#"{{"log":"{escaped}\n","stream":"stdout","time":"2026-11-22T02:02:25.1Z"}}"#)),
        ("fluent", format!(r#"{{"log":"{escaped}","_p":"F","kubernetes":{{"pod_name":"a-1","namespace_name":"b"}}}}"#)),
        (
            "otlp",
            format!(
                r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"{escaped}"}}}}]}}]}}]}}"#
            ),
        ),
    ]
}
