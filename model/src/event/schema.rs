//! Names and types of the columns of an event batch.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Version of the event schema; raised when a column comes or changes its meaning.
pub const SCHEMA_VERSION: u16 = 2;

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

fn party(end: &str) -> Vec<Field> {
    let text = |name: &str| Field::new(format!("{end}_{name}"), dictionary(), true);
    vec![
        text("uid"),
        text("trust_domain"),
        text("namespace"),
        text("svc_name"),
        text("cluster"),
        text("version"),
        text("instance_uid"),
        text("ip"),
        Field::new(format!("{end}_port"), DataType::UInt16, false),
        Field::new(format!("{end}_provenance"), DataType::UInt8, false),
    ]
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, dictionary(), true);
    let mut fields = vec![
        Field::new("start_time", time(), false),
        Field::new("time", time(), false),
        Field::new("class_uid", DataType::UInt16, false),
        Field::new("activity_id", DataType::UInt8, false),
        Field::new("reporter", DataType::UInt8, false),
        text("reporter_uid"),
        Field::new("metadata_uid", DataType::Utf8, true),
        text("policy_uid"),
    ];
    fields.extend(party("src_endpoint"));
    fields.extend(party("dst_endpoint"));
    fields.extend([
        text("dst_endpoint_hostname"),
        text("operation"),
        Field::new("http_response_code", DataType::UInt16, true),
        Field::new("grpc_status", DataType::UInt16, true),
        Field::new("outcome", DataType::UInt8, false),
        text("status_detail"),
        Field::new("traffic_bytes_in", DataType::UInt64, true),
        Field::new("traffic_bytes_out", DataType::UInt64, true),
        Field::new("duration_ns", DataType::Int64, true),
        text("tls_version"),
        text("tls_ja3_hash"),
        text("tls_ja4"),
        text("credential_uid"),
        Field::new("credential_not_before", time(), true),
        Field::new("credential_not_after", time(), true),
        text("auth_protocol"),
        text("issued_credential_uid"),
        text("revoked_credential_uid"),
        Field::new("source", DataType::UInt16, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
    ]);
    Arc::new(Schema::new(fields))
});

/// The schema of every event batch. `src_endpoint_uid` and `dst_endpoint_uid` are the principals; `time` is the
/// report time; `class_uid`, `activity_id`, `reporter` and `outcome` hold the numbers of [`Kind`](super::Kind),
/// [`Activity`](super::Activity), [`Reporter`](super::Reporter) and [`Outcome`](super::Outcome).
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}
