//! Envoy's access log as JSON, a line an entry: Istio's 24 keys, and lower-case Envoy operators beside them.
//!
//! Unknown keys are ignored. Envoy writes the keys of every line in the same order, so the order of the line before
//! is what is looked for first.

mod found;
mod keys;

use std::cell::OnceCell;

pub(super) use self::found::{milliseconds, whole_number};
use self::{
    found::Found,
    keys::{KEYS, Key, key_of},
};
use super::{
    Origin, Row,
    access::{AccessEntry, Forwarded},
    consul::is_consuls,
    json::{Lexer, Stretch, Value, unescape},
    time::rfc3339,
};
use crate::source::{Invalid, Rejection};

/// Keys of a line whose place is remembered; later ones are looked up.
const MAX_REMEMBERED: usize = 64;

/// Where a key stood in the line before: `"key":`, and what it is.
#[derive(Debug, Default)]
struct Remembered {
    quoted: Vec<u8>,
    key: Option<Key>,
}

/// Texts that had escapes in them, by their key. Filled while others are borrowed from, hence cells.
type Unescaped = [OnceCell<String>; KEYS];

/// Reads lines of Istio's JSON format.
#[derive(Debug, Default)]
pub struct IstioJson {
    order: Order,
    /// Of lines that are still escaped.
    escaped_order: Order,
    operation: String,
    /// Whether lines of Consul's proxies, which have the same keys, are somebody else's to read.
    leaves_consuls: bool,
}

/// The order of the keys of the line before.
#[derive(Debug, Default)]
struct Order(Vec<Remembered>);

impl IstioJson {
    /// Lines of Consul's proxies are foreign from now on.
    pub(super) fn leave_consuls(&mut self) {
        self.leaves_consuls = true;
    }

    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let (known, leaves_consuls) = (row.known(), self.leaves_consuls);
        self.read(line, known, |entry, operation| {
            if leaves_consuls && is_consuls(&entry) {
                return Err(Rejection::Foreign);
            }
            let pod = row.origin().pod;
            row.push(AccessEntry { pod, ..entry }.draft(operation)?)
        })
    }

    /// Reads one line and hands on what it says, with the place for the folded operation. A value that is `known` was
    /// read before, and is none of Envoy's.
    pub(super) fn read(
        &mut self,
        line: &str,
        known: Stretch,
        then: impl FnOnce(AccessEntry<'_>, &mut String) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        if !line.trim_ascii_start().starts_with('{') {
            return Err(Rejection::Foreign);
        }
        let unescaped: Unescaped = [const { OnceCell::new() }; KEYS];
        let mut fields = Fields::of(line, &unescaped);
        let mut lexer = Lexer::new(line).knowing(known);
        let read = fields.read(&mut lexer, &mut self.order).and_then(|()| lexer.end());
        if !fields.known && read.is_ok() {
            return Err(Rejection::Foreign);
        }
        read?;
        if !fields.started {
            return Err(Invalid::MissingField.into());
        }
        then(fields.entry, &mut self.operation)
    }

    /// Reads one line that stands in a JSON string, as it was written there: so it need not be unescaped first, nor its
    /// end be looked for. `head` begins with the line; what follows its last byte says where it was written, or that
    /// this is no line. Where this fails, only [`parse`](Self::parse) of the unescaped line can say why.
    pub fn parse_escaped<'r, 'o: 'r>(
        &mut self,
        head: &str,
        row: &mut Row<'r>,
        origin_after: &mut dyn FnMut(usize) -> Option<Origin<'o>>,
    ) -> Option<()> {
        let unescaped: Unescaped = [const { OnceCell::new() }; KEYS];
        let mut fields = Fields::of(head, &unescaped);
        let mut lexer = Lexer::escaped(head);
        fields.read(&mut lexer, &mut self.escaped_order).ok()?;
        if !fields.started || self.leaves_consuls && is_consuls(&fields.entry) {
            return None;
        }
        row.set_origin(origin_after(lexer.closed_at().ok()?)?);
        let entry = AccessEntry { pod: row.origin().pod, ..fields.entry };
        row.push(entry.draft(&mut self.operation).ok()?).ok()
    }
}

