//! What both targets hold of whatever is read: no panic; a record that is refused leaves no events; every event stands
//! at its record's position, has a caller, and is no older in its report than in its start; what comes out is bounded
//! by what went in; and no secret is in what was asked, in why it was refused, or in the sample of a dead letter. Time
//! and memory are bounded by `run`, for an input and so for a record.

use std::{env, sync::LazyLock};

use qualm_ingest::{
    envelope::Envelope,
    parse::{Format, Parser, mapped::Mapping},
};
use qualm_model::{
    event::{Event, EventBuilder, Position},
    fold,
};

/// `seed` puts it where callers write; no event tells it.
const SECRET: &str = "hvs.CAESIJ3Nc8Qw1x0vE7kq5mZt9Lr2Yb6UuFh";
/// No text of an event is longer.
const MAX_TEXT_BYTES: usize = 1024;
/// But who an end is: as long as a SPIFFE ID may be.
const MAX_IDENTITY_BYTES: usize = 2048;

/// The only format that is read, where one is named; else the first byte of an input says it.
static ONLY: LazyLock<Option<Format>> = LazyLock::new(|| {
    let word = env::var("QUALM_FUZZ_FORMAT").ok()?;
    Some(word.parse().expect("QUALM_FUZZ_FORMAT names a format, as `qualm formats` lists them"))
});

static MAPPINGS: LazyLock<Vec<Mapping>> = LazyLock::new(|| {
    MAPPED.iter().map(|text| text.parse().expect("the shipped mappings are sound")).collect()
});

/// One mapping of each layout; the lines of `seeds/mapped.txt` are records of theirs, in this order.
const MAPPED: [&str; 4] = [
    include_str!("../../../datasets/mappings/nginx-combined.toml"),
    include_str!("../../../datasets/mappings/kong.toml"),
    include_str!("../../../datasets/mappings/darpa-edges.toml"),
    include_str!("../../../datasets/mappings/iot23-zeek.toml"),
];

/// The first byte of an input says which format its lines are read as.
fn format_of(first: u8) -> Format {
    Format::ALL[usize::from(first) % Format::ALL.len()]
}

fn parser(first: u8) -> Parser {
    let format = ONLY.unwrap_or_else(|| format_of(first));
    let mapping = (format == Format::Mapped).then(|| MAPPINGS[usize::from(first) % MAPPINGS.len()].clone());
    Parser::for_format(format, mapping).expect("a mapping where one is needed")
}

/// Reads the records of an input, one after the other, with one parser.
pub fn read(input: &[u8], envelope: Envelope) {
    let Some((&first, records)) = input.split_first() else { return };
    let mut parser = parser(first).with_envelope(envelope);
    let mut builder = EventBuilder::new();
    let mut sample = String::new();
    // What is joined of several lines may be told with the last of them.
    let mut bytes = 0;
    for (offset, record) in (0..).zip(records.split(|&byte| byte == b'\n')) {
        bytes += record.len();
        if !parser.is_record(record).unwrap_or(true) {
            continue;
        }
        let position = Position { source: 1, partition: 2, offset };
        let outcome = parser.parse(record, position, &mut builder);
        let batch = builder.finish();
        assert!(outcome.is_ok() || batch.is_empty(), "a refused record left events");
        assert!(batch.len() + parser.refused().len() <= bytes, "more events than bytes");
        for event in batch.events() {
            assert_eq!(event.position(), position);
            hold(event);
        }
        if outcome.is_err() {
            sample.clear();
            fold::append_text(&String::from_utf8_lossy(record), &mut sample);
            assert!(!sample.contains(SECRET), "a sample tells a secret: {sample}");
        }
    }
}

fn hold(event: Event<'_>) {
    assert!(!event.source().principal().is_empty(), "an event of nobody");
    assert!(event.report() >= event.start(), "a report before its call");
    for end in [event.source(), event.destination()] {
        // Namespace and service are parts of who it is.
        for text in [end.principal(), end.namespace(), end.service()] {
            assert!(text.len() <= MAX_IDENTITY_BYTES, "an identity of {} bytes: {text}", text.len());
        }
        for text in [end.cluster(), end.ip(), end.instance()] {
            assert!(text.len() <= MAX_TEXT_BYTES, "{} bytes: {text}", text.len());
        }
    }
    // Its first word is what the log calls an action: no caller writes there.
    let asked = event.operation().split_once(' ').map_or("", |(_, asked)| asked);
    let said = [asked, event.denial_reason()];
    for text in said {
        assert!(!text.contains(SECRET), "an event tells a secret: {text}");
    }
    let named = [event.hostname(), event.record_id(), event.credential(), event.issued(), event.revoked(), event.auth_method(), event.tls_version()];
    for text in said.into_iter().chain(named).chain([event.operation()]) {
        assert!(text.len() <= MAX_TEXT_BYTES, "{} bytes: {text}", text.len());
    }
}
