//! Times as logs write them.

use qualm_model::time::Timestamp;

use crate::source::Invalid;

/// 2200-01-01: what lies later is a fault of the record, as is what lies before 1970.
const LATEST_SECONDS: i64 = 7_258_118_400;
const NANOSECONDS: i64 = 1_000_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// RFC 3339, with any number of fraction digits (kept to nanoseconds) and `T` or a blank between date and time.
///
/// Errors: [`Invalid::WrongType`] where it is no such text, [`Invalid::ImpossibleTime`] where there is no such date.
pub fn rfc3339(text: &str) -> Result<Timestamp, Invalid> {
    let bytes = text.as_bytes();
    let Some((head, tail)) = bytes.split_first_chunk::<19>() else { return Err(Invalid::WrongType) };
    let two = |at: usize| two_digits(head[at], head[at + 1]);
    let separated = [head[4], head[7], head[13], head[16]] == *b"--::" && matches!(head[10], b'T' | b't' | b' ');
    let parts = (two(0), two(2), two(5), two(8), two(11), two(14), two(17));
    let (true, (Some(century), Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second))) =
        (separated, parts)
    else {
        return Err(Invalid::WrongType);
    };
    let (nanosecond, zone) = fraction(tail)?;
    let days = days_since_1970(century * 100 + year, month, day).ok_or(Invalid::ImpossibleTime)?;
    // A leap second is the second after it.
    if hour > 23 || minute > 59 || second > 60 {
        return Err(Invalid::ImpossibleTime);
    }
    let seconds = days * SECONDS_A_DAY + hour * 3600 + minute * 60 + second - offset_seconds(zone)?;
    from_parts(seconds, nanosecond)
}

/// A time without a zone, such as log4j's `2026-11-22 15:10:33,486`, read as UTC; its fraction may follow a comma.
pub(crate) fn zoneless(text: &str) -> Result<Timestamp, Invalid> {
    rfc3339(&format!("{}Z", text.replacen(',', ".", 1)))
}

/// A time with the zone as an abbreviation or as hours, such as PostgreSQL's `2026-09-12 23:10:56.412 CEST` or `… -03`.
///
/// Abbreviations are not unique in the world; those that PostgreSQL itself knows by default and that logs are commonly
/// written in are read, and all others are [`Invalid::WrongType`].
pub(crate) fn zoned(text: &str) -> Result<Timestamp, Invalid> {
    let (time, zone) = text.rsplit_once(' ').ok_or(Invalid::WrongType)?;
    let offset = match zone {
        "UTC" | "GMT" | "WET" | "Z" => "Z",
        "CET" | "BST" | "WEST" => "+01:00",
        "CEST" | "EET" | "SAST" => "+02:00",
        "EEST" | "MSK" => "+03:00",
        "JST" | "KST" => "+09:00",
        "EST" | "CDT" => "-05:00",
        "EDT" => "-04:00",
        "CST" | "MDT" => "-06:00",
        "MST" | "PDT" => "-07:00",
        "PST" => "-08:00",
        hours if hours.len() == 3 => return rfc3339(&format!("{time}{hours}:00")),
        other => other,
    };
    rfc3339(&format!("{time}{offset}"))
}

/// A decimal number of seconds, or of a smaller unit of which `10^digits` make a second (3 for milliseconds).
pub fn epoch(text: &str, digits: u32) -> Result<Timestamp, Invalid> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(part.bytes()).all(|c| c.is_ascii_digit()) {
        let negative = text.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|c| c.is_ascii_digit() || c == b'.'));
        return Err(if negative && text.len() > 1 { Invalid::ImpossibleTime } else { Invalid::WrongType });
    }
    let whole: i64 = whole.parse().map_err(|_| Invalid::ImpossibleTime)?;
    let unit = 10_i64.pow(digits);
    let per_unit = NANOSECONDS / unit;
    let mut nanosecond = (whole % unit) * per_unit;
    let mut worth = per_unit;
    for digit in part.bytes() {
        worth /= 10;
        nanosecond += i64::from(digit - b'0') * worth;
    }
    from_parts(whole / unit, nanosecond)
}

fn from_parts(seconds: i64, nanosecond: i64) -> Result<Timestamp, Invalid> {
    if !(0..LATEST_SECONDS).contains(&seconds) {
        return Err(Invalid::ImpossibleTime);
    }
    Ok(Timestamp(seconds * NANOSECONDS + nanosecond))
}

/// Whether a time is one that a log can hold.
pub(crate) fn sensible(nanoseconds: i128) -> Result<Timestamp, Invalid> {
    let time = i64::try_from(nanoseconds).map_err(|_| Invalid::ImpossibleTime)?;
    from_parts(time.div_euclid(NANOSECONDS), time.rem_euclid(NANOSECONDS))
}

