//! A pull lexer over one JSON line: one pass, nothing allocated, what is not wanted is only stepped over.
//!
//! The text is known to be UTF-8. What is skipped is checked for balance, strings and literals, not for every rule
//! of RFC 8259; a line that is cut off or ill-formed where it is read is [`Invalid::Syntax`].

use crate::source::Invalid;

/// Deeper lines are refused.
pub const MAX_DEPTH: u32 = 32;

/// A stretch of the line, or of a scratch text, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stretch {
    start: u32,
    end: u32,
}

impl Stretch {
    /// From byte `start` up to `end`. Lines are shorter than 4 GiB by their bound.
    #[inline]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// First byte, and the byte after the last.
    pub fn bounds(self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }

    /// What it covers in `text`.
    #[inline]
    pub fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end as usize]
    }
}

/// A value as it is found; the content of objects and arrays is still to be read or skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Digits, sign, fraction and exponent, as written.
    Number(Stretch),
    /// A string without escapes, quotes excluded.
    Text(Stretch),
    /// A string with escapes in it: [`unescape`] it.
    Escaped(Stretch),
    /// Its brace is read.
    Object,
    /// Its bracket is read.
    Array,
}

/// Reads one line from front to back; where `ESCAPED`, a line that stands in a JSON string as it was written there, each
/// of its quotes as `\\"`.
#[derive(Debug)]
pub struct Lexer<'a, const ESCAPED: bool = false> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// Bit n: the n-th open bracket is that of an object.
    objects: u64,
    after_value: bool,
}

type Lexed<T> = Result<T, Invalid>;

impl<'a> Lexer<'a> {
    /// A lexer at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self::at_start(text)
    }
}

impl<'a> Lexer<'a, true> {
    /// A lexer at the beginning of a line that is still escaped. It refuses more than a lexer of the unescaped line:
    /// who is refused should unescape and try again. A value that is [`Value::Escaped`] is escaped twice.
    pub fn escaped(text: &'a str) -> Self {
        Self::at_start(text)
    }
}

impl<'a, const ESCAPED: bool> Lexer<'a, ESCAPED> {
    /// Bytes of a quote.
    const QUOTE: usize = 1 + ESCAPED as usize;

    fn at_start(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, objects: 0, after_value: false }
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Steps over the next value, which is known to be `bytes` long.
    pub fn step_over(&mut self, bytes: usize) {
        self.at += bytes;
        self.after_value = true;
    }

    /// The brace that opens the line's object.
    pub fn begin(&mut self) -> Lexed<()> {
        match self.value()? {
            Value::Object => Ok(()),
            _ => Err(Invalid::Syntax),
        }
    }

    /// Nothing but blanks may follow.
    pub fn end(mut self) -> Lexed<()> {
        self.skip_blanks();
        if self.at == self.text.len() && self.depth == 0 { Ok(()) } else { Err(Invalid::Syntax) }
    }

    /// Bytes up to the end of the line's object, which must be closed.
    pub fn closed_at(&self) -> Lexed<usize> {
        if self.depth == 0 { Ok(self.at) } else { Err(Invalid::Syntax) }
    }

    /// Steps over `"key":` if that is exactly what comes next; the way of lines that look like the one before.
    #[inline]
    pub fn take_key(&mut self, quoted_with_colon: &[u8]) -> bool {
        let bytes = self.text.as_bytes();
        let at = self.at + usize::from(self.after_value);
        if self.after_value && bytes.get(self.at) != Some(&b',') {
            return false;
        }
        let Some(rest) = bytes.get(at..) else { return false };
        if !rest.starts_with(quoted_with_colon) {
            return false;
        }
        self.at = at + quoted_with_colon.len();
        self.after_value = false;
        true
    }

