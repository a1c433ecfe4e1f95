//! Lines of JSON as Avro and Protobuf records: what is a number there is one here, everything else is a text.

#[path = "../../ingest/tests/support/mod.rs"]
mod support;

use std::time::Duration;

use qualm_ingest::registry::{RegistryCounters, Rows};
use serde_json::{Map, Value, json};

use self::support::{RecordingRegistry, avro_text, framed, varint, zigzag};

type Form = (&'static str, Vec<Vec<u8>>);

/// Each form of the lines, and what reads them.
pub(crate) fn forms(lines: &[String]) -> (Rows, [Form; 3]) {
    let objects: Vec<Map<String, Value>> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let registry = RecordingRegistry::start();
    registry.put(1, "AVRO", &avro_schema(&objects[0]), &json!([]));
    registry.put(2, "PROTOBUF", &proto_schema(&objects[0]), &json!([]));
    let mut rows = Rows::new(&registry.config(), 64 * 1024, RegistryCounters::default()).unwrap();
    let forms = [
        ("json", lines.iter().map(|line| line.clone().into_bytes()).collect()),
        ("avro", objects.iter().map(avro).collect::<Vec<_>>()),
        ("protobuf", objects.iter().map(proto).collect()),
    ];
    for (_, records) in &forms {
        assert!(rows.wait_for(&records[0], Duration::from_secs(60)));
    }
    (rows, forms)
}

fn avro_schema(object: &Map<String, Value>) -> String {
    let kind = |value: &Value| if value.is_number() { json!("long") } else { json!(["null", "string"]) };
    let fields: Vec<Value> = object.iter().map(|(key, value)| json!({ "name": key, "type": kind(value) })).collect();
    json!({ "type": "record", "name": "Access", "fields": fields }).to_string()
}

fn avro(object: &Map<String, Value>) -> Vec<u8> {
    let mut record = Vec::new();
    for value in object.values() {
        match value {
            Value::Number(number) => zigzag(number.as_i64().unwrap(), &mut record),
            Value::String(text) => {
                zigzag(1, &mut record);
                avro_text(text, &mut record);
            }
            _ => zigzag(0, &mut record),
        }
    }
    framed(1, &record)
}

fn proto_schema(object: &Map<String, Value>) -> String {
    let field = |(number, (key, value)): (usize, (&String, &Value))| {
        let kind = if value.is_number() { "int64" } else { "optional string" };
        format!("{kind} {key} = {};", number + 1)
    };
    let fields: Vec<String> = object.iter().enumerate().map(field).collect();
    format!("syntax = \"proto3\"; message Access {{ {} }}", fields.join(" "))
}

fn proto(object: &Map<String, Value>) -> Vec<u8> {
    let mut record = vec![0];
    for (number, value) in (1_u64..).zip(object.values()) {
        match value {
            Value::Number(whole) => {
                varint(number << 3, &mut record);
                varint(whole.as_u64().unwrap(), &mut record);
            }
            Value::String(text) => {
                varint(number << 3 | 2, &mut record);
                varint(text.len() as u64, &mut record);
                record.extend(text.as_bytes());
            }
            _ => {}
        }
    }
    framed(2, &record)
}
