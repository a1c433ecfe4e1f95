//! Spans as a collector writes them to Kafka unless told otherwise: `ExportTraceServiceRequest` as Protobuf. They are
//! handed on as OTLP's JSON, which is what the format of spans reads.
//!
//! A request of logs is no request of spans, nor the reverse: a span begins with the bytes of its trace, where a log
//! record has a number of fixed length.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

/// What one JSON record may be longer than the same in Protobuf.
const LONGER: usize = 16;

/// A request of spans in JSON. `None`: it is none, or has no span in it.
pub(super) fn as_json(record: &[u8]) -> Option<String> {
    let request = ExportTraceServiceRequest::decode(record).ok()?;
    let mut scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.any(|scope| !scope.spans.is_empty()).then_some(())?;
    let json = serde_json::to_string(&request).ok()?;
    (json.len() <= record.len().saturating_mul(LONGER)).then_some(json)
}
