//! A record, read by a plan.

use super::{Node, Plan};
use crate::{
    registry::{
        row::{MAX_DEPTH, RowText},
        wire::zigzag,
    },
    source::Invalid,
};

/// Digits of a decimal number, in bytes; longer ones are shown as bytes.
const MAX_DECIMAL_BYTES: usize = 16;
/// Digits behind the point.
const MAX_SCALE: usize = 64;

impl Plan {
    /// Writes the row of a record.
    ///
    /// Errors: the record is cut off, is of another schema, is nested too deeply, or its row is too long.
    pub(in crate::registry) fn read(&self, mut record: &[u8], row: &mut RowText<'_>) -> Result<(), Invalid> {
        self.value(self.root, &mut record, row, MAX_DEPTH)?;
        if record.is_empty() { Ok(()) } else { Err(Invalid::Syntax) }
    }

    fn value(&self, place: usize, bytes: &mut &[u8], row: &mut RowText<'_>, depth: u32) -> Result<(), Invalid> {
        let depth = depth.checked_sub(1).ok_or(Invalid::Syntax)?;
        match &self.nodes[place] {
            Node::Null => row.raw("null"),
            Node::Boolean => match take::<1>(bytes)? {
                [0] => row.raw("false"),
                [1] => row.raw("true"),
                _ => Err(Invalid::Syntax),
            },
            Node::Whole => row.shown(zigzag(bytes)?),
            // By its own digits: 0.1 is not 0.10000000149.
            Node::Float => match f32::from_le_bytes(*take::<4>(bytes)?) {
                float if float.is_finite() => row.shown(float),
                float => row.float(float.into()),
            },
            Node::Double => row.float(f64::from_le_bytes(*take::<8>(bytes)?)),
            Node::Bytes => row.bytes(sized(bytes)?),
            Node::Text => row.text(text(bytes)?),
            Node::Array(items) => self.array(*items, bytes, row, depth),
            Node::Map(values) => self.map(*values, bytes, row, depth),
            Node::Union(variants) => self.value(*nth(variants, bytes)?, bytes, row, depth + 1),
            Node::Record(fields) => self.record(fields, bytes, row, depth),
            Node::Enum(symbols) => row.text(nth(symbols, bytes)?),
            Node::Fixed(size) => row.bytes(taken(bytes, *size)?),
            Node::Decimal { scale, size } => {
                let digits = if let Some(size) = size { taken(bytes, *size)? } else { sized(bytes)? };
                decimal(digits, *scale, row)
            }
            Node::BigDecimal => {
                let mut inner = sized(bytes)?;
                let digits = sized(&mut inner)?;
                let scale = usize::try_from(zigzag(&mut inner)?).map_err(|_| Invalid::WrongType)?;
                decimal(digits, scale, row)
            }
            Node::Uuid(size) => {
                let uuid = if let Some(size) = size { taken(bytes, *size)? } else { sized(bytes)? };
                row.quoted(Uuid(uuid))
            }
            Node::Date => row.quoted(date(zigzag(bytes)?)?),
            Node::Instant { per_second } => row.quoted(instant(zigzag(bytes)?, *per_second)?),
            Node::LocalInstant { per_second } => {
                let instant = instant(zigzag(bytes)?, *per_second)?;
                row.quoted(instant.to_zoned(jiff::tz::TimeZone::UTC).datetime())
            }
        }
    }

    fn record(
        &self,
        fields: &[(String, usize)],
        bytes: &mut &[u8],
        row: &mut RowText<'_>,
        depth: u32,
    ) -> Result<(), Invalid> {
        row.raw("{")?;
        let mut is_first = true;
        for (key, place) in fields {
            row.comma(&mut is_first)?;
            row.raw(key)?;
            self.value(*place, bytes, row, depth)?;
        }
        row.raw("}")
    }

