//! OTLP logs as a collector writes them to Kafka: `ExportLogsServiceRequest` as Protobuf or JSON. Each of its log records
//! is a record of its own, at the same position.

mod json;
mod spans;

use std::borrow::Cow;

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
};
use prost::Message as _;
use qualm_model::time::Timestamp;

use super::{
    Contents, Opener, Wrapping, is_taken,
    object::{Key, Place},
};
use crate::{
    parse::{Origin, json::unescape, time::sensible},
    source::{Invalid, Rejection},
};

/// Keys of Envoy's access logs of which one at least says that attributes are one.
const ACCESS_KEYS: [&str; 5] =
    ["response_code", "response_flags", "upstream_host", "upstream_cluster", "downstream_remote_address"];
/// The attribute that the time of the log record stands in for.
const START_TIME: &str = "start_time";

pub(super) fn key(path: &[u8]) -> Option<Key> {
    match path {
        b"resourceLogs" | b"resource_logs" => Some(Key::Otlp),
        _ => place(path).map(Key::Place),
    }
}

/// The names of OpenTelemetry's resource attributes.
fn place(name: &[u8]) -> Option<Place> {
    Some(match name {
        b"k8s.cluster.name" => Place::Cluster,
        b"k8s.namespace.name" => Place::Namespace,
        b"k8s.pod.name" => Place::Pod,
        b"k8s.pod.ip" => Place::PodIp,
        b"k8s.node.name" => Place::Node,
        b"host.name" => Place::Host,
        b"k8s.container.name" => Place::Container,
        b"k8s.deployment.name"
        | b"k8s.statefulset.name"
        | b"k8s.daemonset.name"
        | b"k8s.cronjob.name"
        | b"k8s.job.name"
        | b"k8s.replicaset.name" => Place::Owner,
        b"k8s.pod.labels.version" | b"k8s.pod.label.version" | b"service.version" => Place::Version,
        _ => return None,
    })
}

/// Takes a header of a Kafka message into the origin.
pub(crate) fn header<'a>(name: &str, value: &'a str, origin: &mut Origin<'a>) {
    let place = match name {
        "cluster" => Place::Cluster,
        "namespace" => Place::Namespace,
        "pod" => Place::Pod,
        "pod_ip" => Place::PodIp,
        "node" => Place::Node,
        "container" => Place::Container,
        "owner" => Place::Owner,
        "version" => Place::Version,
        other => match place(other.as_bytes()) {
            Some(place) => place,
            None => return,
        },
    };
    put(place, value, origin);
}

fn put<'a>(place: Place, value: &'a str, origin: &mut Origin<'a>) {
    let slot = match place {
        Place::Cluster => &mut origin.cluster,
        Place::Namespace => &mut origin.namespace,
        Place::Pod => &mut origin.pod,
        Place::PodIp => &mut origin.pod_ip,
        Place::Node | Place::Host => &mut origin.node,
        Place::Container => &mut origin.container,
        Place::Owner => &mut origin.owner,
        Place::Version => &mut origin.version,
    };
    let is_nearer = place == Place::Owner && value.len() < slot.len();
    if slot.is_empty() || is_nearer {
        *slot = value;
    }
}

/// Whether an object is a request in JSON: it has no other key in front.
#[inline]
pub(super) fn is_json(text: &str) -> bool {
    let key = text.get(1..).unwrap_or_default().trim_ascii_start();
    key.starts_with("\"resourceLogs\"") || key.starts_with("\"resource_logs\"")
}

/// The first byte of a request that has anything in it; no text begins with a line end.
#[inline]
pub(super) fn may_be_protobuf(record: &[u8]) -> bool {
    record.first() == Some(&0x0a)
}

/// A request, whichever way it was written.
#[derive(Debug, Default)]
struct Request<'a> {
    resource_logs: Vec<ResourceLogs<'a>>,
}

#[derive(Debug, Default)]
struct ResourceLogs<'a> {
    resource: Resource<'a>,
    scope_logs: Vec<ScopeLogs<'a>>,
}

#[derive(Debug, Default)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Debug, Default)]
struct ScopeLogs<'a> {
    log_records: Vec<LogRecord<'a>>,
}

#[derive(Debug, Default)]
struct LogRecord<'a> {
    time_unix_nano: i64,
    observed_time_unix_nano: i64,
    body: Body<'a>,
    attributes: Vec<Attribute<'a>>,
}

#[derive(Debug, Default)]
struct Attribute<'a> {
    key: &'a str,
    value: Body<'a>,
}

