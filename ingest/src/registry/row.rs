//! A row in the making: JSON of a bounded length and depth, as the formats read it.

use std::fmt::{Display, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{parse::json, source::Invalid};

/// Values within values; deeper ones the formats would not read either.
pub(super) const MAX_DEPTH: u32 = json::MAX_DEPTH;

/// Writes JSON into a text that is used again.
#[derive(Debug)]
pub(super) struct RowText<'a> {
    out: &'a mut String,
    max_bytes: usize,
}

impl<'a> RowText<'a> {
    /// An empty row in `out`, of `max_bytes` at most.
    pub(super) fn begin(out: &'a mut String, max_bytes: usize) -> Self {
        out.clear();
        Self { out, max_bytes }
    }

    /// Punctuation, a key with its colon, a word: JSON as it stands.
    #[inline]
    pub(super) fn raw(&mut self, json: &str) -> Result<(), Invalid> {
        self.room_for(json.len())?;
        self.out.push_str(json);
        Ok(())
    }

    /// What separates a value from the one before, where there is one.
    #[inline]
    pub(super) fn comma(&mut self, is_first: &mut bool) -> Result<(), Invalid> {
        if std::mem::take(is_first) { Ok(()) } else { self.raw(",") }
    }

    pub(super) fn shown(&mut self, value: impl Display) -> Result<(), Invalid> {
        // Numbers and times: never long, and a text takes them all.
        let _ = write!(self.out, "{value}");
        self.room_for(0)
    }

    /// A number; what is none in JSON becomes a text.
    pub(super) fn float(&mut self, value: f64) -> Result<(), Invalid> {
        if value.is_finite() { self.shown(value) } else { self.shown(format_args!("\"{value}\"")) }
    }

    /// A text of digits, a time: nothing in it needs to be escaped.
    pub(super) fn quoted(&mut self, value: impl Display) -> Result<(), Invalid> {
        self.shown(format_args!("\"{value}\""))
    }

    #[inline]
    pub(super) fn text(&mut self, text: &str) -> Result<(), Invalid> {
        self.room_for(text.len() + 2)?;
        self.out.push('"');
        if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
            escape(text, self.out);
        } else {
            self.out.push_str(text);
        }
        self.out.push('"');
        self.room_for(0)
    }

    /// Bytes are Base64, as in Protobuf's own JSON.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Invalid> {
        self.room_for(bytes.len())?;
        self.out.push('"');
        STANDARD.encode_string(bytes, self.out);
        self.raw("\"")
    }

    #[inline]
    fn room_for(&self, more: usize) -> Result<(), Invalid> {
        if self.out.len().saturating_add(more) > self.max_bytes { Err(Invalid::TooLong) } else { Ok(()) }
    }
}

/// A key with its colon.
pub(super) fn key(name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 3);
    key.push('"');
    escape(name, &mut key);
    key.push_str("\":");
    key
}

fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_json_whatever_is_in_it_and_never_longer_than_allowed() {
        let mut out = String::new();
        let mut row = RowText::begin(&mut out, 200);
        row.raw("[").expect("room");
        let mut is_first = true;
        for text in ["plain", "a \"b\" \\ \n\u{1}é"] {
            row.comma(&mut is_first).expect("room");
            row.text(text).expect("room");
        }
        row.raw(",").and_then(|()| row.float(f64::NAN)).expect("room");
        row.raw(",").and_then(|()| row.float(1e300)).expect_err("301 digits");
        let mut row = RowText::begin(&mut out, 100);
        row.raw("[").and_then(|()| row.text("a \"b\" \\ \n\u{1}é")).expect("room");
        row.raw(",").and_then(|()| row.float(f64::NAN)).expect("room");
        row.raw(",").and_then(|()| row.bytes(b"\0\xff")).and_then(|()| row.raw("]")).expect("room");
        let read: Vec<String> = serde_json::from_str(&out).expect("JSON");
        assert_eq!(read, ["a \"b\" \\ \n\u{1}é", "NaN", "AP8="]);
        for (text, bytes) in [("x".repeat(9), ""), ("\u{1}".repeat(3), ""), (String::new(), "123456789")] {
            let mut row = RowText::begin(&mut out, 10);
            let written = row.text(&text).and_then(|()| row.bytes(bytes.as_bytes()));
            assert_eq!(written, Err(Invalid::TooLong), "{text:?}");
        }
    }
}
