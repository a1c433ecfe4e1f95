//! Spans of OpenTelemetry as calls: OTLP's export of traces as JSON, which is also what an export in Protobuf is made of
//! (`envelope/otlp/spans.rs`).
//!
//! A server's span is a call as the called reports it, a client's span the same call as the caller does: only one of
//! them is [`Reporter::Destination`]. The caller of a server's span is the service whose client span is its parent,
//! where the same record holds it, or else the address of the peer. Spans within a service and those of queues are
//! parts. Services name themselves: no identity here is more than a name.

mod span;

use std::collections::HashMap;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::workload_of_pod,
    time::Timestamp,
};

use self::span::{Attributes, Export, Kind as SpanKind, Span};
use super::{Row, access::host_and_port, clip, time::sensible, typed, url::split_url};
use crate::source::{Invalid, Rejection};

/// Reads exports of traces.
#[derive(Debug, Default)]
pub struct OtlpSpans {
    operation: String,
}

/// Who wrote the spans of one resource.
struct Service<'a> {
    name: String,
    instance: &'a str,
    version: &'a str,
    cluster: &'a str,
}

/// The services of client spans, by the spans' ids.
type Callers<'a> = HashMap<&'a str, &'a Service<'a>>;

impl OtlpSpans {
    /// Reads one export. It is rejected as a whole only where none of its spans is an event.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let bytes = line.as_bytes();
        if memchr::memmem::find(bytes, b"\"resourceSpans\"").is_none() {
            return Err(Rejection::Foreign);
        }
        let export: Export<'_> = typed::object(line)?;
        let resources = export.resource_spans.as_deref().unwrap_or_default();
        let services: Vec<Service<'_>> = resources.iter().map(|spans| service_of(&spans.attributes())).collect();
        let mut callers = Callers::new();
        for (spans, service) in resources.iter().zip(&services) {
            let clients = spans.spans().filter(|span| span.kind() == SpanKind::Client);
            callers.extend(clients.filter_map(|span| Some((span.span_id.as_deref()?, service))));
        }
        let (mut pushed, mut rejections) = (false, Vec::new());
        for (spans, service) in resources.iter().zip(&services) {
            for span in spans.spans() {
                match self.draft(span, service, &callers).and_then(|draft| row.push_as_onlooker(draft)) {
                    Ok(()) => pushed = true,
                    Err(why) => rejections.push(why),
                }
            }
        }
        if pushed {
            rejections.into_iter().for_each(|why| row.refuse(why));
            return Ok(());
        }
        // What is worse than a part tells more of it.
        let worst = rejections.iter().find(|why| **why != Rejection::Part).or(rejections.first());
        Err(worst.copied().unwrap_or(Rejection::Foreign))
    }

    fn draft<'b>(
        &'b mut self,
        span: &'b Span<'b>,
        own: &'b Service<'b>,
        callers: &Callers<'b>,
    ) -> Result<EventDraft<'b>, Rejection> {
        let is_server = match span.kind() {
            SpanKind::Server => true,
            SpanKind::Client => false,
            SpanKind::Other => return Err(Rejection::Part),
        };
        let start = instant(span.start.as_ref())?;
        let report = instant(span.end.as_ref())?.max(start);
        let attributes = span.attributes();
        let status = status_of(&attributes)?;
        let grpc = attributes.number("rpc.grpc.status_code").map(u16::try_from).transpose();
        let grpc_status = grpc.map_err(|_| Invalid::WrongType)?;
        write_operation(span, &attributes, &mut self.operation);
        let (source, destination) = if is_server {
            (caller_of(span, &attributes, callers), own.party())
        } else {
            (own.party(), called_by(&attributes))
        };
        Ok(EventDraft {
            start,
            report,
            kind: Kind::Request,
            reporter: if is_server { Reporter::Destination } else { Reporter::Source },
            record_id: clip(span.span_id.as_deref().unwrap_or_default()),
            source,
            destination,
            hostname: clip(attributes.first(&["server.address", "http.host", "net.host.name"])),
            operation: &self.operation,
            status,
            grpc_status,
            outcome: outcome_of(status, grpc_status, span.failed()),
            denial_reason: if span.failed() { clip(attributes.first(&["error.type"])) } else { "" },
            bytes_in: attributes.size(&["http.request.body.size", "http.request_content_length"]),
            bytes_out: attributes.size(&["http.response.body.size", "http.response_content_length"]),
            duration_ns: Some((report - start).0),
            ..EventDraft::default()
        })
    }
}

impl Service<'_> {
    fn party(&self) -> Party<'_> {
        Party {
            principal: &self.name,
            cluster: self.cluster,
            version: self.version,
            instance: self.instance,
            ..Party::default()
        }
    }
}

