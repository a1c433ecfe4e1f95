//! What Protobuf records become.

use proptest::prelude::*;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::json;

use super::*;

const EVERYTHING: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "confluent/meta.proto";
import "kinds/kind.proto";
message Before { message Inner { string name = 1; } }
message Everything {
  option (confluent.message_meta).doc = "all of it";
  string text = 1;
  optional string maybe = 2;
  int64 whole = 3;
  double real = 4;
  bool yes = 5;
  bytes bytes = 6;
  repeated int32 list = 7;
  map<string, Before.Inner> map = 8;
  kinds.Kind kind = 9;
  google.protobuf.Timestamp at = 10;
  google.protobuf.Duration took = 11;
  google.protobuf.Int64Value wrapped = 12;
  google.protobuf.Struct labels = 13;
  Everything next = 14;
  oneof either { uint64 left = 15; string right = 16; }
}
"#;
const KIND: &str = "syntax = \"proto3\"; package kinds; enum Kind { GET = 0; PUT = 1; }";

fn messages() -> Messages {
    Messages::of(EVERYTHING.to_owned(), vec![("kinds/kind.proto".to_owned(), KIND.to_owned())]).expect("a schema")
}

fn read(messages: &Messages, record: &[u8], most: usize) -> Result<String, Invalid> {
    let mut out = String::new();
    messages.read(record, &mut RowText::begin(&mut out, most)).map(|()| out)
}

/// A message in the text format of Protobuf, as bytes behind the way to it.
fn written(path: &[u8], descriptor: MessageDescriptor, text: &str) -> Vec<u8> {
    let message = DynamicMessage::parse_text_format(descriptor, text).expect("of the message");
    [path, &prost::Message::encode_to_vec(&message)].concat()
}

fn everything() -> Vec<u8> {
    let descriptor = messages().message(&[1]).expect("the second message");
    written(
        &[2, 2],
        descriptor,
        r#"text: "a \"b\"" maybe: "" whole: -9223372036854775808 real: 0.5 yes: true bytes: "\0\377" list: [1, -2]
           map { key: "k" value { name: "v" } } kind: PUT at { seconds: 1795312945 nanos: 3000000 }
           took { seconds: 1 nanos: 500000000 } wrapped { value: 7 }
           labels { fields { key: "a" value { list_value { values { number_value: 1 } values { null_value: NULL_VALUE } } } } }
           next { text: "in" } right: "r""#,
    )
}

#[test]
fn every_type_becomes_what_a_format_or_a_mapping_can_read() {
    let row = read(&messages(), &everything(), 4096).expect("a row");
    let row: serde_json::Value = serde_json::from_str(&row).expect("JSON");
    let expected = json!({
        "text": "a \"b\"", "maybe": "", "whole": i64::MIN, "real": 0.5, "yes": true, "bytes": "AP8=", "list": [1, -2],
        "map": {"k": {"name": "v"}}, "kind": "PUT", "at": "2026-11-22T02:02:25.003Z", "took": 1.5, "wrapped": 7,
        "labels": {"a": [1, null]}, "right": "r",
        // What has no presence is there with its zero; what has some is not.
        "next": {"text": "in", "whole": 0, "real": 0, "yes": false, "bytes": "", "kind": "GET"},
    });
    assert_eq!(row, expected);
}

#[test]
fn messages_are_found_by_the_way_to_them() {
    let messages = messages();
    assert_eq!(read(&messages, &[4, 0, 0, 0x0a, 1, b'x'], 100).as_deref(), Ok(r#"{"name":"x"}"#));
    // A single zero is the first.
    assert_eq!(read(&messages, &[0], 100).as_deref(), Ok("{}"));
    for path in [&[2, 4][..], &[4, 2, 2], &[2, 1], &[]] {
        assert_eq!(read(&messages, path, 100), Err(Invalid::Syntax), "{path:?}");
    }
}

#[test]
fn a_record_that_is_cut_off_is_refused_or_has_less_in_it() {
    let (messages, record) = (messages(), everything());
    for end in 0..record.len() {
        if let Ok(row) = read(&messages, &record[..end], 4096) {
            assert!(serde_json::from_str::<serde_json::Value>(&row).is_ok(), "{row}");
        }
    }
    let cut_within = record.len() - 1;
    assert_eq!(read(&messages, &record[..cut_within], 4096), Err(Invalid::Syntax));
}

#[test]
fn a_record_takes_no_more_than_its_row_may_be_long_and_deep() {
    let messages = messages();
    assert_eq!(read(&messages, &everything(), 100), Err(Invalid::TooLong));
    let descriptor = messages.message(&[1]).expect("the second message");
    let mut inner = Vec::new();
    for _ in 0..60 {
        let message = DynamicMessage::decode(descriptor.clone(), inner.as_slice()).expect("of the message");
        let field = descriptor.get_field_by_name("next").expect("a field");
        let mut outer = DynamicMessage::new(descriptor.clone());
        outer.set_field(&field, Value::Message(message));
        inner = prost::Message::encode_to_vec(&outer);
    }
    assert_eq!(read(&messages, &[&[2, 2][..], &inner].concat(), usize::MAX), Err(Invalid::Syntax));
}

#[test]
fn a_schema_that_lacks_a_file_or_would_not_end_is_refused() {
    let missing = Messages::of(EVERYTHING.to_owned(), Vec::new()).expect_err("kinds/kind.proto is missing");
    assert!(missing.contains("kinds/kind.proto"), "{missing}");
    let deep = format!("syntax = \"proto3\"; {} {}", "message A {".repeat(100_000), "}".repeat(100_000));
    assert!(Messages::of(deep, Vec::new()).expect_err("deep").contains("brackets"));
    let commented = "syntax = \"proto3\"; // {{{{\n/* (((( */ message A { string a = 1 [json_name = \"{\\\"{\"]; }";
    assert_eq!(brackets(commented), 2);
    Messages::of(commented.to_owned(), Vec::new()).expect("comments nest nothing");
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down_and_every_row_is_json(record: Vec<u8>, at in 0_usize..200, to: u8) {
        let messages = messages();
        let mut wounded = everything();
        let at = at % wounded.len();
        wounded[at] = to;
        for record in [record, wounded] {
            if let Ok(row) = read(&messages, &record, 4096) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&row).is_ok(), "{}", row);
            }
        }
    }
}
