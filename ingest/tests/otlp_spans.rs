//! Spans as the collector's Kafka exporter writes them by itself: the same events from Protobuf as from JSON.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use opentelemetry_proto::tonic::collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest};
use proptest::prelude::*;
use prost::Message as _;
use qualm_ingest::{
    envelope::Envelope,
    parse::{Format, Parser},
    source::Rejection,
};
use qualm_model::event::{EventBuilder, Position};
use serde_json::Value;

/// What a record becomes: its events, why it became none, and why parts of it did not.
#[derive(Debug, PartialEq)]
struct Became {
    events: String,
    outcome: Result<(), Rejection>,
    refused: Vec<Rejection>,
}

fn became(format: Format, envelope: Envelope, record: &[u8]) -> Became {
    let mut parser = Parser::for_format(format, None).unwrap().with_envelope(envelope);
    let mut builder = EventBuilder::new();
    let outcome = parser.parse(record, Position::default(), &mut builder);
    let refused = parser.refused().to_vec();
    Became { events: format!("{:?}", builder.finish().as_record_batch()), outcome, refused }
}

/// The sample's exports, each as JSON and as Protobuf.
static EXPORTS: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let export = |line: &'static str| {
        let mut export: Value = serde_json::from_str(line).ok().filter(|export: &Value| export.is_object())?;
        complete(&mut export);
        let request: ExportTraceServiceRequest = serde_json::from_value(export).ok()?;
        (!request.resource_spans.is_empty()).then(|| (line, request.encode_to_vec()))
    };
    let exports: Vec<_> = Format::OtlpSpans.sample().lines().filter_map(export).collect();
    assert!(exports.len() >= 2, "the sample has exports in it");
    exports
});

/// Writes out what may be left out in OTLP's JSON and may not in this reader of it.
fn complete(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(complete),
        Value::Object(keys) => {
            if let Some(status) = keys.get_mut("status").and_then(Value::as_object_mut) {
                status.entry("message").or_insert_with(|| "".into());
                status.entry("code").or_insert_with(|| 0.into());
            }
            if let Some(whole) = keys.get_mut("intValue").filter(|whole| whole.is_number()) {
                *whole = whole.to_string().into();
            }
            if let Some(kind) = keys.get_mut("kind").filter(|kind| kind.is_string()) {
                *kind = if kind == "SPAN_KIND_SERVER" { 2 } else { 3 }.into();
            }
            keys.values_mut().for_each(complete);
        }
        _ => {}
    }
}

#[test]
fn an_export_is_the_same_events_in_protobuf_and_in_json() {
    for (json, protobuf) in EXPORTS.iter() {
        for format in [Format::OtlpSpans, Format::Auto] {
            let expected = became(format, Envelope::Auto, json.as_bytes());
            assert_eq!(became(format, Envelope::Auto, protobuf), expected, "{format}: {json}");
        }
    }
    let has_events = |(_, protobuf): &(&str, Vec<u8>)| became(Format::Auto, Envelope::Auto, protobuf).outcome.is_ok();
    assert!(EXPORTS.iter().any(has_events));
}

#[test]
fn spans_are_no_logs_and_logs_are_no_spans() {
    for (_, protobuf) in EXPORTS.iter() {
        assert!(ExportLogsServiceRequest::decode(protobuf.as_slice()).is_err());
    }
}

#[test]
fn an_export_that_is_cut_off_has_no_event_that_the_whole_has_not() {
    for (_, protobuf) in EXPORTS.iter() {
        let whole = became(Format::OtlpSpans, Envelope::Auto, protobuf);
        for end in 0..protobuf.len() {
            let cut = became(Format::OtlpSpans, Envelope::Auto, &protobuf[..end]);
            assert!(cut.outcome.is_err() || cut.events.len() <= whole.events.len(), "{end} bytes");
        }
    }
}

proptest! {
    #[test]
    fn a_wound_is_counted_and_never_fatal(which in 0_usize..64, at in 0_usize..100_000, to: u8) {
        let mut protobuf = EXPORTS[which % EXPORTS.len()].1.clone();
        let at = at % protobuf.len();
        protobuf[at] = to;
        became(Format::Auto, Envelope::Auto, &protobuf);
    }
}
