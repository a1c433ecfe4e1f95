//! A log record, whichever way its request was written.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use qualm_model::time::Timestamp;

use super::placed;
use crate::{
    envelope::Wrapping,
    parse::{json::unescape, time::sensible},
};

/// Keys of Envoy's access logs of which one at least says that attributes are one.
const ACCESS_KEYS: [&str; 5] =
    ["response_code", "response_flags", "upstream_host", "upstream_cluster", "downstream_remote_address"];
/// The attribute that the time of the log record stands in for.
const START_TIME: &str = "start_time";

#[derive(Debug, Default)]
pub(super) struct LogRecord<'a> {
    pub(super) time_unix_nano: i64,
    pub(super) observed_time_unix_nano: i64,
    /// The one of both that counts, as it was written in JSON.
    pub(super) written: &'a str,
    pub(super) body: Body<'a>,
    pub(super) attributes: Vec<Attribute<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Attribute<'a> {
    pub(super) key: &'a str,
    pub(super) value: Body<'a>,
}

/// A value of any kind. Lists and bytes say nothing here.
#[derive(Debug, Default)]
pub(super) struct Body<'a> {
    pub(super) string_value: Option<Words<'a>>,
    pub(super) int_value: Option<i64>,
    pub(super) double_value: Option<f64>,
    pub(super) bool_value: Option<bool>,
    pub(super) kvlist_value: Option<Vec<Attribute<'a>>>,
}

/// A text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Words<'a> {
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
    pub(super) fn plain(self) -> &'a str {
        match self {
            Self::Plain(text) => text,
            Self::Escaped(_) => "",
        }
    }
}

impl<'a> LogRecord<'a> {
    pub(super) fn of(record: &'a opentelemetry_proto::tonic::logs::v1::LogRecord) -> Self {
        let time = |nanoseconds: u64| i64::try_from(nanoseconds).unwrap_or(0);
        Self {
            time_unix_nano: time(record.time_unix_nano),
            observed_time_unix_nano: time(record.observed_time_unix_nano),
            written: "",
            body: Body::of(record.body.as_ref()),
            attributes: record.attributes.iter().map(Attribute::of).collect(),
        }
    }

    /// What it says of its origin, with what is known of it already, which is believed before it.
    pub(super) fn placed(&self, outer: &Wrapping<'a>) -> Wrapping<'a> {
        let mut within = placed(&self.attributes, outer);
        within.origin.time = self.time().or(outer.origin.time);
        within
    }

    pub(super) fn time(&self) -> Option<Timestamp> {
        let times = [self.time_unix_nano, self.observed_time_unix_nano];
        let time = times.into_iter().find(|&time| time != 0)?;
        sensible(i128::from(time)).ok()
    }

    /// The body's entries and the attributes as a JSON object, as a format of JSON lines would have had them.
    pub(super) fn as_object(&self, out: &mut String) {
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
    pub(super) fn of(attribute: &'a KeyValue) -> Self {
        Self { key: &attribute.key, value: Body::of(attribute.value.as_ref()) }
    }

    pub(super) fn text(&self) -> &'a str {
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
