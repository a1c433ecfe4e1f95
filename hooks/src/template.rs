//! Texts with names of an order in them, as `{service}`, escaped for where they stand.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use qualm_model::time::Timestamp;

use crate::order::Order;

/// What may stand in a path or a query as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The names.
pub const NAMES: [&str; 15] = [
    "identity",
    "principal",
    "trust_domain",
    "namespace",
    "service",
    "path",
    "cluster",
    "workload",
    "instance",
    "level",
    "decision",
    "reason",
    "bits",
    "expires",
    "key",
];

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// As it is.
    None,
    /// In a URL: everything but letters, digits and `-_.~` is percent-encoded.
    Url,
    /// Within a string of JSON.
    Json,
}

/// A text with names in braces; `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// There is no such name.
    #[error("`{{{0}}}` is not known; one of {known}; a brace itself is written twice", known = NAMES.join(", "))]
    Unknown(String),
    /// A brace is alone.
    #[error("a brace is not closed, or not opened; a brace itself is written twice")]
    Unbalanced,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// A name is not known, or a brace is alone.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' | '}' if rest.next_if_eq(&c).is_some() => plain.push(c),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match rest.next() {
                            Some('}') => break,
                            Some(c) if c != '{' => name.push(c),
                            _ => return Err(InvalidTemplate::Unbalanced),
                        }
                    }
                    if !NAMES.contains(&name.as_str()) {
                        return Err(InvalidTemplate::Unknown(name));
                    }
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Name(name));
                }
                '}' => return Err(InvalidTemplate::Unbalanced),
                c => plain.push(c),
            }
        }
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// The text for an order. A part that the order does not have is an error: nothing is guessed.
    ///
    /// # Errors
    /// The name of what is missing.
    pub fn fill(&self, order: &Order, key: &str, escape: Escape) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Name(name) => {
                    let value = value(name, order, key).ok_or_else(|| name.clone())?;
                    match escape {
                        Escape::None => text.push_str(&value),
                        Escape::Url => text.extend(utf8_percent_encode(&value, PATH)),
                        Escape::Json => text.push_str(&json(&value)),
                    }
                }
            }
        }
        Ok(text)
    }
}

/// A part of a URL's path.
pub fn in_url(value: &str) -> String {
    utf8_percent_encode(value, PATH).to_string()
}

fn json(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn value(name: &str, order: &Order, key: &str) -> Option<String> {
    let subject = &order.subject;
    let place = subject.place();
    let text = |text: &str| Some(text.to_owned());
    match name {
        "identity" => Some(crate::order::Subject { instance: None, ..subject.clone() }.to_string()),
        "principal" => text(&subject.principal),
        "trust_domain" => place.trust_domain.and_then(text),
        "namespace" => place.namespace.and_then(text),
        "service" => text(place.service),
        "path" => {
            let path = subject.principal.strip_prefix("spiffe://")?;
            path.find('/').map(|at| path[at..].to_owned())
        }
        "cluster" => subject.cluster.clone(),
        "workload" => subject.workload.clone(),
        // A body is written for every order: who means all instances says so by an empty text.
        "instance" => Some(subject.instance.clone().unwrap_or_default()),
        "level" => text(order.level.as_str()),
        "decision" => text(&order.decision),
        "reason" => Some(order.reasons.first().cloned().unwrap_or_default()),
        "bits" => Some(format!("{:.1}", order.evidence_bits)),
        "expires" => Some(rfc3339(order.expires)),
        "key" => text(key),
        _ => None,
    }
}

/// RFC 3339, UTC, to the second.
pub fn rfc3339(time: Timestamp) -> String {
    let seconds = time.0.div_euclid(1_000_000_000);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use qualm_model::level::Level;

    use super::*;
    use crate::order::tests::order;

    fn filled(text: &str, principal: &str, escape: Escape) -> Result<String, String> {
        Template::parse(text).unwrap().fill(&order(principal, Level::Quarantined), "k", escape)
    }

    #[test]
    fn names_are_filled_in_and_escaped_for_where_they_stand() {
        let cart = "spiffe://mesh.test/ns/shop/sa/cart";
        assert_eq!(filled("{namespace}-{service}", cart, Escape::None).unwrap(), "shop-cart");
        assert_eq!(
            filled("/block/{principal}?until={expires}", cart, Escape::Url).unwrap(),
            "/block/spiffe%3A%2F%2Fmesh.test%2Fns%2Fshop%2Fsa%2Fcart?until=1970-01-01T01%3A01%3A40Z"
        );
        let hostile = "a\",\"admin\":\"true\n";
        let body = filled(r#"{{"who":"{principal}"}}"#, hostile, Escape::Json).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, serde_json::json!({ "who": hostile }));
    }

    #[test]
    fn what_an_order_does_not_have_is_never_guessed() {
        assert_eq!(filled("{namespace}/{service}", "cart", Escape::Url), Err("namespace".to_owned()));
    }

    #[test]
    fn a_wrong_name_is_told_with_those_that_are_known() {
        let error = Template::parse("{servise}").unwrap_err().to_string();
        assert!(error.contains("`{servise}`") && error.contains("service"), "{error}");
        assert_eq!(Template::parse("{"), Err(InvalidTemplate::Unbalanced));
        assert_eq!(Template::parse("}"), Err(InvalidTemplate::Unbalanced));
    }
}