#[inline]
fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

/// Nanoseconds of the fraction, and what follows it.
fn fraction(tail: &[u8]) -> Result<(i64, &[u8]), Invalid> {
    let Some(digits) = tail.strip_prefix(b".") else { return Ok((0, tail)) };
    let count = digits.iter().take_while(|c| c.is_ascii_digit()).count();
    if count == 0 {
        return Err(Invalid::WrongType);
    }
    let padded = digits[..count].iter().map(|digit| i64::from(digit - b'0')).chain(std::iter::repeat(0));
    let nanosecond = padded.take(9).fold(0, |sum, digit| sum * 10 + digit);
    Ok((nanosecond, &digits[count..]))
}

fn offset_seconds(zone: &[u8]) -> Result<i64, Invalid> {
    match *zone {
        [b'Z' | b'z'] => Ok(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (Some(hours @ 0..=23), Some(minutes @ 0..=59)) = (two_digits(h1, h2), two_digits(m1, m2)) else {
                return Err(Invalid::WrongType);
            };
            let seconds = hours * 3600 + minutes * 60;
            Ok(if sign == b'-' { -seconds } else { seconds })
        }
        _ => Err(Invalid::WrongType),
    }
}

/// Proleptic Gregorian days (Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`).
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    const DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let in_month = DAYS.get(usize::try_from(month).ok()?.checked_sub(1)?)? + i64::from(month == 2 && leap);
    if !(1..=in_month).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times_are_read_to_the_nanosecond() {
        for (text, nanoseconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-22T02:02:24.122Z", 1_795_312_944_122_000_000),
            ("2026-11-22 03:02:24.122000001999+01:00", 1_795_312_944_122_000_001),
            ("2024-02-29T23:59:60Z", 1_709_251_200_000_000_000),
        ] {
            assert_eq!(rfc3339(text), Ok(Timestamp(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn dates_that_do_not_exist_are_impossible_and_other_texts_of_the_wrong_type() {
        for text in ["2023-02-29T00:00:00Z", "2023-13-01T00:00:00Z", "2023-01-01T24:00:00Z", "1969-12-31T23:59:59Z"] {
            assert_eq!(rfc3339(text), Err(Invalid::ImpossibleTime), "{text}");
        }
        for text in ["", "-", "yesterday", "2023-01-01T00:00:00", "2023-01-01T00:00:00.Z", "2023-01-01T00:00:00+1"] {
            assert_eq!(rfc3339(text), Err(Invalid::WrongType), "{text}");
        }
        assert_eq!(epoch("-5", 0), Err(Invalid::ImpossibleTime));
        assert_eq!(epoch("99999999999", 0), Err(Invalid::ImpossibleTime));
        assert_eq!(epoch("five", 0), Err(Invalid::WrongType));
    }

    #[test]
    fn zones_are_read_by_their_names_and_hours() {
        for text in ["2026-11-22 03:02:24.122 CET", "2026-11-22 02:02:24.122 UTC", "2026-11-21 23:02:24.122 -03"] {
            assert_eq!(zoned(text), rfc3339("2026-11-22T02:02:24.122Z"), "{text}");
        }
        assert_eq!(zoneless("2026-11-22 02:02:24,122"), rfc3339("2026-11-22T02:02:24.122Z"));
        assert_eq!(
            (zoned("2026-11-22 02:02:24 IST"), zoned("2026-11-22")),
            (Err(Invalid::WrongType), Err(Invalid::WrongType))
        );
    }

    #[test]
    fn epochs_of_every_unit_are_read() {
        assert_eq!(epoch("1545403816.962094", 0), Ok(Timestamp(1_545_403_816_962_094_000)));
        assert_eq!(epoch("1645791570013", 3), Ok(Timestamp(1_645_791_570_013_000_000)));
        assert_eq!(epoch("1674981729479000001", 9), Ok(Timestamp(1_674_981_729_479_000_001)));
    }

    proptest! {
        #[test]
        fn times_agree_with_jiff(seconds in 0..LATEST_SECONDS, nanosecond in 0..NANOSECONDS) {
            let time = jiff::Timestamp::new(seconds, nanosecond as i32).expect("in range");
            prop_assert_eq!(rfc3339(&time.to_string()), Ok(Timestamp(seconds * NANOSECONDS + nanosecond)));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9TZ:.+ é-]{0,32}") {
            let _ = (rfc3339(&text), epoch(&text, 3));
        }
    }
}
