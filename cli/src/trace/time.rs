//! Moments in the spellings that traces have.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::error::Problem;

/// The unit of times that are numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Unit {
    /// Seconds.
    #[default]
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl Unit {
    /// Nanoseconds in one.
    fn nanoseconds(self) -> i64 {
        match self {
            Self::S => 1_000_000_000,
            Self::Ms => 1_000_000,
            Self::Us => 1000,
            Self::Ns => 1,
        }
    }
}

/// The moment that `field` names, in microseconds after some fixed moment: a number of `unit`s, or
/// a date with a time. Without an offset the time is UTC. Digits after the microseconds of a date
/// are dropped.
pub(super) fn microseconds(field: &str, unit: Unit) -> Option<i64> {
    if let Ok(number) = field.parse::<i64>() {
        return i64::try_from(i128::from(number) * i128::from(unit.nanoseconds()) / 1000).ok();
    }
    if let Ok(number) = field.parse::<f64>() {
        let time = (number * unit.nanoseconds() as f64 / 1000.0).round();
        #[expect(clippy::cast_possible_truncation, reason = "within the bounds, without fraction")]
        let time = (time.abs() <= FARTHEST).then_some(time as i64);
        return time;
    }
    let stamp = field.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = field.parse().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    stamp.map(Timestamp::as_microsecond)
}

/// The problem of a field that names no moment.
pub(super) fn problem(column: &str, field: &str) -> Problem {
    let (column, found) = (column.to_owned(), field.to_owned());
    let is_number = field.parse::<f64>().is_ok_and(f64::is_finite);
    if is_number || field.parse::<DateTime>().is_ok() {
        Problem::FarTime { column, found }
    } else {
        Problem::Timestamp { column, found }
    }
}

/// The largest number of microseconds, 2^53: every whole one up to it is an `f64`.
const FARTHEST: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_moment_is_the_same_moment() {
        let of = |text| microseconds(text, Unit::S);
        let moment = of("2023-11-16 18:17:03.9799600");
        assert_eq!(moment, Some(1_700_158_623_979_960));
        for text in [
            "2023-11-16T18:17:03.979960Z",
            "2023-11-16 18:17:03.97996+00:00",
            "2023-11-16 20:17:03.979960+02:00",
            "2023-11-16T12:47:03.979960-05:30",
            "1700158623.97996",
            "1.70015862397996e9",
        ] {
            assert_eq!(of(text), moment, "{text}");
        }
        assert_eq!(microseconds("1700158623979", Unit::Ms), Some(1_700_158_623_979_000));
        assert_eq!(microseconds("-2500", Unit::Ns), Some(-2));
        assert_eq!(microseconds("0.25", Unit::Ms), Some(250));
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in ["", "yesterday", "nan", "inf", "1e300", "2023-02-30 00:00:00", "12:00"] {
            assert_eq!(microseconds(text, Unit::S), None, "{text}");
        }
        assert_eq!(microseconds(&i64::MAX.to_string(), Unit::S), None);
    }
}
