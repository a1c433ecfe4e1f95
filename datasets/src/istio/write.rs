//! Numbers, addresses and ids as text, appended to a buffer.

use std::net::Ipv4Addr;

use crate::{
    mesh::{Operation, Segment, WORDS},
    random::scramble,
};

pub(super) fn push_number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0_u8; 20];
    let mut first = digits.len();
    let mut rest = value;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

pub(super) fn push_ip(out: &mut Vec<u8>, ip: Ipv4Addr) {
    let [a, b, c, d] = ip.octets();
    push_number(out, u64::from(a));
    for octet in [b, c, d] {
        out.push(b'.');
        push_number(out, u64::from(octet));
    }
}

/// A serial number of 128 bits in hexadecimal, in quotes.
pub(super) fn push_serial(out: &mut Vec<u8>, serial: u64) {
    out.push(b'"');
    push_hex(out, serial, 16);
    push_hex(out, scramble(serial), 16);
    out.push(b'"');
}

/// A version 4 UUID in quotes.
pub(super) fn push_uuid(out: &mut Vec<u8>, id: u64) {
    out.push(b'"');
    push_bare_uuid(out, id);
    out.push(b'"');
}

/// The path of `operation` in quotes, its ids derived from the call's id: small ids are the popular ones.
pub(super) fn push_path(out: &mut Vec<u8>, operation: &Operation, id: u64) {
    out.push(b'"');
    let mut draw = scramble(id ^ 0x7061_7468);
    for segment in &operation.path {
        match segment {
            Segment::Literal(text) => {
                out.extend_from_slice(text.as_bytes());
                continue;
            }
            // Squaring a uniform number favours the small ones.
            Segment::Number => push_number(out, 1 + (((draw >> 40) * (draw >> 40)) >> 32)),
            Segment::Uuid => push_bare_uuid(out, scramble(draw % 50_000)),
            Segment::Hex => push_hex(out, scramble(draw % 50_000), 16),
            Segment::Word => out.extend_from_slice(WORDS[(draw % WORDS.len() as u64) as usize].as_bytes()),
        }
        draw = scramble(draw);
    }
    out.push(b'"');
}

/// A version 4 UUID without quotes.
pub(crate) fn push_bare_uuid(out: &mut Vec<u8>, id: u64) {
    let low = scramble(id);
    push_hex(out, id >> 32, 8);
    out.push(b'-');
    push_hex(out, id >> 16, 4);
    out.extend_from_slice(b"-4");
    push_hex(out, id, 3);
    out.extend_from_slice(b"-a");
    push_hex(out, low >> 48, 3);
    out.push(b'-');
    push_hex(out, low, 12);
}

/// The lowest `digits` hexadecimal digits.
fn push_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * digit)) as usize & 15]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_read_as_the_standard_library_writes_them() {
        for value in [0, 7, 10, 4_096, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
        let mut out = Vec::new();
        push_ip(&mut out, Ipv4Addr::new(10, 64, 0, 255));
        assert_eq!(out, b"10.64.0.255");
    }

    #[test]
    fn a_uuid_has_the_form_of_version_4() {
        let mut out = Vec::new();
        push_uuid(&mut out, 0x0123_4567_89ab_cdef);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.len(), 38);
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [9, 4, 4, 4, 13]);
        assert!(text.starts_with("\"01234567-89ab-4def-a"), "{text}");
    }
}
