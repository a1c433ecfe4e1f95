//! What Avro records become.

use apache_avro::{Days, Decimal, Duration, Millis, Months, types::Value, writer::datum::GenericDatumWriter};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{registry::row::RowText, source::Invalid};

const EVERYTHING: &str = r#"{"type":"record","name":"Everything","namespace":"shop","fields":[
    {"name":"text","type":"string"},
    {"name":"maybe","type":["null","string"]},
    {"name":"whole","type":"long"},
    {"name":"double","type":"double"},
    {"name":"float","type":"float"},
    {"name":"yes","type":"boolean"},
    {"name":"bytes","type":"bytes"},
    {"name":"list","type":{"type":"array","items":"int"}},
    {"name":"map","type":{"type":"map","values":"string"}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["GET","PUT"]}},
    {"name":"again","type":"Kind"},
    {"name":"millis","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"micros","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"local","type":{"type":"long","logicalType":"local-timestamp-millis"}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
    {"name":"id","type":{"type":"string","logicalType":"uuid"}},
    {"name":"hash","type":{"type":"fixed","name":"Hash","size":3}},
    {"name":"inner","type":{"type":"record","name":"Inner","fields":[{"name":"kind","type":"shop.Kind"},{"name":"next","type":["null","Inner"]}]}}
]}"#;

fn plan(schema: &str) -> Plan {
    Plan::of(schema, &[]).expect("a schema")
}

fn read(plan: &Plan, record: &[u8], most: usize) -> Result<String, Invalid> {
    let mut out = String::new();
    plan.read(record, &mut RowText::begin(&mut out, most)).map(|()| out)
}

fn written(schema: &str, value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(schema).expect("a schema");
    GenericDatumWriter::builder(&schema).build().expect("a writer").write_value_to_vec(value).expect("of the schema")
}

fn everything() -> Vec<u8> {
    let text = |text: &str| Value::String(text.to_owned());
    let inner = |next| Value::Record(vec![("kind".into(), Value::Enum(1, "PUT".into())), ("next".into(), next)]);
    let none = || Value::Union(0, Box::new(Value::Null));
    let fields = vec![
        ("text", text("a \"b\"")),
        ("maybe", Value::Union(1, Box::new(text("é")))),
        ("whole", Value::Long(i64::MIN)),
        ("double", Value::Double(0.5)),
        ("float", Value::Float(0.1)),
        ("yes", Value::Boolean(true)),
        ("bytes", Value::Bytes(vec![0, 255])),
        ("list", Value::Array(vec![Value::Int(1), Value::Int(-2)])),
        ("map", Value::Map([("k".to_owned(), text("v"))].into())),
        ("kind", Value::Enum(0, "GET".into())),
        ("again", Value::Enum(1, "PUT".into())),
        ("millis", Value::TimestampMillis(1_795_312_945_003)),
        ("micros", Value::TimestampMicros(1_795_312_945_000_004)),
        ("local", Value::LocalTimestampMillis(1_795_312_945_000)),
        ("day", Value::Date(20_000)),
        ("price", Value::Decimal(Decimal::from([0xff, 0x85]))),
        ("id", Value::Uuid("0b1f8a4e-8d1c-4c55-9a39-000000000001".parse().expect("a UUID"))),
        ("hash", Value::Fixed(3, vec![1, 2, 3])),
        ("inner", inner(Value::Union(1, Box::new(inner(none()))))),
    ];
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    written(EVERYTHING, Value::Record(fields))
}

#[test]
fn every_type_becomes_what_a_format_or_a_mapping_can_read() {
    let row = read(&plan(EVERYTHING), &everything(), 4096).expect("a row");
    let row: serde_json::Value = serde_json::from_str(&row).expect("JSON");
    let expected = json!({
        "text": "a \"b\"", "maybe": "é", "whole": i64::MIN, "double": 0.5, "float": 0.1, "yes": true, "bytes": "AP8=",
        "list": [1, -2], "map": {"k": "v"}, "kind": "GET", "again": "PUT",
        "millis": "2026-11-22T02:02:25.003Z", "micros": "2026-11-22T02:02:25.000004Z", "local": "2026-11-22T02:02:25",
        "day": "2024-10-04", "price": "-1.23", "id": "0b1f8a4e-8d1c-4c55-9a39-000000000001", "hash": "AQID",
        "inner": {"kind": "PUT", "next": {"kind": "PUT", "next": null}},
    });
    assert_eq!(row, expected);
}

