//! OTLP logs as a collector writes them to Kafka: `ExportLogsServiceRequest` as Protobuf or JSON. Each of its log records
//! is a record of its own, at the same position.

mod json;
mod request;
mod spans;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;

use self::{
    json::Walk,
    request::{Attribute, Body, LogRecord, Words},
};
use super::{
    Contents, Opener, Wrapping, is_taken,
    memo::Memo,
    object::{Key, Object, Place},
    passed::Kind,
    path,
};
use crate::{
    parse::{Origin, json::unescape},
    source::{Invalid, Rejection},
};

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

impl Opener {
    /// Opens a request in Protobuf.
    pub(super) fn open_protobuf(
        &mut self,
        record: &[u8],
        outer: &Wrapping<'_>,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        if let Ok(request) = ExportLogsServiceRequest::decode(record) {
            self.passed.note(Kind::OtlpProtobuf);
            return self.open_request(&request, outer, contents);
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
        if self.partials.is_empty() && self.open_alike(text, outer, contents).is_some() {
            self.passed.note(Kind::OtlpJson);
            return Ok(());
        }
        let mut walk = Walk::new(text, outer)?;
        let (mut outcomes, mut has_more) = (Outcomes::default(), walk.advance(&mut self.memo)?);
        self.passed.note(Kind::OtlpJson);
        while has_more {
            match self.open_next(&mut walk, depth, contents) {
                Ok((found, more)) => {
                    outcomes.add(found, contents);
                    has_more = more;
                }
                Err(why) => return outcomes.cut_off(why, contents),
            }
        }
        if outcomes.only() == Some(Ok(()))
            && self.otlp_molds.has_room()
            && let Some(object) = alone(text)
        {
            self.otlp_molds.keep(text, &Object::default(), object);
        }
        outcomes.whole()
    }

    /// Opens the record that is next, and goes on to the one after it: what became of it, and whether there is one.
    ///
    /// Errors: the text is not well-formed up to there; nothing became of the record.
    fn open_next(
        &mut self,
        walk: &mut Walk<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(Result<(), Rejection>, bool), Invalid> {
        let before = walk.clone();
        if self.partials.is_empty()
            && let Some(has_more) = walk.take_in_place(contents, &mut self.memo)
        {
            return Ok((Ok(()), has_more));
        }
        *walk = before;
        let within = walk.within();
        let record = walk.log_record()?;
        let has_more = walk.advance(&mut self.memo)?;
        Ok((self.open_log_record(&record, &within, depth, contents), has_more))
    }

    /// Opens a request of one record, like one before.
    fn open_alike(&mut self, text: &str, outer: &Wrapping<'_>, contents: &mut impl Contents) -> Option<()> {
        let molds = &self.otlp_molds;
        let fitting = molds.begin(text)?;
        let start = fitting.record();
        contents.take_escaped(&text[start..], &mut |end| {
            let object = molds.finish(fitting, text, start + end)?;
            Some(object.wrapping(text, outer).origin)
        })
    }

    fn open_request(
        &mut self,
        request: &ExportLogsServiceRequest,
        outer: &Wrapping<'_>,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let mut outcomes = Outcomes::default();
        for logs in &request.resource_logs {
            let resource = logs.resource.iter().flat_map(|resource| &resource.attributes);
            let within = placed(&resource.map(Attribute::of).collect::<Vec<_>>(), outer);
            for record in logs.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                let found = self.open_log_record(&LogRecord::of(record), &within, 0, contents);
                outcomes.add(found, contents);
            }
        }
        outcomes.whole()
    }

    fn open_log_record(
        &mut self,
        record: &LogRecord<'_>,
        outer: &Wrapping<'_>,
        depth: u32,
        contents: &mut impl Contents,
    ) -> Result<(), Rejection> {
        let within = record.placed(outer);
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

/// What became of a request's records so far.
#[derive(Debug, Default)]
struct Outcomes {
    first: Option<Result<(), Rejection>>,
    is_several: bool,
}

impl Outcomes {
    fn add(&mut self, found: Result<(), Rejection>, contents: &mut impl Contents) {
        let Some(first) = self.first else {
            self.first = Some(found);
            return;
        };
        let first = if self.is_several { Ok(()) } else { first };
        self.is_several = true;
        [first, found].into_iter().filter_map(Result::err).for_each(|why| contents.refuse(why));
    }

    /// What became of the only record there is.
    fn only(&self) -> Option<Result<(), Rejection>> {
        self.first.filter(|_| !self.is_several)
    }

    /// The only record makes the outcome; of several, those that make nothing were refused each for itself.
    fn whole(self) -> Result<(), Rejection> {
        if self.is_several { Ok(()) } else { self.first.unwrap_or(Err(Rejection::Foreign)) }
    }

    /// The outcome of a request that is not well-formed after these: what came before was read, what comes after is lost
    /// and counts as one.
    fn cut_off(mut self, why: Invalid, contents: &mut impl Contents) -> Result<(), Rejection> {
        if self.first.is_none() {
            return Err(why.into());
        }
        self.add(Err(why.into()), contents);
        Ok(())
    }
}

/// What a request says of its only record, where that is a line that can be read as it was written.
fn alone(text: &str) -> Option<Object> {
    let mut walk = Walk::new(text, &Wrapping::default()).ok()?;
    walk.advance(&mut Memo::default()).ok()?.then_some(())?;
    let within = walk.within();
    let record = walk.log_record().ok()?;
    let Some(Words::Escaped(line)) = record.body.string_value else { return None };
    if !line.starts_with("{\\\"") {
        return None;
    }
    Object::of_otlp(text, line, &placed(&record.attributes, &within), record.written)
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
            // A label of Promtail's and Alloy's.
            "filename" if !within.file.is_empty() => {}
            "log.file.path" | "filename" => within.file = attribute.text(),
            "log.iostream" => within.stream = attribute.text(),
            name => {
                if let Some(place) = place(name.as_bytes()) {
                    put(place, attribute.text(), &mut own);
                }
            }
        }
    }
    within.origin = outer.origin.or(&path::fill(own, within.file));
    within
}
