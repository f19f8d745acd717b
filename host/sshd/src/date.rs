//! Dates of the calendar, in UTC.

pub(crate) const DAY: u64 = 86_400;

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// The days of a year.
fn length(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

/// The days of its months.
fn months(year: u64) -> [u64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// Year, month from 0, and day of a number of days since 1970.
pub(crate) fn civil(mut days: u64) -> (u64, usize, u64) {
    let mut year = 1970_u64;
    while days >= length(year) {
        days = days.saturating_sub(length(year));
        year = year.saturating_add(1);
    }
    let mut month = 0_usize;
    for length in months(year) {
        if days < length {
            break;
        }
        days = days.saturating_sub(length);
        month = month.saturating_add(1);
    }
    (year, month, days.saturating_add(1))
}

/// Hour and minute of a time in seconds since 1970.
pub(crate) fn hour_and_minute(time: u64) -> (u64, u64) {
    let minutes = time.rem_euclid(DAY).div_euclid(60);
    (minutes.div_euclid(60), minutes.rem_euclid(60))
}

/// `YYYYMMDD[HHMM[SS]]`, with or without a `Z`, in seconds since 1970, of which there is at least
/// one.
pub(crate) fn absolute(text: &str) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    let digits = text.strip_suffix("UTC").or_else(|| text.strip_suffix('Z')).unwrap_or(&text);
    if ![8, 12, 14].contains(&digits.len()) || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    // What is left out is zero.
    let number = |from: usize, to: usize| {
        digits.get(from..to).map_or(Some(0), |digits| digits.parse::<u64>().ok())
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let is_date = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour >= 24 || minute >= 60 || second > 60 {
        return None;
    }
    let before = usize::try_from(month).ok()?.saturating_sub(1);
    let days_of_years: u64 = (1970..year).map(length).sum();
    let days_of_months: u64 = months(year).into_iter().take(before).sum();
    let days = days_of_years.saturating_add(days_of_months).saturating_add(day.saturating_sub(1));
    let minutes = hour.saturating_mul(60).saturating_add(minute);
    let time = days.saturating_mul(DAY).saturating_add(minutes.saturating_mul(60));
    Some(time.saturating_add(second)).filter(|time| *time > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_what_date_makes_of_it() {
        // `date -u -d '2000-02-29 12:34:56' +%s`
        for (text, expected) in [
            ("20000229123456", Some(951_827_696)),
            ("20000229123456Z", Some(951_827_696)),
            ("200002291234utc", Some(951_827_640)),
            ("20000229", Some(951_782_400)),
            ("20991231z", Some(4_102_358_400)),
            ("99991231235959", Some(253_402_300_799)),
            ("19700101", None),
            ("197001010001", Some(60)),
            ("19691231", None),
            ("20000001", None),
            ("20001301", None),
            ("20000100", None),
            ("20000132", None),
            ("200001012400", None),
            ("200001010060", None),
            ("2000010", None),
            ("2000010112", None),
            ("+2000010", None),
            ("", None),
            ("Z", None),
            ("2000\u{e9}\u{e9}", None),
        ] {
            assert_eq!(absolute(text), expected, "{text}");
        }
        let days = absolute("20240229").unwrap().div_euclid(DAY);
        assert_eq!(civil(days), (2024, 1, 29));
    }
}