    /// The next key of the object, `None` at its closing brace. Escapes in keys are not resolved: no key that
    /// anything wants has one.
    pub fn key(&mut self) -> Lexed<Option<&'a str>> {
        self.skip_blanks();
        match self.byte()? {
            b'}' => {
                self.at += 1;
                self.close();
                return Ok(None);
            }
            b',' if self.after_value => {
                self.at += 1;
                self.skip_blanks();
            }
            _ if !self.after_value => {}
            _ => return Err(Invalid::Syntax),
        }
        if !self.is_quote(self.byte()?) {
            return Err(Invalid::Syntax);
        }
        let (key, _) = self.string()?;
        self.skip_blanks();
        if self.byte()? != b':' {
            return Err(Invalid::Syntax);
        }
        self.at += 1;
        self.after_value = false;
        Ok(Some(key.of(self.text)))
    }

    /// The next value. After [`Value::Object`] and [`Value::Array`] read on inside, or [`skip_rest`](Self::skip_rest).
    #[inline]
    pub fn value(&mut self) -> Lexed<Value> {
        self.skip_blanks();
        let value = match self.byte()? {
            quote if self.is_quote(quote) => {
                let (text, escaped) = self.string()?;
                if escaped { Value::Escaped(text) } else { Value::Text(text) }
            }
            b'n' => self.literal("null", Value::Null)?,
            b't' => self.literal("true", Value::Bool(true))?,
            b'f' => self.literal("false", Value::Bool(false))?,
            b'-' | b'0'..=b'9' => self.number(),
            b'{' => return self.open(Value::Object),
            b'[' => return self.open(Value::Array),
            _ => return Err(Invalid::Syntax),
        };
        self.after_value = true;
        Ok(value)
    }

    /// Whether the array has another value: it is next. At its closing bracket there is none.
    pub fn element(&mut self) -> Lexed<bool> {
        self.skip_blanks();
        match self.byte()? {
            b']' => {
                self.at += 1;
                self.close();
                Ok(false)
            }
            b',' if self.after_value => {
                self.at += 1;
                self.after_value = false;
                Ok(true)
            }
            _ if !self.after_value => Ok(true),
            _ => Err(Invalid::Syntax),
        }
    }

    /// Steps over the next value, whatever it is.
    pub fn skip_value(&mut self) -> Lexed<()> {
        match self.value()? {
            Value::Object | Value::Array => self.skip_rest(),
            _ => Ok(()),
        }
    }

    /// Steps over what is left of the innermost open object or array.
    pub fn skip_rest(&mut self) -> Lexed<()> {
        let outer = self.depth - 1;
        while self.depth > outer {
            match self.byte()? {
                b'"' | b'\\' => {
                    self.string()?;
                }
                bracket @ (b'{' | b'[') => {
                    self.open(if bracket == b'{' { Value::Object } else { Value::Array })?;
                }
                bracket @ (b'}' | b']') => {
                    if (self.objects >> self.depth & 1 == 1) != (bracket == b'}') {
                        return Err(Invalid::Syntax);
                    }
                    self.at += 1;
                    self.close();
                }
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn open(&mut self, value: Value) -> Lexed<Value> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Invalid::Syntax);
        }
        let bit = 1 << self.depth;
        self.objects = if value == Value::Object { self.objects | bit } else { self.objects & !bit };
        self.after_value = false;
        Ok(value)
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.after_value = true;
    }

    #[inline]
    fn byte(&self) -> Lexed<u8> {
        self.text.as_bytes().get(self.at).copied().ok_or(Invalid::Syntax)
    }

    /// Whether a string begins here, whose first byte is `byte`.
    #[inline]
    fn is_quote(&self, byte: u8) -> bool {
        if ESCAPED { self.text.as_bytes()[self.at..].starts_with(b"\\\"") } else { byte == b'"' }
    }

    #[inline]
    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str, value: Value) -> Lexed<Value> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Invalid::Syntax);
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Value {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        self.at += rest.iter().take_while(|&byte| is_part(byte)).count();
        Value::Number(Stretch::new(start, self.at))
    }

    /// A string whose opening quote is next; and whether it has escapes.
    #[inline]
    fn string(&mut self) -> Lexed<(Stretch, bool)> {
        let bytes = self.text.as_bytes();
        if !self.is_quote(self.byte()?) {
            return Err(Invalid::Syntax);
        }
        let start = self.at + Self::QUOTE;
        let mut end = next_special(bytes, start);
        let escaped = if ESCAPED {
            let first = end;
            end = inner_end(bytes, first)?;
            end != first
        } else {
            match bytes.get(end) {
                Some(b'"') => false,
                Some(b'\\') => {
                    end = end_of_escaped(bytes, end)?;
                    true
                }
                // Control characters must be escaped; the end must not come first.
                _ => return Err(Invalid::Syntax),
            }
        };
        self.at = end + Self::QUOTE;
        Ok((Stretch::new(start, end), escaped))
    }
}

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// Index of the quote that ends a string with escapes in it, from its first backslash on. A wrapped line has a hundred
/// escapes: blocks that have nothing but escapes of one character in them are stepped over whole.
fn end_of_escaped(bytes: &[u8], mut at: usize) -> Lexed<usize> {
    loop {
        // A backslash before `at` would be half of an escape that is read already.
        while bytes.get(at - 1).is_some_and(|&before| before != b'\\')
            && let Some(block) = bytes.get(at..at + BLOCK)
            && !is_special(block, &bytes[at - 1..at - 1 + BLOCK])
        {
            at += BLOCK;
            if bytes[at - 1] == b'\\' {
                at -= 1;
            }
        }
        match bytes.get(at) {
            Some(b'"') => return Ok(at),
            Some(b'\\') => at += 2,
            None | Some(..0x20) => return Err(Invalid::Syntax),
            Some(_) => at += 1,
        }
    }
}