impl Order {
    fn remember<const ESCAPED: bool>(&mut self, place: usize, name: &str) -> Option<Key> {
        let key = key_of(name.as_bytes());
        if place == self.0.len() && place < MAX_REMEMBERED {
            self.0.push(Remembered::default());
        }
        if let Some(remembered) = self.0.get_mut(place) {
            let quote: &[u8] = if ESCAPED { b"\\\"" } else { b"\"" };
            remembered.quoted.clear();
            remembered.quoted.extend([quote, name.as_bytes(), quote, b":"].into_iter().flatten());
            remembered.key = key;
        }
        key
    }
}

/// One line in the reading.
struct Fields<'a> {
    line: &'a str,
    unescaped: &'a Unescaped,
    /// Whether there was any key that Envoy writes.
    known: bool,
    started: bool,
    entry: AccessEntry<'a>,
}

impl<'a> Fields<'a> {
    fn of(line: &'a str, unescaped: &'a Unescaped) -> Self {
        Self { line, unescaped, known: false, started: false, entry: AccessEntry::default() }
    }

    fn read<const ESCAPED: bool>(&mut self, lexer: &mut Lexer<'a, ESCAPED>, order: &mut Order) -> Result<(), Invalid> {
        lexer.begin()?;
        let mut place = 0;
        loop {
            let expected = order.0.get(place).filter(|expected| lexer.take_key(&expected.quoted));
            let key = match expected {
                Some(expected) => expected.key,
                None => match lexer.key()? {
                    Some(name) => order.remember::<ESCAPED>(place, name),
                    None => break,
                },
            };
            place += 1;
            match key {
                Some(key) => self.set(key, lexer)?,
                None => lexer.skip_value()?,
            }
        }
        Ok(())
    }

    #[inline]
    fn set<const ESCAPED: bool>(&mut self, key: Key, lexer: &mut Lexer<'a, ESCAPED>) -> Result<(), Invalid> {
        if key == Key::XForwardedFor {
            self.entry.forwarded = self.forwarded(lexer)?;
            return Ok(());
        }
        self.known = true;
        let value = match lexer.value()? {
            Value::Null => return Ok(()),
            Value::Text(text) => Found::Text(text.of(self.line)),
            Value::Number(number) => Found::Number(number.of(self.line)),
            Value::Escaped(escaped) => Found::Text(self.unescape::<ESCAPED>(key, escaped)?),
            Value::Bool(_) | Value::Object | Value::Array => return Err(Invalid::WrongType),
        };
        if let Found::Text("" | "-") = value {
            return Ok(());
        }
        self.fill(key, value)
    }

    fn forwarded<const ESCAPED: bool>(&self, lexer: &mut Lexer<'a, ESCAPED>) -> Result<Forwarded, Invalid> {
        match lexer.value()? {
            Value::Null => Ok(Forwarded::Nothing),
            Value::Text(text) => Ok(Forwarded::of(text.of(self.line))),
            Value::Escaped(_) | Value::Number(_) => Ok(Forwarded::Possibly),
            Value::Bool(_) | Value::Object | Value::Array => Err(Invalid::WrongType),
        }
    }

