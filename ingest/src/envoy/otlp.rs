//! OTLP logs as Envoy and Istio send them: attributes named like Envoy's operators, and a body that may be a line of
//! one of the known formats. Where both say something, the attribute counts.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse, logs_service_server::LogsService},
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::LogRecord,
};
use prost::Message as _;
use qualm_model::{identity::Peer, time::Span};
use serde_json::{Map, Value as Json};
use tonic::{Request as GrpcRequest, Response, Status};

use super::{Message, Origin, Queue, Sink};
use crate::{
    parse::{
        access::{AccessEntry, Forwarded},
        istio_text,
        time::{rfc3339, sensible},
    },
    source::{Invalid, Rejection},
};

/// One call's records.
pub(super) type Request = ExportLogsServiceRequest;

/// The service. The listener puts the verified [`Peer`] into the extensions of each request.
#[derive(Debug)]
pub struct OtlpLogs {
    queue: Queue,
}

impl OtlpLogs {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue }
    }
}

#[tonic::async_trait]
impl LogsService for OtlpLogs {
    /// Answers when the records are in the queue. Records that turn out to be no events are counted, not returned:
    /// their sender could only send them again.
    async fn export(
        &self,
        request: GrpcRequest<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let reporter = self.queue.capacity(request.extensions().get::<Peer>())?;
        let _place = self.queue.place()?;
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let origin = Arc::new(Origin { reporter, node_id: String::new() });
        self.queue.send(Message::Otlp(Box::new(request)), bytes, &origin).await?;
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

pub(super) fn read(request: &Request, sink: &mut Sink<'_>) {
    for resource in &request.resource_logs {
        let attributes = resource.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let node = attributes.iter().find(|attribute| attribute.key == "node_name").and_then(text).unwrap_or_default();
        for record in resource.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            take(record, node, sink);
        }
    }
}

fn take(record: &LogRecord, node_id: &str, sink: &mut Sink<'_>) {
    let bytes = record.encoded_len();
    let body = record.body.as_ref().and_then(|body| match &body.value {
        Some(Any::StringValue(text)) => Some(text.trim()),
        _ => None,
    });
    // Held here, because the entry borrows from it.
    let json = match body {
        Some(text) if text.starts_with('{') && bytes <= sink.entry_bytes => {
            serde_json::from_str::<Map<String, Json>>(text).map(Some).map_err(|_| Rejection::from(Invalid::Syntax))
        }
        _ => Ok(None),
    };
    let entry = json.as_ref().map_err(|why| *why).and_then(|json| entry(record, body, json.as_ref(), node_id));
    sink.take("otlp", bytes, entry);
}

fn entry<'a>(
    record: &'a LogRecord,
    body: Option<&'a str>,
    json: Option<&'a Map<String, Json>>,
    node_id: &'a str,
) -> Result<AccessEntry<'a>, Rejection> {
    let line = body.filter(|_| json.is_none()).map_or(Err(Rejection::Foreign), istio_text::access_entry);
    let mut draft = Draft { known: line.is_ok(), timed: line.is_ok(), entry: line.unwrap_or_default() };
    for (key, value) in json.into_iter().flatten() {
        match value {
            Json::String(text) => draft.set(key, Field::Text(text))?,
            Json::Number(number) => draft.set(key, number.as_u64().map_or(Field::Other, Field::Whole))?,
            Json::Null => draft.set(key, Field::Text(""))?,
            _ => draft.set(key, Field::Other)?,
        }
    }
    let kvlist = match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Any::KvlistValue(list)) => &list.values[..],
        _ => &[],
    };
    for attribute in kvlist.iter().chain(&record.attributes) {
        draft.set(&attribute.key, field(attribute.value.as_ref()))?;
    }
    if !draft.known {
        return Err(line_error(body));
    }
    if !draft.timed {
        let nanoseconds = [record.time_unix_nano, record.observed_time_unix_nano];
        let time = nanoseconds.into_iter().find(|time| *time != 0).ok_or(Invalid::MissingField)?;
        draft.entry.start = sensible(i128::from(time))?;
    }
    if draft.entry.node_id.is_empty() {
        draft.entry.node_id = node_id;
    }
    Ok(draft.entry)
}

/// Why a record without any known attribute is no event.
fn line_error(body: Option<&str>) -> Rejection {
    body.map_or(Ok(AccessEntry::default()), istio_text::access_entry).err().unwrap_or(Rejection::Foreign)
}

fn text(attribute: &KeyValue) -> Option<&str> {
    match field(attribute.value.as_ref()) {
        Field::Text(text) => Some(text),
        _ => None,
    }
}

