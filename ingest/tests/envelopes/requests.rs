//! OTLP requests, which hold several records.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::LogRecord,
};
use qualm_ingest::{
    parse::Format,
    source::{Invalid, Rejection},
};
use qualm_model::event::{EventBuilder, Position};
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

/// A resource's records, as a collector batches them: the keys of the resource first, or last.
fn batch(pod: &str, lines: &[&str], is_resource_first: bool) -> String {
    let records: Vec<_> =
        lines.iter().map(|line| json!({"timeUnixNano": "1", "body": {"stringValue": line}})).collect();
    let resource = json!({"attributes": [{"key": "k8s.pod.name", "value": {"stringValue": pod}}]});
    let scopes = json!([{"scope": {"name": "x"}, "logRecords": records}, {"logRecords": []}]);
    if is_resource_first {
        format!(r#"{{"resource":{resource},"scopeLogs":{scopes},"schemaUrl":""}}"#)
    } else {
        format!(r#"{{"scopeLogs":{scopes},"schemaUrl":"","resource":{resource}}}"#)
    }
}

/// The pods that the events of a record name as the called's, in their order; the same when its resources are known.
fn pods(record: &str) -> Vec<String> {
    let (mut parser, mut builder) = (parser(Format::IstioJson), EventBuilder::new());
    let [first, again] = [(); 2].map(|()| {
        parser.parse(record.as_bytes(), Position::default(), &mut builder).unwrap();
        let batch = builder.finish();
        batch.events().map(|event| event.destination().instance().to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(first, again, "{record}");
    first
}

#[test]
fn every_record_of_a_request_in_json_is_of_its_own_resource() {
    let line = inbound();
    let plain = outcome_of(&mut parser(Format::IstioJson), line.as_bytes()).unwrap();
    for is_first in [true, false] {
        let batches = [
            batch("cart-1", &[&line, &line], is_first),
            batch("mail-1", &[], is_first),
            batch("stock-1", &[&line], is_first),
        ];
        let record = format!(r#"{{"resourceLogs":[{},{{}},7]}}"#, batches.join(","));
        assert_eq!(pods(&record), ["cart-1", "cart-1", "stock-1"], "{record}");
        let found = outcome_of(&mut parser(Format::IstioJson), record.as_bytes()).unwrap();
        assert_eq!(found, [&plain[..], &plain[..], &plain[..]].concat());
    }
}

#[test]
fn an_attribute_behind_a_line_says_where_it_was_written_as_one_before_it_does() {
    let line = json!(inbound());
    let attributes = r#""attributes":[{"key":"k8s.pod.name","value":{"stringValue":"cart-1"}}]"#;
    let body = format!(r#""body":{{"stringValue":{line},"x":[]}}"#);
    for record in [format!("{{{attributes},{body}}}"), format!("{{{body},{attributes}}}")] {
        let request = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record},{record}]}}]}}]}}"#);
        assert_eq!(pods(&request), ["cart-1", "cart-1"], "{request}");
    }
}

#[test]
fn a_resource_that_names_its_file_alone_is_read_each_time() {
    let line = json!(inbound());
    let path = format!("/var/log/containers/cart-1_shop_istio-proxy-{}.log", "0123456789abcdef".repeat(4));
    let resource = format!(r#"{{"attributes":[{{"key":"log.file.path","value":{{"stringValue":"{path}"}}}}]}}"#);
    let record = format!(r#"{{"body":{{"stringValue":{line}}}}}"#);
    let request =
        format!(r#"{{"resourceLogs":[{{"resource":{resource},"scopeLogs":[{{"logRecords":[{record},{record}]}}]}}]}}"#);
    assert_eq!(pods(&request), ["cart-1", "cart-1"]);
}

#[test]
fn of_a_request_that_is_cut_off_the_records_before_are_read_and_the_rest_counts_as_one_that_is_invalid() {
    let line = inbound();
    let plain = outcome_of(&mut parser(Format::IstioJson), line.as_bytes()).unwrap();
    let record = format!(r#"{{"resourceLogs":[{}]}}"#, batch("cart-1", &[&line, "listening", &line], true));
    let whole = outcome_of(&mut parser(Format::IstioJson), record.as_bytes()).unwrap();
    assert_eq!(whole, [plain[0].as_str(), &plain[0], "Foreign"]);
    for end in 1..record.len() {
        let outcome = outcome_of(&mut parser(Format::IstioJson), &record.as_bytes()[..end]);
        let Ok(found) = outcome else {
            assert_eq!(outcome, Err(Invalid::Syntax.into()), "cut at {end}");
            continue;
        };
        let events = found.iter().filter(|found| **found == plain[0]).count();
        assert!((1..=2).contains(&events) && found.last().unwrap() == "Invalid(Syntax)", "cut at {end}: {found:?}");
        assert!(found[events..].len() <= 2, "cut at {end}: {found:?}");
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
