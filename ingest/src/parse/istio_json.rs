//! Envoy's access log as JSON, a line an entry: Istio's 24 keys, and lower-case Envoy operators beside them.
//!
//! Unknown keys are ignored. Envoy writes the keys of every line in the same order, so the order of the line before
//! is what is looked for first.

use qualm_model::time::{Span, Timestamp};

use super::{
    Row,
    access::AccessEntry,
    json::{Lexer, Stretch, Value, unescape},
    time::rfc3339,
};
use crate::source::{Invalid, Rejection};

/// Keys of a line whose place is remembered; later ones are looked up.
const MAX_REMEMBERED: usize = 64;

/// The keys that are read. `x_forwarded_for` and `user_agent` say nothing that can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    StartTime,
    Duration,
    AccessLogType,
    Method,
    Path,
    Protocol,
    Authority,
    RequestId,
    StreamId,
    ResponseCode,
    GrpcStatus,
    GrpcStatusNumber,
    ResponseFlags,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    DownstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    RequestedServerName,
    UpstreamCluster,
    UpstreamHost,
    UpstreamLocalAddress,
    DownstreamLocalAddress,
    DownstreamRemoteAddress,
    DownstreamDirectRemoteAddress,
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    UpstreamPeerUriSan,
    UpstreamLocalUriSan,
    DownstreamPeerSerial,
    DownstreamPeerCertVStart,
    DownstreamPeerCertVEnd,
    DownstreamTlsVersion,
    TlsJa3Fingerprint,
    TlsJa4Fingerprint,
    NodeId,
}

const KEYS: usize = Key::NodeId as usize + 1;

fn key_of(name: &[u8]) -> Option<Key> {
    Some(match name {
        b"start_time" => Key::StartTime,
        b"duration" => Key::Duration,
        b"access_log_type" => Key::AccessLogType,
        b"method" => Key::Method,
        b"path" => Key::Path,
        b"protocol" => Key::Protocol,
        b"authority" => Key::Authority,
        b"request_id" => Key::RequestId,
        b"stream_id" => Key::StreamId,
        b"response_code" => Key::ResponseCode,
        b"grpc_status" => Key::GrpcStatus,
        b"grpc_status_number" => Key::GrpcStatusNumber,
        b"response_flags" => Key::ResponseFlags,
        b"response_code_details" => Key::ResponseCodeDetails,
        b"connection_termination_details" => Key::ConnectionTerminationDetails,
        b"upstream_transport_failure_reason" => Key::UpstreamTransportFailureReason,
        b"downstream_transport_failure_reason" => Key::DownstreamTransportFailureReason,
        b"bytes_received" => Key::BytesReceived,
        b"bytes_sent" => Key::BytesSent,
        b"requested_server_name" => Key::RequestedServerName,
        b"upstream_cluster" => Key::UpstreamCluster,
        b"upstream_host" => Key::UpstreamHost,
        b"upstream_local_address" => Key::UpstreamLocalAddress,
        b"downstream_local_address" => Key::DownstreamLocalAddress,
        b"downstream_remote_address" => Key::DownstreamRemoteAddress,
        b"downstream_direct_remote_address" => Key::DownstreamDirectRemoteAddress,
        b"downstream_peer_uri_san" => Key::DownstreamPeerUriSan,
        b"downstream_local_uri_san" => Key::DownstreamLocalUriSan,
        b"upstream_peer_uri_san" => Key::UpstreamPeerUriSan,
        b"upstream_local_uri_san" => Key::UpstreamLocalUriSan,
        b"downstream_peer_serial" => Key::DownstreamPeerSerial,
        b"downstream_peer_cert_v_start" => Key::DownstreamPeerCertVStart,
        b"downstream_peer_cert_v_end" => Key::DownstreamPeerCertVEnd,
        b"downstream_tls_version" => Key::DownstreamTlsVersion,
        b"tls_ja3_fingerprint" => Key::TlsJa3Fingerprint,
        b"tls_ja4_fingerprint" => Key::TlsJa4Fingerprint,
        b"node_id" => Key::NodeId,
        _ => return None,
    })
}

/// Where a key stood in the line before: `"key":`, and what it is.
#[derive(Debug, Default)]
struct Remembered {
    quoted: Vec<u8>,
    key: Option<Key>,
}

