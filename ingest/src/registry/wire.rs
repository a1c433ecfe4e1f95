//! Confluent's wire format: a zero, the schema's id in four bytes, in Protobuf the way to the message, the record.

use super::Kind;
use crate::source::Invalid;

const MAGIC: u8 = 0;
/// The zero and the id.
const HEAD: usize = 5;
/// Messages within messages.
const MAX_INDEXES: i64 = 16;

/// A record with its schema's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framed<'a> {
    pub(super) id: u32,
    pub(super) payload: &'a [u8],
}

impl Framed<'_> {
    /// Whether it is JSON, as nothing else that is written like this begins.
    pub(super) fn is_json(self) -> bool {
        matches!(self.payload.first(), Some(b'{' | b'['))
    }
}

/// The schema id in front of a record, where there is one. No text begins with a zero.
pub fn schema_id(record: &[u8]) -> Option<u32> {
    framed(record).map(|framed| framed.id)
}

/// What a record behind a schema id seems to be, where no registry says: JSON by its first byte, Protobuf where it is
/// one field after the other to its end, else Avro.
pub fn seems(record: &[u8]) -> Option<Kind> {
    let framed = framed(record)?;
    let mut rest = framed.payload;
    if framed.is_json() {
        return Some(Kind::Json);
    }
    let is_protobuf = message_indexes(&mut rest).is_ok() && !rest.is_empty() && is_fields(rest);
    Some(if is_protobuf { Kind::Protobuf } else { Kind::Avro })
}

/// Whether bytes are fields of Protobuf: a number with the kind of the value, the value, and so on.
fn is_fields(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(tag) = varint(&mut bytes) else { return false };
        let size = match tag & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Ok(8),
            2 => varint(&mut bytes),
            5 => Ok(4),
            _ => return false,
        };
        let rest = size.ok().and_then(|size| bytes.get(usize::try_from(size).ok()?..));
        match rest {
            Some(rest) if tag >> 3 > 0 => bytes = rest,
            _ => return false,
        }
    }
    true
}

#[inline]
pub(super) fn framed(record: &[u8]) -> Option<Framed<'_>> {
    if record.first() != Some(&MAGIC) {
        return None;
    }
    let (head, payload) = record.split_first_chunk::<HEAD>()?;
    let [_, id @ ..] = *head;
    Some(Framed { id: u32::from_be_bytes(id), payload })
}

/// Takes a number in variable length, seven bits a byte and the sign in the lowest, from the begin of `bytes`. Avro
/// writes all its whole numbers so.
#[inline]
pub(super) fn zigzag(bytes: &mut &[u8]) -> Result<i64, Invalid> {
    let value = varint(bytes)?;
    Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Result<u64, Invalid> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first().ok_or(Invalid::Syntax)?;
        *bytes = rest;
        // The tenth byte has room for one bit.
        if place == 9 && byte > 1 {
            return Err(Invalid::Syntax);
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Invalid::Syntax)
}

/// Takes the way to a message: the place of the outermost in its file, of the next in that one, and so on. A single zero
/// stands for the first message.
pub(super) fn message_indexes(bytes: &mut &[u8]) -> Result<Vec<usize>, Invalid> {
    let count = zigzag(bytes)?;
    if !(0..=MAX_INDEXES).contains(&count) {
        return Err(Invalid::Syntax);
    }
    if count == 0 {
        return Ok(vec![0]);
    }
    (0..count).map(|_| usize::try_from(zigzag(bytes)?).map_err(|_| Invalid::Syntax)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_a_zero_and_four_bytes_and_nothing_else_is_one() {
        let framed = framed(b"\0\0\0\x01\x02{}").expect("a head");
        assert_eq!((framed.id, framed.payload, framed.is_json()), (258, b"{}".as_slice(), true));
        assert_eq!([schema_id(b"\0\0\0\0"), schema_id(b"{\"a\":1}"), schema_id(b"")], [None; 3]);
        assert_eq!(schema_id(b"\0\xff\xff\xff\xff"), Some(u32::MAX));
    }

    #[test]
    fn without_a_registry_it_is_told_what_a_record_seems_to_be() {
        let of = |payload: &[u8]| seems(&[&[0, 0, 0, 0, 7], payload].concat());
        assert_eq!(of(br#"{"a":1}"#), Some(Kind::Json));
        // The first message: a text in field 1, a number in field 2.
        assert_eq!(of(&[0, 0x0a, 2, b'h', b'i', 0x10, 5]), Some(Kind::Protobuf));
        // A text and a number, one after the other.
        assert_eq!(of(&[4, b'h', b'i', 10]), Some(Kind::Avro));
        assert_eq!((of(&[]), seems(b"{}")), (Some(Kind::Avro), None));
    }

    #[test]
    fn numbers_of_variable_length_are_read_to_their_ends_and_no_further() {
        for (bytes, value) in [
            (&[0_u8][..], 0),
            (&[1], -1),
            (&[2], 1),
            (&[0x80, 0x01], 64),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], i64::MIN),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], i64::MAX),
        ] {
            let mut rest = bytes;
            assert_eq!((zigzag(&mut rest), rest.len()), (Ok(value), 0), "{bytes:?}");
        }
        for bytes in [&[][..], &[0x80], &[0xff; 10], &[0x80; 11]] {
            assert_eq!(zigzag(&mut &bytes[..]), Err(Invalid::Syntax), "{bytes:?}");
        }
    }

    #[test]
    fn a_way_to_a_message_is_short_and_has_no_negative_place() {
        assert_eq!(message_indexes(&mut &[0][..]), Ok(vec![0]));
        assert_eq!(message_indexes(&mut &[4, 2, 0][..]), Ok(vec![1, 0]));
        for bytes in [&[2][..], &[2, 1], &[1], &[0x80, 0x80, 0x80, 0x01], &[]] {
            assert_eq!(message_indexes(&mut &bytes[..]), Err(Invalid::Syntax), "{bytes:?}");
        }
    }
}