    /// Each item writes a byte at least, so a row's length bounds their number where they need no byte of the record.
    fn array(&self, items: usize, bytes: &mut &[u8], row: &mut RowText<'_>, depth: u32) -> Result<(), Invalid> {
        row.raw("[")?;
        let mut is_first = true;
        while let Some(count) = block(bytes)? {
            for _ in 0..count {
                row.comma(&mut is_first)?;
                self.value(items, bytes, row, depth)?;
            }
        }
        row.raw("]")
    }

    fn map(&self, values: usize, bytes: &mut &[u8], row: &mut RowText<'_>, depth: u32) -> Result<(), Invalid> {
        row.raw("{")?;
        let mut is_first = true;
        while let Some(count) = block(bytes)? {
            for _ in 0..count {
                row.comma(&mut is_first)?;
                row.text(text(bytes)?)?;
                row.raw(":")?;
                self.value(values, bytes, row, depth)?;
            }
        }
        row.raw("}")
    }
}

/// How many items the next block has; `None` after the last. A negative count has the block's length behind it.
fn block(bytes: &mut &[u8]) -> Result<Option<u64>, Invalid> {
    let count = zigzag(bytes)?;
    if count < 0 {
        zigzag(bytes)?;
    }
    Ok(Some(count.unsigned_abs()).filter(|&count| count > 0))
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], Invalid> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(Invalid::Syntax)?;
    *bytes = rest;
    Ok(taken)
}

fn taken<'a>(bytes: &mut &'a [u8], size: usize) -> Result<&'a [u8], Invalid> {
    let (taken, rest) = bytes.split_at_checked(size).ok_or(Invalid::Syntax)?;
    *bytes = rest;
    Ok(taken)
}

fn sized<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Invalid> {
    let size = usize::try_from(zigzag(bytes)?).map_err(|_| Invalid::Syntax)?;
    taken(bytes, size)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Invalid> {
    str::from_utf8(sized(bytes)?).map_err(|_| Invalid::Encoding)
}

fn nth<'a, T>(of: &'a [T], bytes: &mut &[u8]) -> Result<&'a T, Invalid> {
    usize::try_from(zigzag(bytes)?).ok().and_then(|place| of.get(place)).ok_or(Invalid::Syntax)
}

/// Digits in two's complement, the highest first.
fn decimal(digits: &[u8], scale: usize, row: &mut RowText<'_>) -> Result<(), Invalid> {
    if digits.len() > MAX_DECIMAL_BYTES || scale > MAX_SCALE {
        return row.bytes(digits);
    }
    let is_negative = digits.first().is_some_and(|&first| first >= 0x80);
    let mut whole = [if is_negative { 0xff } else { 0 }; MAX_DECIMAL_BYTES];
    whole[MAX_DECIMAL_BYTES - digits.len()..].copy_from_slice(digits);
    let value = i128::from_be_bytes(whole);
    let sign = if value < 0 { "-" } else { "" };
    let padded = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (before, behind) = padded.split_at(padded.len() - scale);
    let point = if behind.is_empty() { "" } else { "." };
    row.quoted(format_args!("{sign}{before}{point}{behind}"))
}

fn date(days: i64) -> Result<jiff::civil::Date, Invalid> {
    let days = i32::try_from(days).map_err(|_| Invalid::ImpossibleTime)?;
    let span = jiff::Span::new().try_days(days).map_err(|_| Invalid::ImpossibleTime)?;
    jiff::civil::date(1970, 1, 1).checked_add(span).map_err(|_| Invalid::ImpossibleTime)
}

fn instant(units: i64, per_second: i64) -> Result<jiff::Timestamp, Invalid> {
    let nanoseconds = i128::from(units) * i128::from(1_000_000_000 / per_second);
    jiff::Timestamp::from_nanosecond(nanoseconds).map_err(|_| Invalid::ImpossibleTime)
}

/// Sixteen bytes, as they are usually written.
struct Uuid<'a>(&'a [u8]);

impl std::fmt::Display for Uuid<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