/// Whether a block has a quote that is not escaped, an escaped backslash or a control character; `before` is the block
/// one byte earlier.
#[inline]
fn is_special(block: &[u8], before: &[u8]) -> bool {
    // Numbers instead of truth values, so that many bytes are compared at once.
    let mut special = 0;
    for (&byte, &before) in block.iter().zip(before) {
        let after_backslash = u8::from(before == b'\\');
        special |= u8::from(byte == b'"') & (after_backslash ^ 1);
        special |= u8::from(byte == b'\\') & after_backslash;
        special |= u8::from(byte < 0x20);
    }
    special != 0
}

/// Index of the escaped quote that ends a string within an escaped line, from its first special byte on.
#[inline]
fn inner_end(bytes: &[u8], mut at: usize) -> Lexed<usize> {
    loop {
        at = match bytes.get(at..).unwrap_or_default() {
            [b'\\', b'"', ..] => return Ok(at),
            // An escape of the line's own: of a quote, of a backslash, or of something else.
            [b'\\', b'\\', b'\\', b'"' | b'\\', ..] => at + 4,
            [b'\\', b'\\', b'\\', ..] => return Err(Invalid::Syntax),
            [b'\\', b'\\', _, ..] => at + 3,
            // A quote or a backslash written like this would be one for the line.
            [b'\\', b'u', b'0', b'0', b'2', b'2', ..] | [b'\\', b'u', b'0', b'0', b'5', b'c' | b'C', ..] => {
                return Err(Invalid::Syntax);
            }
            [b'\\', b'u' | b'/', ..] => at + 2,
            _ => return Err(Invalid::Syntax),
        };
        at = next_special(bytes, at);
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Index of the first quote, backslash or control character from `at` on, or the length; eight bytes at a time.
#[inline]
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // The lowest marked byte is exact in each of the three (Hacker's Delight, 6-1).
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let found = (quote.wrapping_sub(ONES) & !quote
            | backslash.wrapping_sub(ONES) & !backslash
            | word.wrapping_sub(ONES * 0x20) & !word)
            & HIGHS;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            return at;
        }
        at += 1;
    }
    at
}

/// Appends the text that an escaped string stands for.
pub fn unescape(escaped: &str, out: &mut String) -> Lexed<()> {
    let mut rest = escaped;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let code = *rest.as_bytes().get(at + 1).ok_or(Invalid::Syntax)?;
        rest = rest.get(at + 2..).ok_or(Invalid::Syntax)?;
        out.push(match code {
            b'"' | b'\\' | b'/' => char::from(code),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (character, after) = unicode_escape(rest)?;
                rest = after;
                character
            }
            _ => return Err(Invalid::Syntax),
        });
    }
    out.push_str(rest);
    Ok(())
}

