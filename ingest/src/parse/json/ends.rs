//! Where strings end, looked for many bytes at a time.

use super::Lexed;
use crate::source::Invalid;

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// Index of the quote that ends a string with escapes in it, from its first backslash on. A wrapped line has a hundred
/// escapes: blocks that have nothing but escapes of one character in them are stepped over whole.
pub(super) fn end_of_escaped(bytes: &[u8], mut at: usize) -> Lexed<usize> {
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
pub(super) fn inner_end(bytes: &[u8], mut at: usize) -> Lexed<usize> {
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
pub(super) fn next_special(bytes: &[u8], mut at: usize) -> usize {
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
