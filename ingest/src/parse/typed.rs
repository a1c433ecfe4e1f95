//! JSON records of low volume, read into a type by serde.

use std::{borrow::Cow, fmt, ops::Deref};

use qualm_model::fold;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, error::Category};

use super::{Row, clip};
use crate::source::{Invalid, Rejection};

/// Reads one JSON object. What is no object is foreign; a value of another type than the field's is
/// [`Invalid::WrongType`], everything else that is not well-formed [`Invalid::Syntax`].
///
/// Fields are best optional: whether one is missing is for the format to say.
pub(crate) fn object<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, Rejection> {
    if !line.trim_ascii_start().starts_with('{') {
        return Err(Rejection::Foreign);
    }
    serde_json::from_str(line).map_err(|error| invalid(&error).into())
}

/// Reads the entries of a record that is one object, an array of them, or an object with the array under `key`.
///
/// Of a record of several entries those that are rejected are told to the row, and the others are read all the same.
pub(super) fn entries(
    line: &str,
    key: &str,
    row: &mut Row<'_>,
    mut read: impl FnMut(&Value, &mut Row<'_>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let text = line.trim_ascii_start();
    // `[main] starting up` is a line of an application.
    let is_array = text.strip_prefix('[').is_some_and(|rest| rest.trim_ascii_start().starts_with('{'));
    if !is_array && !text.starts_with('{') {
        return Err(Rejection::Foreign);
    }
    let value: Value = serde_json::from_str(text).map_err(|error| invalid(&error))?;
    let Some(several) = value.as_array().or_else(|| value.get(key).and_then(Value::as_array)) else {
        return read(&value, row);
    };
    for entry in several {
        if let Err(why) = read(entry, row) {
            row.refuse(why);
        }
    }
    Ok(())
}

/// One entry of several as a type.
pub(super) fn entry<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, Rejection> {
    if !value.is_object() {
        return Err(Rejection::Foreign);
    }
    T::deserialize(value).map_err(|error| invalid(&error).into())
}

/// What a log says of why, bounded, with what could be a secret folded: who writes there is not always the log's own
/// program. A status stays.
pub(super) fn reason(text: &str) -> String {
    let mut folded = String::new();
    fold::append_sample(clip(text), &mut folded);
    folded
}

/// What serde says of a record, in our words.
pub(super) fn invalid(error: &serde_json::Error) -> Invalid {
    match error.classify() {
        // A duplicate of a wanted key is of the syntax's making too, but serde tells of it as it tells of types.
        Category::Data => Invalid::WrongType,
        Category::Syntax | Category::Eof | Category::Io => Invalid::Syntax,
    }
}

/// A text that is empty where the record has `null`, and borrowed where it has no escapes. Numbers are taken as they
/// are written: what is a number to one version of a product is a text to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    /// A text that the record does not hold.
    pub(super) fn of(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> de::Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or null")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text<'de>, E> {
        Ok(Text::default())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }
}

/// The first text that is not empty.
pub(super) fn first<const N: usize>(texts: [&str; N]) -> &str {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// An address, or nothing where the field holds a word (`AWS Internal`, `private`) or an address with a port.
pub(super) fn address(text: &str) -> &str {
    if text.parse::<std::net::IpAddr>().is_ok() { text } else { "" }
}

/// The text at a JSON pointer; empty where there is none.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
