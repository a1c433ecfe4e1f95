//! Words of a segment: what a single one is, and how one is folded piece by piece.

use super::{CLASS, DIGIT, JOINER, token};

/// Digits in a row that are no part of a name any more.
const MIN_DIGITS: usize = 3;
const MAX_DECODED: usize = 128;
/// `%2540` is `%40` is `@`; what is encoded more often is text.
const MAX_DECODINGS: usize = 4;

/// The placeholder of a segment that is one value as a whole.
pub(super) fn whole(segment: &str) -> Option<&'static str> {
    let bytes = segment.as_bytes();
    if let Some(at) = bytes.iter().position(|&byte| byte == b'@')
        && at > 0
        && at + 1 < bytes.len()
    {
        return Some("{email}");
    }
    let spaced = |c: u8| c == b' ' || CLASS[usize::from(c)] == JOINER;
    let digits = bytes.iter().filter(|c| c.is_ascii_digit()).count();
    if digits > 0 && bytes.iter().all(|&c| c.is_ascii_digit() || spaced(c)) && is_card(bytes, digits) {
        return Some("{card}");
    }
    if is_date(bytes) {
        return Some("{date}");
    }
    // Addresses and the like: 192.0.2.7, 10:20:30.
    let groups = segment.split(['.', ':', ',']);
    let all_numbers = digits > 0 && groups.clone().all(|group| group.bytes().all(|c| c.is_ascii_digit()));
    (all_numbers && groups.count() >= 4).then_some("{id}")
}

/// The placeholder of a percent-encoded segment: it is always a value.
pub(super) fn encoded(segment: &str) -> &'static str {
    let mut buffer = [0; MAX_DECODED];
    let Some(slot) = buffer.get_mut(..segment.len()) else { return "{text}" };
    slot.copy_from_slice(segment.as_bytes());
    let mut length = segment.len();
    for _ in 0..MAX_DECODINGS {
        match decode(&mut buffer[..length]) {
            Some(decoded) if decoded == length => break,
            Some(decoded) => length = decoded,
            None => return "{text}",
        }
    }
    let Ok(decoded) = str::from_utf8(&buffer[..length]) else { return "{text}" };
    if decoded.contains('%') {
        return "{text}";
    }
    whole(decoded).or_else(|| value(decoded)).unwrap_or("{text}")
}

/// Decodes in place; the new length, `None` where an escape is none.
fn decode(bytes: &mut [u8]) -> Option<usize> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (mut read, mut write) = (0, 0);
    while read < bytes.len() {
        bytes[write] = if bytes[read] == b'%' {
            let (high, low) = (nibble(*bytes.get(read + 1)?)?, nibble(*bytes.get(read + 2)?)?);
            read += 2;
            high << 4 | low
        } else {
            bytes[read]
        };
        read += 1;
        write += 1;
    }
    Some(write)
}

/// Appends a word: as one placeholder, or piece by piece.
pub(super) fn append(word: &str, out: &mut String) {
    if let Some(placeholder) = value(word) {
        return out.push_str(placeholder);
    }
    for part in word.split_inclusive(['.', '~']) {
        let (part, joiner) = part.split_at(part.trim_end_matches(['.', '~']).len());
        if token::is_token(part) || token::has_token_prefix(part) {
            out.push_str("{token}");
        } else {
            append_pieces(part, out);
        }
        out.push_str(joiner);
    }
}

fn append_pieces(part: &str, out: &mut String) {
    for piece in part.split_inclusive(['-', '_']) {
        let (piece, joiner) = piece.split_at(piece.trim_end_matches(['-', '_']).len());
        if is_hex(piece) {
            out.push_str("{hex}");
        } else {
            append_without_numbers(piece, out);
        }
        out.push_str(joiner);
    }
}

/// `user12345` is `user{id}`.
fn append_without_numbers(piece: &str, out: &mut String) {
    let mut rest = piece;
    while !rest.is_empty() {
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        out.push_str(&rest[..letters]);
        rest = &rest[letters..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        out.push_str(if digits >= MIN_DIGITS { "{id}" } else { &rest[..digits] });
        rest = &rest[digits..];
    }
}

/// The placeholder of a word of digits only.
pub(super) fn number(digits: &[u8]) -> &'static str {
    if is_card(digits, digits.len()) {
        return "{card}";
    }
    if is_date(digits) { "{date}" } else { "{id}" }
}

/// The placeholder of a word that is one value as a whole.
fn value(word: &str) -> Option<&'static str> {
    let bytes = word.as_bytes();
    if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
        return Some(number(bytes));
    }
    if is_uuid(bytes) {
        return Some("{uuid}");
    }
    if is_hex(word) {
        return Some("{hex}");
    }
    if is_date(bytes) {
        return Some("{date}");
    }
    (token::has_token_prefix(word) || token::is_token(word)).then_some("{token}")
}

fn is_hex(word: &str) -> bool {
    word.len() >= 8 && word.bytes().all(|c| c.is_ascii_hexdigit()) && word.bytes().any(|c| !c.is_ascii_digit())
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, &c)| match i {
            8 | 13 | 18 | 23 => c == b'-',
            _ => c.is_ascii_hexdigit(),
        })
}

/// `2024-01-31`, `20240131` or `2024-01`, and a time after it.
fn is_date(bytes: &[u8]) -> bool {
    let number = |range: std::ops::Range<usize>| {
        bytes.get(range)?.iter().try_fold(0_u32, |sum, &c| c.is_ascii_digit().then(|| sum * 10 + u32::from(c - b'0')))
    };
    let plausible = |year, month, day| matches!((year, month, day), (Some(1900..=2099), Some(1..=12), Some(1..=31)));
    match bytes {
        [_, _, _, _, _, _, _, _] => plausible(number(0..4), number(4..6), number(6..8)),
        [_, _, _, _, b'-', _, _] => plausible(number(0..4), number(5..7), Some(1)),
        [_, _, _, _, b'-', _, _, b'-', _, _, rest @ ..] => {
            plausible(number(0..4), number(5..7), number(8..10))
                && rest.iter().all(|&c| CLASS[usize::from(c)] == DIGIT || b"TZtz:.+-_ ".contains(&c))
        }
        _ => false,
    }
}

/// ISO/IEC 7812: 13 to 19 digits, the last of which is Luhn's check digit.
fn is_card(bytes: &[u8], digits: usize) -> bool {
    if !(13..=19).contains(&digits) {
        return false;
    }
    let sum: u32 = bytes
        .iter()
        .rev()
        .filter(|c| c.is_ascii_digit())
        .enumerate()
        .map(|(i, &c)| {
            let digit = u32::from(c - b'0') << (i % 2);
            digit / 10 + digit % 10
        })
        .sum();
    sum.is_multiple_of(10)
}