#[test]
fn a_record_that_is_cut_off_or_goes_on_is_refused_at_every_byte() {
    let (plan, record) = (plan(EVERYTHING), everything());
    for end in 0..record.len() {
        assert!(read(&plan, &record[..end], 4096).is_err(), "{end} bytes");
    }
    let longer = [record.as_slice(), b"\0"].concat();
    assert_eq!(read(&plan, &longer, 4096), Err(Invalid::Syntax));
}

#[test]
fn a_record_takes_no_more_than_its_row_may_be_long_and_deep() {
    // Each of these says of itself that it is enormous, in a few bytes.
    let nulls = plan(r#"{"type":"array","items":"null"}"#);
    let many = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(read(&nulls, &many, 1000), Err(Invalid::TooLong));
    assert_eq!(read(&plan("\"bytes\""), &many, 1000), Err(Invalid::Syntax));
    assert_eq!(read(&plan("\"string\""), &many, 1000), Err(Invalid::Syntax));
    let endless = plan(r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"},{"name":"s","type":"R"}]}"#);
    assert_eq!(read(&endless, &[], 1000), Err(Invalid::Syntax));
    let list = plan(r#"{"type":"record","name":"R","fields":[{"name":"next","type":["null","R"]}]}"#);
    assert_eq!(read(&list, &[2; 60_000], usize::MAX), Err(Invalid::Syntax));
    assert_eq!(read(&list, &[2, 2, 0], 1000).as_deref(), Ok(r#"{"next":{"next":{"next":null}}}"#));
    let huge = plan(r#"{"type":"fixed","name":"F","size":9000000000000000000}"#);
    assert_eq!(read(&huge, &[0; 64], 1000), Err(Invalid::Syntax));
}

#[test]
fn types_of_other_schemas_are_found_by_their_full_names() {
    let kind = r#"{"type":"enum","name":"Kind","namespace":"other","symbols":["A","B"]}"#.to_owned();
    let outer = r#"{"type":"record","name":"R","namespace":"shop","fields":[{"name":"kind","type":"other.Kind"},{"name":"own","type":{"type":"enum","name":"Kind","symbols":["C"]}},{"name":"again","type":"Kind"}]}"#;
    let plan = Plan::of(outer, std::slice::from_ref(&kind)).expect("a schema");
    assert_eq!(read(&plan, &[2, 0, 0], 1000).as_deref(), Ok(r#"{"kind":"B","own":"C","again":"C"}"#));
    assert!(Plan::of(outer, &[]).is_err());
    assert!(Plan::of("{", &[kind]).is_err());
}

#[test]
fn durations_and_fixed_decimals_and_impossible_times_are_told_apart() {
    let fixed = r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#;
    let value = Value::Duration(Duration::new(Months::new(1), Days::new(2), Millis::new(3)));
    assert_eq!(read(&plan(fixed), &written(fixed, value), 100).as_deref(), Ok("\"AQAAAAIAAAADAAAA\""));
    let decimal = r#"{"type":"fixed","name":"P","size":2,"logicalType":"decimal","precision":4,"scale":3}"#;
    assert_eq!(read(&plan(decimal), &[0, 7], 100).as_deref(), Ok("\"0.007\""));
    let time = plan(r#"{"type":"long","logicalType":"timestamp-millis"}"#);
    let last = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(read(&time, &last, 100), Err(Invalid::ImpossibleTime));
    let day = plan(r#"{"type":"int","logicalType":"date"}"#);
    assert_eq!(read(&day, &last, 100), Err(Invalid::ImpossibleTime));
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down_and_every_row_is_json(record: Vec<u8>) {
        if let Ok(row) = read(&plan(EVERYTHING), &record, 4096) {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&row).is_ok(), "{}", row);
        }
    }

    #[test]
    fn a_wound_in_a_record_is_refused_or_leaves_a_row(at in 0_usize..200, to: u8) {
        let mut record = everything();
        let at = at % record.len();
        record[at] = to;
        if let Ok(row) = read(&plan(EVERYTHING), &record, 4096) {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&row).is_ok(), "{}", row);
        }
    }
}
