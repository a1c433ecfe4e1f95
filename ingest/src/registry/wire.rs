//! Confluent's wire format: a zero, the schema's id in four bytes, in Protobuf the way to the message, the record.

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
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
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
