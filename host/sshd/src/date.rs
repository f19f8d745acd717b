//! Dates of the calendar, in UTC.

pub(crate) const DAY: u64 = 86_400;

/// Year, month from 0, and day of a number of days since 1970.
pub(crate) fn civil(mut days: u64) -> (u64, usize, u64) {
    let is = |year: u64, each: u64| year.is_multiple_of(each);
    let is_leap = |year: u64| is(year, 4) && (!is(year, 100) || is(year, 400));
    let mut year = 1970_u64;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days = days.saturating_sub(length);
        year = year.saturating_add(1);
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 0_usize;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
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
