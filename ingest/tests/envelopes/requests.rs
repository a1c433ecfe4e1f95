//! OTLP requests, which hold several records.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::LogRecord,
};
use qualm_ingest::{
    parse::Format,
    source::{Invalid, Rejection},
};
use serde_json::json;

use crate::{
    outcome::{inbound, outcome_of, own_end, parser},
    shippers::{body, request, text},
};

#[test]
fn log_records_of_one_request_are_events_of_one_position() {
    let log = |text: &str| LogRecord { body: Some(body(text)), ..LogRecord::default() };
    let record = request(vec![log(&inbound()), log("listening"), log(&inbound()[..50]), log(&inbound())]);
    let found = outcome_of(&mut parser(Format::IstioJson), &record).unwrap();
    assert_eq!(found.len(), 4);
    assert_eq!(found[2..], ["Foreign", "Invalid(Syntax)"]);
}

#[test]
fn a_request_in_json_is_read_whatever_its_order_and_refused_where_it_is_broken() {
    let line = json!(inbound()).to_string();
    let places = r#""resource":{"attributes":[{"value":{"stringValue":"orders-1"},"key":"k8s.pod.name"},{"key":"n","value":{"arrayValue":{"values":[{"intValue":"1"}]}}}]}"#;
    let logs = format!(
        r#""scope_logs":[{{"log_records":[{{"body":{{"string_value":{line}}},"time_unix_nano":1795312945000000000,"traceId":[]}}]}}]"#
    );
    let plain = outcome_of(&mut parser(Format::IstioJson), inbound().as_bytes());
    for (first, second) in [(places, logs.as_str()), (logs.as_str(), places)] {
        let record = format!(r#" {{ "resource_logs" : [ {{{first} , {second}}} ] , "x":[1,{{}}]}} "#);
        assert_eq!(outcome_of(&mut parser(Format::IstioJson), record.as_bytes()), plain, "{record}");
        assert_eq!(own_end(record.as_bytes())[1], "orders-1");
    }
    for (broken, why) in [
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"x"}}]}]}]}"#, true),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"\q"}}]}]}]}"#, true),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"{\"a\q"}}]}]}]}"#, true),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[]}]},]}"#, true),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":5}]}]}]}"#, false),
        (r#"{"resourceLogs":{"a":1}}"#, false),
    ] {
        let expected = if why { Err(Invalid::Syntax.into()) } else { Err(Rejection::Foreign) };
        assert_eq!(outcome_of(&mut parser(Format::IstioJson), broken.as_bytes()), expected, "{broken}");
    }
}

#[test]
fn attributes_and_bodies_of_entries_are_read_as_their_json() {
    let entry = |key: &str, value: Any| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let attributes = vec![
        text("method", "GET"),
        text("path", "/v1/orders/42"),
        entry("response_code", Any::IntValue(200)),
        text("downstream_remote_address", "10.0.0.7:1"),
    ];
    let record =
        LogRecord { time_unix_nano: 1_795_312_944_122_000_000, attributes: attributes.clone(), ..LogRecord::default() };
    let kvlist = Any::KvlistValue(opentelemetry_proto::tonic::common::v1::KeyValueList { values: attributes });
    let listed = LogRecord { attributes: vec![], body: Some(AnyValue { value: Some(kvlist) }), ..record.clone() };
    for record in [record, listed] {
        let found = outcome_of(&mut parser(Format::IstioJson), &request(vec![record])).unwrap();
        assert!(
            found[0].contains("operation=GET /v1/orders/{id}") && found[0].contains("2026-11-22T02:02:24.122"),
            "{found:?}"
        );
    }
}
