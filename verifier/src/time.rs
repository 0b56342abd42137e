//! Times as the formats write them: `2026-11-22T01:02:03.000004Z`.
//!
//! Always six digits and `Z`, a valid date of the proleptic Gregorian calendar, seconds 00 to 59. All have one
//! length, so their order as strings is their order in time, and that is how they are compared.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

const LENGTH: usize = 27;
const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A time in UTC with microseconds, years 0000 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// The 27 ASCII characters.
    text: [u8; LENGTH],
}

/// A text is not a time of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time of the form 2026-11-22T01:02:03.000004Z")]
pub struct Error;

impl Timestamp {
    /// The time as it is written.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("a time is made of ASCII characters")
    }

    /// The time so many microseconds after 1970-01-01T00:00:00Z; `None` outside the years 0000 to 9999.
    pub fn from_unix_micros(micros: i64) -> Option<Self> {
        let seconds = micros.div_euclid(MICROS_PER_SECOND);
        let fraction = micros.rem_euclid(MICROS_PER_SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        if !(0..=9999).contains(&year) {
            return None;
        }
        let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        for (range, value) in [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, second_of_day / 3600),
            (14..16, second_of_day / 60 % 60),
            (17..19, second_of_day % 60),
            (20..26, fraction),
        ] {
            let mut rest = value;
            for place in text[range].iter_mut().rev() {
                *place = b'0' + u8::try_from(rest % 10).expect("a digit is below ten");
                rest /= 10;
            }
        }
        Some(Self { text })
    }

    /// Microseconds after 1970-01-01T00:00:00Z; negative before.
    pub fn unix_micros(&self) -> i64 {
        let field = |range: std::ops::Range<usize>| decimal(&self.text[range]);
        let days = days_from_civil(field(0..4), field(5..7), field(8..10));
        let seconds = days * SECONDS_PER_DAY + field(11..13) * 3600 + field(14..16) * 60 + field(17..19);
        seconds * MICROS_PER_SECOND + field(20..26)
    }

    /// The system's time.
    ///
    /// # Panics
    /// Where the system's clock is outside the years 1970 to 9999.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let micros = i64::try_from(since.as_micros()).ok();
        micros.and_then(Self::from_unix_micros).expect("the clock is before the year 10000")
    }

    /// The time so many seconds later (earlier where negative); `None` outside the years 0000 to 9999.
    pub fn plus_seconds(&self, seconds: i64) -> Option<Self> {
        let micros = seconds.checked_mul(MICROS_PER_SECOND)?;
        Self::from_unix_micros(self.unix_micros().checked_add(micros)?)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text: [u8; LENGTH] = text.as_bytes().try_into().map_err(|_| Error)?;
        let shape = b"0000-00-00T00:00:00.000000Z";
        let well_shaped = text.iter().zip(shape).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            punctuation => byte == punctuation,
        });
        if !well_shaped {
            return Err(Error);
        }
        let (year, month, day) = (decimal(&text[0..4]), decimal(&text[5..7]), decimal(&text[8..10]));
        let in_calendar = (1..=12).contains(&month) && (1..=days_of_month(year, month)).contains(&day);
        let in_day =
            decimal(&text[11..13]) < 24 && decimal(&text[14..16]) < 60 && decimal(&text[17..19]) < 60;
        if in_calendar && in_day { Ok(Self { text }) } else { Err(Error) }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The value of some ASCII digits.
fn decimal(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
}

fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap_year(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01. Years are counted from March, so that the leap day is a year's last: then the days before
/// a month are (153 m + 2) / 5, and 400 years always have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let march_year = if month <= 2 { year - 1 } else { year };
    let era = march_year.div_euclid(400);
    let year_of_era = march_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The reverse of [`days_from_civil`]: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_day_of_the_calendar_survives_the_round_trip_in_order() {
        let mut previous = "0000-01-01T00:00:00.000000Z".parse::<Timestamp>().unwrap();
        let mut days = 1;
        while let Some(next) = previous.plus_seconds(SECONDS_PER_DAY) {
            assert!(next > previous);
            assert_eq!(next.as_str().parse::<Timestamp>().unwrap(), next);
            assert_eq!(next.unix_micros() - previous.unix_micros(), SECONDS_PER_DAY * MICROS_PER_SECOND);
            (previous, days) = (next, days + 1);
        }
        assert_eq!(previous.as_str(), "9999-12-31T00:00:00.000000Z");
        assert_eq!(days, 10_000 * 365 + 2425);
    }

    #[test]
    fn known_instants_have_their_unix_time() {
        for (text, micros) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2026-11-22T01:02:03.000004Z", 1_795_309_323_000_004),
            ("2000-02-29T23:59:59.999999Z", 951_868_799_999_999),
            ("1969-12-31T23:59:59.999999Z", -1),
        ] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(time.unix_micros(), micros, "{text}");
            assert_eq!(Timestamp::from_unix_micros(micros), Some(time));
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "2026-11-22T01:02:03Z",
            "2026-11-22T01:02:03.000Z",
            "2026-11-22T01:02:03.0000040Z",
            "2026-11-22T01:02:03.000004z",
            "2026-11-22t01:02:03.000004Z",
            "2026-11-22 01:02:03.000004Z",
            "2026-11-22T01:02:03.000004+",
            "2026-02-29T01:02:03.000004Z",
            "1900-02-29T01:02:03.000004Z",
            "2026-04-31T01:02:03.000004Z",
            "2026-00-22T01:02:03.000004Z",
            "2026-13-22T01:02:03.000004Z",
            "2026-11-00T01:02:03.000004Z",
            "2026-11-22T24:02:03.000004Z",
            "2026-11-22T01:60:03.000004Z",
            "2026-11-22T01:02:60.000004Z",
            "2026-11-22T01:02:03,000004Z",
            "+026-11-22T01:02:03.000004Z",
            "２026-11-22T01:02:03.0004Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