/// What may follow where a text was expected.
#[derive(Debug, Clone, Copy)]
enum Found {
    Absent,
    Line(Stretch),
    Number(Stretch),
    Scratch(Stretch),
    Other,
}

/// Reads lines of Istio's JSON format.
#[derive(Debug)]
pub struct IstioJson {
    order: Vec<Remembered>,
    found: [Found; KEYS],
    scratch: String,
    operation: String,
}

impl Default for IstioJson {
    fn default() -> Self {
        Self { order: Vec::new(), found: [Found::Absent; KEYS], scratch: String::new(), operation: String::new() }
    }
}

impl IstioJson {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        if !line.trim_ascii_start().starts_with('{') {
            return Err(Rejection::Foreign);
        }
        self.found = [Found::Absent; KEYS];
        self.scratch.clear();
        if !self.read_keys(line)? {
            return Err(Rejection::Foreign);
        }
        let fields = Fields { line, found: &self.found, scratch: &self.scratch };
        let entry = fields.entry()?;
        row.push(entry.draft(&mut self.operation)?)
    }

    /// Notes where the values of the wanted keys stand; `false` where there is no such key at all.
    fn read_keys(&mut self, line: &str) -> Result<bool, Invalid> {
        let mut lexer = Lexer::new(line);
        lexer.begin()?;
        let (mut place, mut known) = (0, false);
        loop {
            let expected = self.order.get(place).filter(|expected| lexer.take_key(&expected.quoted));
            let key = match expected {
                Some(expected) => expected.key,
                None => match lexer.key()? {
                    Some(name) => self.remember(place, name),
                    None => break,
                },
            };
            place += 1;
            match key {
                Some(key) => {
                    known = true;
                    self.found[key as usize] = read_value(&mut lexer, line, &mut self.scratch)?;
                }
                None => lexer.skip_value()?,
            }
        }
        lexer.end()?;
        Ok(known)
    }

    fn remember(&mut self, place: usize, name: &str) -> Option<Key> {
        let key = key_of(name.as_bytes());
        if place == self.order.len() && place < MAX_REMEMBERED {
            self.order.push(Remembered::default());
        }
        if let Some(remembered) = self.order.get_mut(place) {
            remembered.quoted.clear();
            remembered.quoted.extend([b"\"", name.as_bytes(), b"\":"].into_iter().flatten());
            remembered.key = key;
        }
        key
    }
}

#[inline]
fn read_value(lexer: &mut Lexer<'_>, line: &str, scratch: &mut String) -> Result<Found, Invalid> {
    Ok(match lexer.value()? {
        Value::Text(text) => Found::Line(text),
        Value::Number(number) => Found::Number(number),
        Value::Null => Found::Absent,
        Value::Escaped(escaped) => {
            let start = scratch.len();
            unescape(escaped.of(line), scratch)?;
            Found::Scratch(Stretch::new(start, scratch.len()))
        }
        Value::Bool(_) => Found::Other,
        Value::Object | Value::Array => {
            lexer.skip_rest()?;
            Found::Other
        }
    })
}

/// What was found in one line.
struct Fields<'a> {
    line: &'a str,
    found: &'a [Found; KEYS],
    scratch: &'a str,
}