fn field(value: Option<&AnyValue>) -> Field<'_> {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => Field::Text(text),
        Some(Any::IntValue(number)) => u64::try_from(*number).map_or(Field::Other, Field::Whole),
        None => Field::Text(""),
        Some(_) => Field::Other,
    }
}

/// The value of an attribute or key.
#[derive(Debug, Clone, Copy)]
enum Field<'a> {
    Text(&'a str),
    Whole(u64),
    Other,
}

impl<'a> Field<'a> {
    fn text(self) -> Result<&'a str, Invalid> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Whole(_) | Self::Other => Err(Invalid::WrongType),
        }
    }

    fn whole(self) -> Result<u64, Invalid> {
        match self {
            Self::Whole(number) => Ok(number),
            Self::Text(text) => text.parse().map_err(|_| Invalid::WrongType),
            Self::Other => Err(Invalid::WrongType),
        }
    }

    fn status(self) -> Result<u16, Invalid> {
        u16::try_from(self.whole()?).map_err(|_| Invalid::WrongType)
    }
}

/// An entry as it comes together.
struct Draft<'a> {
    entry: AccessEntry<'a>,
    known: bool,
    timed: bool,
}

impl<'a> Draft<'a> {
    /// Takes one attribute: Envoy's operators in lower case, as in the JSON format, and the short names of the
    /// documented Istio provider. Unknown ones are ignored.
    fn set(&mut self, key: &str, value: Field<'a>) -> Result<(), Invalid> {
        if key == "x_forwarded_for" {
            self.entry.forwarded = match value {
                Field::Text(header) => Forwarded::of(header),
                Field::Whole(_) | Field::Other => Forwarded::Possibly,
            };
            return Ok(());
        }
        if matches!(value, Field::Text("" | "-")) {
            return Ok(());
        }
        let entry = &mut self.entry;
        let place = match key {
            "method" => &mut entry.method,
            "path" => &mut entry.path,
            "protocol" => &mut entry.protocol,
            "authority" => &mut entry.authority,
            "request_id" => &mut entry.request_id,
            "stream_id" => &mut entry.stream_id,
            "access_log_type" => &mut entry.access_log_type,
            "response_flags" => &mut entry.response_flags,
            "response_code_details" | "details" => &mut entry.response_code_details,
            "connection_termination_details" => &mut entry.connection_termination_details,
            "upstream_transport_failure_reason" | "downstream_transport_failure_reason" => {
                &mut entry.transport_failure_reason
            }
            "requested_server_name" => &mut entry.requested_server_name,
            "upstream_cluster" => &mut entry.upstream_cluster,
            "upstream_host" => &mut entry.upstream_host,
            "upstream_local_address" => &mut entry.upstream_local_address,
            "downstream_local_address" => &mut entry.downstream_local_address,
            "downstream_remote_address" => &mut entry.downstream_remote_address,
            "downstream_direct_remote_address" => &mut entry.downstream_direct_remote_address,
            "downstream_peer_uri_san" | "peer" => &mut entry.downstream_peer_uri_san,
            "downstream_local_uri_san" | "local" => &mut entry.downstream_local_uri_san,
            "upstream_peer_uri_san" => &mut entry.upstream_peer_uri_san,
            "upstream_local_uri_san" => &mut entry.upstream_local_uri_san,
            "downstream_peer_serial" => &mut entry.downstream_peer_serial,
            "downstream_peer_cert_v_start" => &mut entry.downstream_peer_cert_v_start,
            "downstream_peer_cert_v_end" => &mut entry.downstream_peer_cert_v_end,
            "downstream_tls_version" => &mut entry.downstream_tls_version,
            "tls_ja3_fingerprint" | "ja3" => &mut entry.ja3,
            "tls_ja4_fingerprint" | "ja4" => &mut entry.ja4,
            "node_id" => &mut entry.node_id,
            _ => return self.set_number(key, value),
        };
        *place = value.text()?;
        self.known = true;
        Ok(())
    }

    fn set_number(&mut self, key: &str, value: Field<'a>) -> Result<(), Invalid> {
        let entry = &mut self.entry;
        match key {
            "start_time" => {
                entry.start = rfc3339(value.text()?)?;
                self.timed = true;
            }
            "duration" => {
                let nanoseconds = i64::try_from(value.whole()?).ok().and_then(|ms| ms.checked_mul(1_000_000));
                entry.duration = Some(nanoseconds.map(Span).ok_or(Invalid::WrongType)?);
            }
            "response_code" | "code" => entry.status = Some(value.status()?),
            "grpc_status_number" => entry.grpc_status = Some(value.status()?),
            "bytes_received" => entry.bytes_received = Some(value.whole()?),
            "bytes_sent" => entry.bytes_sent = Some(value.whole()?),
            _ => return Ok(()),
        }
        self.known = true;
        Ok(())
    }
}
