//! What escapes in a string stand for.

use super::Lexed;
use crate::source::Invalid;

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