    fn unescape<const ESCAPED: bool>(&self, key: Key, escaped: Stretch) -> Result<&'a str, Invalid> {
        let mut text = String::new();
        unescape(escaped.of(self.line), &mut text)?;
        if ESCAPED {
            let once = std::mem::take(&mut text);
            unescape(&once, &mut text)?;
        }
        // The same key twice, with escapes each time: nothing that Envoy writes.
        self.unescaped[key as usize].set(text).map_err(|_| Invalid::Syntax)?;
        Ok(self.unescaped[key as usize].get().map_or("", String::as_str))
    }

    #[inline]
    fn fill(&mut self, key: Key, value: Found<'a>) -> Result<(), Invalid> {
        let entry = &mut self.entry;
        let slot = match key {
            Key::StartTime => {
                entry.start = rfc3339(value.text()?)?;
                self.started = true;
                return Ok(());
            }
            Key::Duration => return value.number().and_then(milliseconds).map(|span| entry.duration = Some(span)),
            Key::ResponseCode => return value.status().map(|status| entry.status = Some(status)),
            Key::GrpcStatusNumber => return value.status().map(|status| entry.grpc_status = Some(status)),
            Key::GrpcStatus => {
                entry.grpc_status = entry.grpc_status.or(value.grpc_status()?);
                return Ok(());
            }
            Key::BytesReceived => return value.number().map(|bytes| entry.bytes_received = Some(bytes)),
            Key::BytesSent => return value.number().map(|bytes| entry.bytes_sent = Some(bytes)),
            Key::DownstreamTransportFailureReason if !entry.transport_failure_reason.is_empty() => {
                return value.text().map(drop);
            }
            Key::AccessLogType => &mut entry.access_log_type,
            Key::Method => &mut entry.method,
            Key::Path => &mut entry.path,
            Key::Protocol => &mut entry.protocol,
            Key::Authority => &mut entry.authority,
            Key::RequestId => &mut entry.request_id,
            Key::StreamId => &mut entry.stream_id,
            Key::ResponseFlags => &mut entry.response_flags,
            Key::ResponseCodeDetails => &mut entry.response_code_details,
            Key::ConnectionTerminationDetails => &mut entry.connection_termination_details,
            Key::UpstreamTransportFailureReason | Key::DownstreamTransportFailureReason => {
                &mut entry.transport_failure_reason
            }
            Key::RequestedServerName => &mut entry.requested_server_name,
            Key::UpstreamCluster => &mut entry.upstream_cluster,
            Key::UpstreamHost => &mut entry.upstream_host,
            Key::UpstreamLocalAddress => &mut entry.upstream_local_address,
            Key::DownstreamLocalAddress => &mut entry.downstream_local_address,
            Key::DownstreamRemoteAddress => &mut entry.downstream_remote_address,
            Key::DownstreamDirectRemoteAddress => &mut entry.downstream_direct_remote_address,
            Key::XForwardedFor => return Ok(()),
            Key::DownstreamPeerUriSan => &mut entry.downstream_peer_uri_san,
            Key::DownstreamLocalUriSan => &mut entry.downstream_local_uri_san,
            Key::UpstreamPeerUriSan => &mut entry.upstream_peer_uri_san,
            Key::UpstreamLocalUriSan => &mut entry.upstream_local_uri_san,
            Key::DownstreamPeerSerial => &mut entry.downstream_peer_serial,
            Key::DownstreamPeerCertVStart => &mut entry.downstream_peer_cert_v_start,
            Key::DownstreamPeerCertVEnd => &mut entry.downstream_peer_cert_v_end,
            Key::DownstreamTlsVersion => &mut entry.downstream_tls_version,
            Key::TlsJa3Fingerprint => &mut entry.ja3,
            Key::TlsJa4Fingerprint => &mut entry.ja4,
            Key::NodeId => &mut entry.node_id,
        };
        *slot = value.text()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::{
        event::{EventBatch, EventBuilder, Kind, Outcome, Position},
        time::Span,
    };

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
    fn the_address_of_the_caller_is_its_instance_only_where_the_caller_has_not_said_it_itself() {
        let direct = r#""downstream_direct_remote_address":"10.0.0.9:1","#;
        for (keys, ip) in [
            ("", ""),
            (r#""x_forwarded_for":"10.0.0.7","#, ""),
            (r#""x_forwarded_for":"10.0.0.\u0037","#, ""),
            (r#""x_forwarded_for":null,"#, "10.0.0.7"),
            (r#""x_forwarded_for":"-","#, "10.0.0.7"),
            (direct, "10.0.0.9"),
            (&format!(r#"{direct}"x_forwarded_for":"10.0.0.7","#), "10.0.0.9"),
        ] {
            let (before, after) =
                (LINE.replacen('{', &format!("{{{keys}"), 1), LINE.replacen("\"path", &format!("{keys}\"path"), 1));
            for line in [before, after] {
                let batch = parse(&mut IstioJson::default(), &line).expect("an event");
                assert_eq!((batch.event(0).source().service(), batch.event(0).source().ip()), ("cart", ip), "{keys}");
            }
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
