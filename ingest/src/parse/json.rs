//! A pull lexer over one JSON line: one pass, nothing allocated, what is not wanted is only stepped over.
//!
//! The text is known to be UTF-8. What is skipped is checked for balance, strings and literals, not for every rule
//! of RFC 8259; a line that is cut off or ill-formed where it is read is [`Invalid::Syntax`].

mod ends;
mod unescape;

use self::ends::{end_of_escaped, inner_end, next_special};
pub use self::unescape::unescape;
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
#[derive(Debug, Clone)]
pub struct Lexer<'a, const ESCAPED: bool = false> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// Bit n: the n-th open bracket is that of an object.
    objects: u64,
    after_value: bool,
    /// A value that was read before, whose end is known.
    known: Stretch,
}

type Lexed<T> = Result<T, Invalid>;

impl<'a> Lexer<'a> {
    /// A lexer at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self::at_start(text)
    }

    /// A lexer in the object that `text` is, before the value at byte `at` of it.
    pub fn within(text: &'a str, at: usize) -> Self {
        Self { at, depth: 1, objects: 0b10, ..Self::at_start(text) }
    }

    /// The same, which steps over one value as a whole where nobody asks for what is in it: it was read before.
    #[must_use]
    pub fn knowing(self, known: Stretch) -> Self {
        Self { known, ..self }
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
        Self { text, at: 0, depth: 0, objects: 0, after_value: false, known: Stretch::default() }
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
        let (start, end) = self.known.bounds();
        if self.at == start && end > start {
            self.step_over(end - start);
            return Ok(());
        }
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

#[cfg(test)]
mod tests;