/// What follows `\u`: four hex digits, and a low surrogate after a high one. A surrogate alone is U+FFFD.
fn unicode_escape(rest: &str) -> Lexed<(char, &str)> {
    let unit = |text: &str| {
        let digits = text.get(..4).filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or(Invalid::Syntax)
    };
    let first = unit(rest)?;
    let rest = &rest[4..];
    if (0xd800..0xdc00).contains(&first)
        && let Some(second) = rest.strip_prefix("\\u")
        && let low @ 0xdc00..0xe000 = unit(second)?
    {
        let point = 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00);
        return Ok((char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), &second[4..]));
    }
    Ok((char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every value of a line, keys joined by dots, as a check against serde_json.
    fn flatten(text: &str) -> Lexed<Vec<(String, String)>> {
        fn object(lexer: &mut Lexer<'_>, text: &str, prefix: &str, out: &mut Vec<(String, String)>) -> Lexed<()> {
            while let Some(key) = lexer.key()? {
                let name = format!("{prefix}{key}");
                match lexer.value()? {
                    Value::Object => object(lexer, text, &format!("{name}."), out)?,
                    Value::Array => lexer.skip_rest()?,
                    Value::Null => out.push((name, "null".into())),
                    Value::Bool(value) => out.push((name, value.to_string())),
                    Value::Number(number) | Value::Text(number) => out.push((name, number.of(text).into())),
                    Value::Escaped(escaped) => {
                        let mut value = String::new();
                        unescape(escaped.of(text), &mut value)?;
                        out.push((name, value));
                    }
                }
            }
            Ok(())
        }
        let mut lexer = Lexer::new(text);
        lexer.begin()?;
        let mut out = Vec::new();
        object(&mut lexer, text, "", &mut out)?;
        lexer.end()?;
        Ok(out)
    }

    #[test]
    fn values_of_every_kind_are_read() {
        let text = r#" { "a" : 1 , "b":"x\u00e9\ud83d\ude00\n","c":{"d":null,"e":[1,{"f":"}"}]},"g":true,"h":-1.5e3} "#;
        let expected = [("a", "1"), ("b", "xé😀\n"), ("c.d", "null"), ("g", "true"), ("h", "-1.5e3")];
        let flat = flatten(text).expect("well-formed");
        assert_eq!(flat.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn ill_formed_lines_are_refused() {
        for text in [
            "",
            "{",
            "[]",
            r#"{"a":1"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{,"a":1}"#,
            r#"{"a":tru}"#,
            r#"{"a":1}x"#,
            r#"{"a":[1}]}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":"x\"#,
            r#"{"a":"\q"}"#,
            r#"{"a":"\u12"}"#,
        ] {
            assert_eq!(flatten(text), Err(Invalid::Syntax), "{text}");
        }
    }

    #[test]
    fn an_array_is_read_value_by_value() {
        let values = |text: &str| {
            let mut lexer = Lexer::new(text);
            assert_eq!(lexer.value()?, Value::Array);
            let mut count = 0;
            while lexer.element()? {
                lexer.skip_value()?;
                count += 1;
            }
            lexer.end().map(|()| count)
        };
        for (text, count) in [("[]", 0), (" [ 1 , {\"a\":[2]} ,\"]\"] ", 3), ("[[],[]]", 2)] {
            assert_eq!(values(text), Ok(count), "{text}");
        }
        for text in ["[", "[1", "[1,]", "[,1]", "[1 2]", "[1]]"] {
            assert_eq!(values(text), Err(Invalid::Syntax), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(flatten(&nested(MAX_DEPTH as usize)).is_ok());
        assert_eq!(flatten(&nested(MAX_DEPTH as usize + 1)), Err(Invalid::Syntax));
        assert_eq!(flatten(&format!("{{\"a\":{}", "[".repeat(60_000))), Err(Invalid::Syntax));
    }

    proptest! {
        #[test]
        fn strings_are_read_as_serde_json_reads_them(text in "\\PC{0,40}[\"\\\\\n\t]?\\PC{0,20}", key in "[a-z]{1,9}_") {
            let line = serde_json::json!({ &key: &text, "end": 1 }).to_string();
            let flat = flatten(&line).expect("serde_json writes well-formed JSON");
            prop_assert!(flat.contains(&(key, text)), "{:?}", flat);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\]{}\":,\\\\a-c0-9é \u{0}-\u{1f}]{0,60}") {
            let _ = flatten(&text);
        }
    }
}