impl<'a> Fields<'a> {
    /// A text, empty where absent; a number where a text belongs is one only for ids.
    #[inline]
    fn text(&self, key: Key) -> Result<&'a str, Invalid> {
        let text = match self.found[key as usize] {
            Found::Absent => return Ok(""),
            Found::Line(text) => text.of(self.line),
            Found::Scratch(text) => text.of(self.scratch),
            Found::Number(_) | Found::Other => return Err(Invalid::WrongType),
        };
        Ok(if text == "-" { "" } else { text })
    }

    /// A whole number, written as one or as a text.
    #[inline]
    fn number(&self, key: Key) -> Result<Option<u64>, Invalid> {
        let digits = match self.found[key as usize] {
            Found::Number(number) => number.of(self.line),
            _ => self.text(key)?,
        };
        if digits.is_empty() { Ok(None) } else { whole_number(digits).map(Some) }
    }

    fn status(&self, key: Key) -> Result<Option<u16>, Invalid> {
        self.number(key)?.map(|status| u16::try_from(status).map_err(|_| Invalid::WrongType)).transpose()
    }

    fn grpc_status(&self) -> Result<Option<u16>, Invalid> {
        if let Some(status) = self.status(Key::GrpcStatusNumber)? {
            return Ok(Some(status));
        }
        match self.found[Key::GrpcStatus as usize] {
            Found::Number(_) => self.status(Key::GrpcStatus),
            _ => Ok(grpc_status_of(self.text(Key::GrpcStatus)?)),
        }
    }

    fn start(&self) -> Result<Timestamp, Invalid> {
        let start = self.text(Key::StartTime)?;
        if start.is_empty() { Err(Invalid::MissingField) } else { rfc3339(start) }
    }

    fn either(&self, first: Key, second: Key) -> Result<&'a str, Invalid> {
        let text = self.text(first)?;
        if text.is_empty() { self.text(second) } else { Ok(text) }
    }

    fn entry(&self) -> Result<AccessEntry<'a>, Invalid> {
        Ok(AccessEntry {
            start: self.start()?,
            duration: self.number(Key::Duration)?.map(milliseconds).transpose()?,
            access_log_type: self.text(Key::AccessLogType)?,
            method: self.text(Key::Method)?,
            path: self.text(Key::Path)?,
            protocol: self.text(Key::Protocol)?,
            authority: self.text(Key::Authority)?,
            request_id: self.text(Key::RequestId)?,
            stream_id: self.text(Key::StreamId)?,
            status: self.status(Key::ResponseCode)?,
            grpc_status: self.grpc_status()?,
            response_flags: self.text(Key::ResponseFlags)?,
            response_code_details: self.text(Key::ResponseCodeDetails)?,
            connection_termination_details: self.text(Key::ConnectionTerminationDetails)?,
            transport_failure_reason: self
                .either(Key::UpstreamTransportFailureReason, Key::DownstreamTransportFailureReason)?,
            bytes_received: self.number(Key::BytesReceived)?,
            bytes_sent: self.number(Key::BytesSent)?,
            requested_server_name: self.text(Key::RequestedServerName)?,
            upstream_cluster: self.text(Key::UpstreamCluster)?,
            upstream_host: self.text(Key::UpstreamHost)?,
            upstream_local_address: self.text(Key::UpstreamLocalAddress)?,
            downstream_local_address: self.text(Key::DownstreamLocalAddress)?,
            downstream_remote_address: self.either(Key::DownstreamDirectRemoteAddress, Key::DownstreamRemoteAddress)?,
            downstream_peer_uri_san: self.text(Key::DownstreamPeerUriSan)?,
            downstream_local_uri_san: self.text(Key::DownstreamLocalUriSan)?,
            upstream_peer_uri_san: self.text(Key::UpstreamPeerUriSan)?,
            upstream_local_uri_san: self.text(Key::UpstreamLocalUriSan)?,
            downstream_peer_serial: self.text(Key::DownstreamPeerSerial)?,
            downstream_peer_cert_v_start: self.text(Key::DownstreamPeerCertVStart)?,
            downstream_peer_cert_v_end: self.text(Key::DownstreamPeerCertVEnd)?,
            downstream_tls_version: self.text(Key::DownstreamTlsVersion)?,
            ja3: self.text(Key::TlsJa3Fingerprint)?,
            ja4: self.text(Key::TlsJa4Fingerprint)?,
            node_id: self.text(Key::NodeId)?,
            policy: "",
        })
    }
}

/// Digits only; a sign, a fraction or an exponent is another type.
pub(super) fn whole_number(digits: &str) -> Result<u64, Invalid> {
    if digits.len() > 20 || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(Invalid::WrongType);
    }
    digits.parse().map_err(|_| Invalid::WrongType)
}

/// A duration; centuries are of the wrong type.
pub(super) fn milliseconds(count: u64) -> Result<Span, Invalid> {
    let nanoseconds = i64::try_from(count).ok().and_then(|count| count.checked_mul(1_000_000));
    nanoseconds.map(Span).ok_or(Invalid::WrongType)
}