/// A value of any kind. Lists and bytes say nothing here.
#[derive(Debug, Default)]
struct Body<'a> {
    string_value: Option<Words<'a>>,
    int_value: Option<i64>,
    double_value: Option<f64>,
    bool_value: Option<bool>,
    kvlist_value: Option<Vec<Attribute<'a>>>,
}

/// A text.
#[derive(Debug, Clone, Copy)]
enum Words<'a> {
    Plain(&'a str),
    /// As it was written in JSON: it has escapes in it.
    Escaped(&'a str),
}

impl<'a> Words<'a> {
    fn text(self) -> Cow<'a, str> {
        match self {
            Self::Plain(text) => Cow::Borrowed(text),
            Self::Escaped(written) => {
                let mut text = String::new();
                match unescape(written, &mut text) {
                    Ok(()) => Cow::Owned(text),
                    Err(_) => Cow::Borrowed(""),
                }
            }
        }
    }

    /// A name: none has escapes in it.
    fn plain(self) -> &'a str {
        match self {
            Self::Plain(text) => text,
            Self::Escaped(_) => "",
        }
    }
}

impl<'a> Request<'a> {
    fn of(request: &'a ExportLogsServiceRequest) -> Self {
        let resource_logs = request.resource_logs.iter().map(|logs| {
            let attributes = logs.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
            let scope_logs = logs
                .scope_logs
                .iter()
                .map(|scope| ScopeLogs { log_records: scope.log_records.iter().map(LogRecord::of).collect() });
            ResourceLogs {
                resource: Resource { attributes: attributes.iter().map(Attribute::of).collect() },
                scope_logs: scope_logs.collect(),
            }
        });
        Self { resource_logs: resource_logs.collect() }
    }
}

impl<'a> LogRecord<'a> {
    fn of(record: &'a opentelemetry_proto::tonic::logs::v1::LogRecord) -> Self {
        let time = |nanoseconds: u64| i64::try_from(nanoseconds).unwrap_or(0);
        Self {
            time_unix_nano: time(record.time_unix_nano),
            observed_time_unix_nano: time(record.observed_time_unix_nano),
            body: Body::of(record.body.as_ref()),
            attributes: record.attributes.iter().map(Attribute::of).collect(),
        }
    }

    fn time(&self) -> Option<Timestamp> {
        let times = [self.time_unix_nano, self.observed_time_unix_nano];
        let time = times.into_iter().find(|&time| time != 0)?;
        sensible(i128::from(time)).ok()
    }

    /// The body's entries and the attributes as a JSON object, as a format of JSON lines would have had them.
    fn as_object(&self, out: &mut String) {
        let entries = self.body.kvlist_value.as_deref().unwrap_or_default();
        let all = || entries.iter().chain(&self.attributes);
        write_object(all(), out);
        let has = |keys: &[&str]| all().any(|attribute| keys.contains(&attribute.key));
        if let Some(time) = self.time()
            && !has(&[START_TIME])
            && has(&ACCESS_KEYS)
            && let Ok(time) = jiff::Timestamp::from_nanosecond(time.0.into())
        {
            out.pop();
            out.push_str(&format!(",\"{START_TIME}\":\"{time}\"}}"));
        }
    }
}

impl<'a> Attribute<'a> {
    fn of(attribute: &'a KeyValue) -> Self {
        Self { key: &attribute.key, value: Body::of(attribute.value.as_ref()) }
    }

    fn text(&self) -> &'a str {
        self.value.string_value.map_or("", Words::plain)
    }
}

impl<'a> Body<'a> {
    fn of(value: Option<&'a AnyValue>) -> Self {
        let mut body = Self::default();
        match value.and_then(|value| value.value.as_ref()) {
            Some(Any::StringValue(text)) => body.string_value = Some(Words::Plain(text)),
            Some(Any::IntValue(number)) => body.int_value = Some(*number),
            Some(Any::DoubleValue(number)) => body.double_value = Some(*number),
            Some(Any::BoolValue(is_so)) => body.bool_value = Some(*is_so),
            Some(Any::KvlistValue(list)) => {
                body.kvlist_value = Some(list.values.iter().map(Attribute::of).collect());
            }
            _ => {}
        }
        body
    }