fn service_of<'a>(attributes: &Attributes<'a>) -> Service<'a> {
    let pod = attributes.first(&["k8s.pod.name"]);
    let names = attributes.first(&["service.name", "k8s.deployment.name", "k8s.statefulset.name"]);
    // What an SDK without a name calls itself: `unknown_service:java`.
    let name = if names.is_empty() || names.starts_with("unknown_service") { workload_of_pod(pod) } else { names };
    let namespace = attributes.first(&["k8s.namespace.name", "service.namespace"]);
    Service {
        name: match (namespace, name) {
            (_, "") => String::new(),
            ("", name) => clip(name).to_owned(),
            (namespace, name) => format!("{}/{}", clip(namespace), clip(name)),
        },
        instance: clip(if pod.is_empty() { attributes.first(&["service.instance.id"]) } else { pod }),
        version: clip(attributes.first(&["service.version"])),
        cluster: clip(attributes.first(&["k8s.cluster.name"])),
    }
}

/// The service of the parent span, or else the other end of the connection, or else whom the caller says it speaks
/// for.
fn caller_of<'a>(span: &Span<'a>, attributes: &Attributes<'a>, callers: &Callers<'a>) -> Party<'a> {
    let ip = attributes.first(&["network.peer.address", "net.sock.peer.addr", "net.peer.ip", "peer.address"]);
    let (ip, port) = host_and_port(ip);
    let port = if port > 0 { port } else { attributes.port(&["network.peer.port", "net.sock.peer.port"]) };
    let parent = span.parent_span_id.as_deref().and_then(|parent| callers.get(parent));
    if let Some(service) = parent.filter(|service| !service.name.is_empty()) {
        return Party { ip: clip(ip), port, ..service.party() };
    }
    let claimed = attributes.first(&["peer.service", "client.address", "http.client_ip"]);
    let principal = clip(if ip.is_empty() { claimed } else { ip });
    Party { principal, ip: clip(ip), port, ..Party::default() }
}

fn called_by<'a>(attributes: &Attributes<'a>) -> Party<'a> {
    let (ip, _) = host_and_port(attributes.first(&["network.peer.address", "net.sock.peer.addr", "net.peer.ip"]));
    let url = split_url(attributes.first(&["url.full", "http.url"])).0;
    let (url_host, url_port) = host_and_port(url);
    let named = attributes.first(&["peer.service", "server.address", "net.peer.name", "rpc.service", "db.namespace"]);
    let system = attributes.first(&["db.system.name", "db.system"]);
    let principal = [named, url_host, system, ip].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    let port = attributes.port(&["server.port", "net.peer.port"]);
    Party { principal: clip(principal), ip: clip(ip), port: if port > 0 { port } else { url_port }, ..Party::default() }
}

fn write_operation(span: &Span<'_>, attributes: &Attributes<'_>, out: &mut String) {
    out.clear();
    let method = attributes.first(&["http.request.method", "http.method"]);
    let path = attributes.first(&["url.path", "http.target", "http.route", "url.full", "http.url"]);
    let (service, call) = (attributes.first(&["rpc.service"]), attributes.first(&["rpc.method"]));
    let system = attributes.first(&["db.system.name", "db.system"]);
    if !method.is_empty() {
        return fold::operation(method, split_url(path).1, out);
    }
    if !call.is_empty() {
        for part in [service, if service.is_empty() { "" } else { "/" }, call] {
            out.push_str(clip(part));
        }
        return;
    }
    if !system.is_empty() {
        // Statements hold values; what is done to which table does not.
        let done = attributes.first(&["db.operation.name", "db.operation"]);
        let table = attributes.first(&["db.collection.name", "db.sql.table"]);
        for part in [system, " ", done, if table.is_empty() { "" } else { " " }] {
            out.push_str(clip(part));
        }
        return fold::append_path(clip(table), out);
    }
    fold::append_text(clip(span.name.as_deref().unwrap_or_default()), out);
}

fn status_of(attributes: &Attributes<'_>) -> Result<Option<u16>, Invalid> {
    let status = attributes.number("http.response.status_code").or_else(|| attributes.number("http.status_code"));
    status.map(u16::try_from).transpose().map_err(|_| Invalid::WrongType)
}

fn outcome_of(status: Option<u16>, grpc_status: Option<u16>, failed: bool) -> Outcome {
    match (status, grpc_status) {
        (Some(status), grpc) => Outcome::of_http(status, grpc),
        (None, Some(grpc)) => Outcome::of_http(200, Some(grpc)),
        (None, None) if failed => Outcome::Failure,
        (None, None) => Outcome::Success,
    }
}

fn instant(nanoseconds: Option<&super::number::Whole<'_>>) -> Result<Timestamp, Invalid> {
    let nanoseconds = super::number::whole(nanoseconds)?.filter(|count| *count > 0).ok_or(Invalid::MissingField)?;
    sensible(nanoseconds.into())
}

#[cfg(test)]
mod tests;