/// The number behind Envoy's name of a gRPC status, in its camel, snake or numeric form.
fn grpc_status_of(name: &str) -> Option<u16> {
    const NAMES: [&str; 17] = [
        "ok",
        "canceled",
        "unknown",
        "invalidargument",
        "deadlineexceeded",
        "notfound",
        "alreadyexists",
        "permissiondenied",
        "resourceexhausted",
        "failedprecondition",
        "aborted",
        "outofrange",
        "unimplemented",
        "internal",
        "unavailable",
        "dataloss",
        "unauthenticated",
    ];
    if name.is_empty() {
        return None;
    }
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let plain: String = name.chars().filter(|&c| c != '_').map(|c| c.to_ascii_lowercase()).collect();
    NAMES.iter().position(|&known| known == plain).map(|number| number as u16)
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Kind, Outcome, Position};

    use super::*;

    const LINE: &str = r#"{"authority":"orders.shop","bytes_received":0,"bytes_sent":"3","duration":2,"method":"GET","path":"/v1/orders/42?x=1","request_id":"80f862cd","response_code":200,"response_flags":"-","start_time":"2026-11-22T02:02:24.122Z","upstream_cluster":"inbound|80||","downstream_remote_address":"10.0.0.7:32830","downstream_peer_uri_san":"spiffe://mesh.test/ns/shop/sa/cart","custom":{"a":[1,"}"]},"user_agent":"say \"hi\""}"#;

    fn parse(format: &mut IstioJson, line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        format.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    #[test]
    fn a_line_is_read_whatever_the_order_of_the_line_before() {
        let mut format = IstioJson::default();
        let mut keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(LINE).expect("JSON");
        keys.insert("z".into(), keys["method"].clone());
        let other = serde_json::to_string(&keys).expect("JSON");
        for line in [LINE, LINE, &other, LINE, &other, &other] {
            let batch = parse(&mut format, line).expect("an event");
            let event = batch.event(0);
            assert_eq!(event.source().service(), "cart");
            assert_eq!((event.operation(), event.status()), ("GET /v1/orders/{id}", Some(200)));
            assert_eq!((event.bytes_out(), event.report() - event.start()), (Some(3), Span(2_000_000)));
        }
    }

    #[test]
    fn escapes_in_wanted_values_are_resolved() {
        let line = LINE.replace("/v1/orders/42?x=1", r"\u002Fcaf\u00e9\/x?q=1");
        assert_eq!(parse(&mut IstioJson::default(), &line).expect("an event").event(0).operation(), "GET /café/x");
    }

    #[test]
    fn wrong_types_and_missing_fields_are_told_apart() {
        for (from, to, why) in [
            (r#""duration":2"#, r#""duration":{"a":2}"#, Invalid::WrongType.into()),
            (r#""duration":2"#, r#""duration":-2"#, Invalid::WrongType.into()),
            (r#""method":"GET""#, r#""method":5"#, Invalid::WrongType.into()),
            (r#""response_code":200"#, r#""response_code":70000"#, Invalid::WrongType.into()),
            ("2026-11-22T", "2026-11-31T", Invalid::ImpossibleTime.into()),
            (r#""start_time""#, r#""begin""#, Invalid::MissingField.into()),
            (r#""duration":2,"#, r#""duration":2"#, Rejection::Invalid(Invalid::Syntax)),
        ] {
            assert_eq!(parse(&mut IstioJson::default(), &LINE.replace(from, to)).err(), Some(why), "{to}");
        }
        let nobody = LINE.replace("downstream_peer", "x").replace("downstream_remote", "y");
        assert_eq!(parse(&mut IstioJson::default(), &nobody).err(), Some(Invalid::MissingIdentity.into()));
    }

    #[test]
    fn application_lines_are_foreign() {
        for line in ["starting up", r#"{"level":"info","msg":"ready"}"#, "[2026-11-22T02:02:24.122Z] x"] {
            assert_eq!(parse(&mut IstioJson::default(), line).err(), Some(Rejection::Foreign), "{line}");
        }
    }

    #[test]
    fn a_grpc_status_may_be_a_name_or_a_number() {
        for (status, outcome) in
            [(r#""PermissionDenied""#, Outcome::Refused), ("16", Outcome::Refused), (r#""OK""#, Outcome::Success)]
        {
            let line = LINE.replace(r#""duration":2"#, &format!(r#""grpc_status":{status}"#));
            assert_eq!(parse(&mut IstioJson::default(), &line).expect("an event").event(0).outcome(), outcome);
        }
    }

    #[test]
    fn a_tcp_entry_is_a_connection() {
        let line = LINE.replace(r#""GET""#, "null").replace(r#""/v1/orders/42?x=1""#, "null");
        let batch = parse(&mut IstioJson::default(), &line).expect("an event");
        assert_eq!((batch.event(0).kind(), batch.event(0).operation()), (Kind::Connection, ""));
    }
}