    fn write(&self, out: &mut String) {
        if let Some(text) = self.string_value {
            write_text(&text.text(), out);
        } else if let Some(number) = self.int_value {
            out.push_str(&number.to_string());
        } else if let Some(number) = self.double_value.filter(|number| number.is_finite()) {
            out.push_str(&number.to_string());
        } else if let Some(is_so) = self.bool_value {
            out.push_str(if is_so { "true" } else { "false" });
        } else if let Some(list) = &self.kvlist_value {
            write_object(list.iter(), out);
        } else {
            out.push_str("null");
        }
    }
}

fn write_object<'a>(entries: impl Iterator<Item = &'a Attribute<'a>>, out: &mut String) {
    out.push('{');
    let start = out.len();
    for entry in entries {
        if out.len() > start {
            out.push(',');
        }
        write_text(entry.key, out);
        out.push(':');
        entry.value.write(out);
    }
    out.push('}');
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

impl Opener {
    /// Opens a request in Protobuf.
    pub(super) fn open_protobuf(
        &mut self,
        record: &[u8],
        outer: &Wrapping<'_>,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        if let Ok(request) = ExportLogsServiceRequest::decode(record) {
            return self.open_request(&Request::of(&request), outer, 0, contents);
        }
        if let Some(spans) = spans::as_json(record) {
            return contents.take(&spans, &outer.origin);
        }
        // A line after an empty one.
        let text = str::from_utf8(record).map_err(|_| Invalid::Syntax)?;
        self.open(text.trim_ascii_start(), outer, 0, contents)
    }

    /// Opens a request in JSON.
    pub(super) fn open_otlp_json(
        &mut self,
        text: &str,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        self.open_request(&json::request(text)?, outer, depth, contents)
    }

    /// The only log record makes the outcome; of several, those that make nothing are refused each for itself.
    fn open_request(
        &mut self,
        request: &Request<'_>,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let records = || request.resource_logs.iter().flat_map(|logs| &logs.scope_logs).flat_map(|of| &of.log_records);
        let is_only = records().nth(1).is_none();
        let mut outcome = Err(Rejection::Foreign);
        for logs in &request.resource_logs {
            let within = placed(&logs.resource.attributes, outer);
            for record in logs.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                let found = self.open_log_record(record, &within, depth, contents);
                if is_only {
                    return found;
                }
                if let Err(why) = found {
                    contents.refuse(why);
                }
                outcome = Ok(());
            }
        }
        outcome
    }

    fn open_log_record(
        &mut self,
        record: &LogRecord<'_>,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let mut within = placed(&record.attributes, outer);
        within.origin.time = record.time().or(outer.origin.time);
        let mut outcome = Err(Rejection::Foreign);
        if let Some(line) = record.body.string_value {
            outcome = self.open_body(line, &within, depth, contents);
            if is_taken(outcome) {
                return outcome;
            }
        }
        if record.attributes.is_empty() && record.body.kvlist_value.is_none() {
            return outcome;
        }
        let mut object = String::new();
        record.as_object(&mut object);
        let lifted = contents.take(&object, &within.origin);
        if is_taken(lifted) || outcome == Err(Rejection::Foreign) { lifted } else { outcome }
    }
}

impl Opener {
    fn open_body(
        &mut self,
        line: Words<'_>,
        within: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let written = match line {
            Words::Plain(text) => return self.open_line(text.trim_ascii_end(), false, within, depth, contents),
            Words::Escaped(written) => written,
        };
        if self.partials.is_empty()
            && written.starts_with("{\\\"")
            && contents
                .take_escaped(written, &mut |end| is_line_end(&written[end..]).then_some(within.origin))
                .is_some()
        {
            return Ok(());
        }
        let mut text = String::new();
        unescape(written, &mut text)?;
        self.open_line(text.trim_ascii_end(), false, within, depth, contents)
    }
}

/// Whether nothing but the end of a line is left of an escaped text.
fn is_line_end(rest: &str) -> bool {
    matches!(rest, "" | "\\n" | "\\r\\n")
}

/// What attributes say of the origin, with what is known of it already, which is believed before them.
fn placed<'a>(attributes: &[Attribute<'a>], outer: &Wrapping<'a>) -> Wrapping<'a> {
    let mut own = Origin::default();
    let mut within = *outer;
    for attribute in attributes {
        match attribute.key {
            "log.file.path" => within.file = attribute.text(),
            "log.iostream" => within.stream = attribute.text(),
            name => {
                if let Some(place) = place(name.as_bytes()) {
                    put(place, attribute.text(), &mut own);
                }
            }
        }
    }
    within.origin = outer.origin.or(&own);
    within
}
