//! Event time in whole milliseconds (the resolution of Envoy's `START_TIME`), and the little of the calendar that
//! rhythm, monthly jobs and log lines need. UTC throughout, but for what follows people's clocks.

use std::{
    fmt,
    ops::{Add, Sub},
};

/// A point in time, milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

/// Milliseconds of a second.
pub const SECOND: i64 = 1_000;
/// Milliseconds of a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Milliseconds of an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Milliseconds of a day.
pub const DAY: i64 = 24 * HOUR;

impl Millis {
    /// Seconds since 1970 as a point in time.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds * SECOND)
    }

    /// Begin of the UTC day that holds this time.
    pub const fn midnight(self) -> Self {
        Self(self.0 - self.0.rem_euclid(DAY))
    }

    /// Milliseconds since midnight UTC.
    pub const fn of_day(self) -> i64 {
        self.0.rem_euclid(DAY)
    }

    /// Day of the week, 0 = Monday. 1970-01-01 was a Thursday.
    pub const fn weekday(self) -> i64 {
        (self.0.div_euclid(DAY) + 3).rem_euclid(7)
    }

    /// Year, month (1 to 12) and day of the month (1 to 31): Hinnant's `civil_from_days`.
    pub const fn date(self) -> (i64, i64, i64) {
        let days = self.0.div_euclid(DAY) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        (year_of_era + era * 400 + (month <= 2) as i64, month, day)
    }

    /// Appends this time as RFC 3339 UTC with milliseconds: `2026-11-22T02:02:24.122Z`.
    pub fn push_rfc3339(self, out: &mut Vec<u8>) {
        let (year, month, day) = self.date();
        let of_day = self.of_day();
        push_padded(out, year, 4);
        out.push(b'-');
        push_padded(out, month, 2);
        out.push(b'-');
        push_padded(out, day, 2);
        out.push(b'T');
        push_padded(out, of_day / HOUR, 2);
        out.push(b':');
        push_padded(out, of_day / MINUTE % 60, 2);
        out.push(b':');
        push_padded(out, of_day / SECOND % 60, 2);
        out.push(b'.');
        push_padded(out, of_day % SECOND, 3);
        out.push(b'Z');
    }
}

/// Whose clocks people and jobs follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Zone {
    /// No daylight saving.
    #[default]
    Utc,
    /// Central European time: an hour more from the last Sunday of March to that of October, from 01:00 UTC.
    CentralEurope,
}

impl Zone {
    /// What the clocks show more than UTC, milliseconds.
    pub const fn offset(self, time: Millis) -> i64 {
        match self {
            Self::Utc => 0,
            Self::CentralEurope if time.is_european_summer() => 2 * HOUR,
            Self::CentralEurope => HOUR,
        }
    }
}

impl Millis {
    const fn is_european_summer(self) -> bool {
        // Shifted by the hour at which clocks change, the change is at midnight.
        let shifted = Self(self.0 - HOUR);
        let (_, month, day) = shifted.date();
        // Both months have 31 days: the last Sunday is the one after the 24th.
        let days_since_sunday = (shifted.weekday() + 1) % 7;
        let after_last_sunday = day - days_since_sunday >= 25;
        match month {
            4..=9 => true,
            3 => after_last_sunday,
            10 => !after_last_sunday,
            _ => false,
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(24);
        self.push_rfc3339(&mut text);
        text.iter().try_for_each(|&byte| fmt::Write::write_char(f, char::from(byte)))
    }
}

impl Add<i64> for Millis {
    type Output = Self;
    fn add(self, millis: i64) -> Self {
        Self(self.0 + millis)
    }
}

impl Sub for Millis {
    type Output = i64;
    fn sub(self, other: Self) -> i64 {
        self.0 - other.0
    }
}

/// Appends the last `width` decimal digits of a non-negative number.
fn push_padded(out: &mut Vec<u8>, value: i64, width: usize) {
    let mut digits = [b'0'; 4];
    let mut rest = value;
    for digit in digits[..width].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[..width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_written_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_311_928, "2026-11-22T01:45:28.000Z"),
        ] {
            assert_eq!(Millis::from_seconds(seconds).to_string(), text);
        }
        assert_eq!(Millis(1_795_311_928_244).to_string(), "2026-11-22T01:45:28.244Z");
    }

    #[test]
    fn clocks_change_at_one_on_the_last_sundays_of_march_and_october() {
        for (seconds, hours) in [
            (1_774_745_999, 1), // 2026-03-29T00:59:59Z
            (1_774_746_000, 2), // 2026-03-29T01:00:00Z
            (1_792_889_999, 2), // 2026-10-25T00:59:59Z
            (1_792_890_000, 1), // 2026-10-25T01:00:00Z
            (1_767_571_200, 1), // January
            (1_782_864_000, 2), // July
        ] {
            let time = Millis::from_seconds(seconds);
            assert_eq!(Zone::CentralEurope.offset(time), hours * HOUR, "{time}");
            assert_eq!(Zone::Utc.offset(time), 0);
        }
    }

    #[test]
    fn the_week_begins_on_monday() {
        assert_eq!(Millis(0).weekday(), 3);
        assert_eq!(Millis::from_seconds(1_795_311_928).weekday(), 6, "2026-11-22 is a Sunday");
    }
}
