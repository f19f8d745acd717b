//! Quantities of Kubernetes (`100m`, `1.5Gi`, `12e6`), exactly.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// In whole units, rounded up as the scheduler does. None for what is no quantity, or negative.
pub(crate) fn whole(quantity: &Quantity) -> Option<u64> {
    scaled(&quantity.0, 1)
}

/// In thousandths, rounded up as the scheduler does. None for what is no quantity, or negative.
pub(crate) fn milli(quantity: &Quantity) -> Option<u64> {
    scaled(&quantity.0, 1_000)
}

fn scaled(text: &str, scale: u128) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiplier, divisor) = factor(suffix)?;
    let numerator = digits.checked_mul(multiplier)?.checked_mul(scale)?;
    let denominator = divisor.checked_mul(power(10, fraction.len())?)?;
    Some(u64::try_from(numerator.div_ceil(denominator)).unwrap_or(u64::MAX))
}

fn power(base: u128, exponent: usize) -> Option<u128> {
    base.checked_pow(u32::try_from(exponent).ok()?)
}

/// What a suffix multiplies by and divides by.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const FRACTION: [&str; 4] = ["", "m", "u", "n"];
    let place = |suffixes: &[&str]| suffixes.iter().position(|known| *known == suffix);
    if let Some(place) = place(&DECIMAL) {
        return Some((power(1_000, place)?, 1));
    }
    if let Some(place) = place(&BINARY) {
        return Some((power(1_024, place)?, 1));
    }
    if let Some(place) = place(&FRACTION) {
        return Some((1, power(1_000, place)?));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let factor = power(10, usize::try_from(exponent.unsigned_abs()).ok()?)?;
    Some(if exponent < 0 { (1, factor) } else { (factor, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_exactly() {
        for (text, expected_milli, expected_whole) in [
            ("0", 0, 0),
            ("2", 2_000, 2),
            ("+2", 2_000, 2),
            ("100m", 100, 1),
            ("1500m", 1_500, 2),
            (".5", 500, 1),
            ("1.", 1_000, 1),
            ("0.1", 100, 1),
            ("1n", 1, 1),
            ("1500000u", 1_500, 2),
            ("1k", 1_000_000, 1_000),
            ("1Ki", 1_024_000, 1_024),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("16331948Ki", 16_723_914_752_000, 16_723_914_752),
            ("12e6", 12_000_000_000, 12_000_000),
            ("12E-3", 12, 1),
            ("1E", 1_000_000_000_000_000_000_000, 1_000_000_000_000_000_000),
            ("8Ei", 9_223_372_036_854_775_808_000, 9_223_372_036_854_775_808),
            ("99E", u128::MAX, u128::MAX),
        ] {
            let quantity = Quantity(text.to_owned());
            let read = |number: u128| Some(u64::try_from(number).unwrap_or(u64::MAX));
            assert_eq!(milli(&quantity), read(expected_milli), "{text}");
            assert_eq!(whole(&quantity), read(expected_whole), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        let long = "9".repeat(60);
        for text in ["", ".", "-1", "1.2.3", "1 Gi", "Gi", "1gi", "1e", "1e99", "1K", "é", &long] {
            assert_eq!(whole(&Quantity(text.to_owned())), None, "{text}");
        }
    }
}
