//! An export of traces, as far as it is read; names are those of OTLP's JSON.

use std::borrow::Cow;

use serde::Deserialize;

use crate::parse::number::Whole;

type Text<'a> = Cow<'a, str>;

#[derive(Debug, Deserialize)]
pub(super) struct Export<'a> {
    #[serde(borrow, rename = "resourceSpans")]
    pub resource_spans: Option<Vec<ResourceSpans<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ResourceSpans<'a> {
    #[serde(borrow)]
    resource: Option<Resource<'a>>,
    /// `instrumentationLibrarySpans` of old exporters.
    #[serde(borrow, rename = "scopeSpans", alias = "instrumentationLibrarySpans")]
    scopes: Option<Vec<Scope<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    attributes: Option<Vec<Attribute<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Scope<'a> {
    #[serde(borrow)]
    spans: Option<Vec<Span<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Span<'a> {
    #[serde(borrow, rename = "spanId")]
    pub span_id: Option<Text<'a>>,
    #[serde(borrow, rename = "parentSpanId")]
    pub parent_span_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Enum<'a>>,
    #[serde(borrow, rename = "startTimeUnixNano")]
    pub start: Option<Whole<'a>>,
    #[serde(borrow, rename = "endTimeUnixNano")]
    pub end: Option<Whole<'a>>,
    #[serde(borrow)]
    attributes: Option<Vec<Attribute<'a>>>,
    #[serde(borrow)]
    status: Option<Status<'a>>,
}

#[derive(Debug, Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    code: Option<Enum<'a>>,
}

/// Enumerations are numbers by the standard, and names for some writers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Enum<'a> {
    Number(i64),
    #[serde(borrow)]
    Name(Text<'a>),
}

#[derive(Debug, Deserialize)]
struct Attribute<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow)]
    value: Option<AnyValue<'a>>,
}

#[derive(Debug, Deserialize)]
struct AnyValue<'a> {
    #[serde(borrow, rename = "stringValue")]
    text: Option<Text<'a>>,
    #[serde(borrow, rename = "intValue")]
    whole: Option<Whole<'a>>,
}

/// What a span is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Server,
    Client,
    Other,
}

/// Attributes of a span or of a resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(&'a [Attribute<'a>]);

impl<'a> ResourceSpans<'a> {
    pub(super) fn attributes(&'a self) -> Attributes<'a> {
        let attributes = self.resource.as_ref().and_then(|resource| resource.attributes.as_deref());
        Attributes(attributes.unwrap_or_default())
    }

    pub(super) fn spans(&'a self) -> impl Iterator<Item = &'a Span<'a>> {
        self.scopes.iter().flatten().flat_map(|scope| scope.spans.iter().flatten())
    }
}

impl<'a> Span<'a> {
    pub(super) fn kind(&self) -> Kind {
        match &self.kind {
            Some(Enum::Number(2)) => Kind::Server,
            Some(Enum::Number(3)) => Kind::Client,
            Some(Enum::Name(name)) if name == "SPAN_KIND_SERVER" => Kind::Server,
            Some(Enum::Name(name)) if name == "SPAN_KIND_CLIENT" => Kind::Client,
            _ => Kind::Other,
        }
    }

    pub(super) fn failed(&self) -> bool {
        match self.status.as_ref().and_then(|status| status.code.as_ref()) {
            Some(Enum::Number(code)) => *code == 2,
            Some(Enum::Name(name)) => name == "STATUS_CODE_ERROR",
            None => false,
        }
    }

    pub(super) fn attributes(&'a self) -> Attributes<'a> {
        Attributes(self.attributes.as_deref().unwrap_or_default())
    }
}

impl<'a> Attributes<'a> {
    fn value(&self, key: &str) -> Option<&'a AnyValue<'a>> {
        self.0.iter().find(|attribute| attribute.key == key)?.value.as_ref()
    }

    /// The text of the first of these keys that has one: newer conventions before older.
    pub(super) fn first(&self, keys: &[&str]) -> &'a str {
        let mut texts = keys.iter().filter_map(|key| self.value(key)?.text.as_deref());
        texts.find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// A whole number, written as one or as a text.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let value = self.value(key)?;
        let whole = value.whole.as_ref().and_then(|whole| whole.value().ok().flatten());
        whole.or_else(|| value.text.as_deref()?.parse().ok())
    }

    pub(super) fn size(&self, keys: &[&str]) -> Option<u64> {
        keys.iter().find_map(|key| self.number(key))
    }

    pub(super) fn port(&self, keys: &[&str]) -> u16 {
        self.size(keys).and_then(|port| u16::try_from(port).ok()).unwrap_or_default()
    }
}
