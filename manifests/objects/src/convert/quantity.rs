//! Quantities, as Kubernetes writes them: `10M`, `1.5Gi`, `2e6` (apimachinery/pkg/api/resource).

/// The value of a quantity, rounded up to a whole number as `Quantity.Value` does. Nothing if it is no quantity, or one that is
/// negative or has no place in 64 bits.
pub(super) fn value(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let down = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (up, down) = match multiplier(suffix)? {
        Multiplier::Up(factor) => (factor, down),
        Multiplier::Down(factor) => (1, down.checked_mul(factor)?),
    };
    u64::try_from(digits.checked_mul(up)?.div_ceil(down)).ok()
}

enum Multiplier {
    Up(u128),
    Down(u128),
}

fn multiplier(suffix: &str) -> Option<Multiplier> {
    let power = |base: u128, exponent: u32| base.checked_pow(exponent);
    let decimal = |exponent: i32| match u32::try_from(exponent) {
        Ok(exponent) => power(10, exponent).map(Multiplier::Up),
        Err(_) => power(10, exponent.unsigned_abs()).map(Multiplier::Down),
    };
    let place = |units: [&str; 6]| units.iter().position(|unit| *unit == suffix);
    if let Some(at) = place(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]) {
        return power(1024, at as u32 + 1).map(Multiplier::Up);
    }
    if let Some(at) = place(["k", "M", "G", "T", "P", "E"]) {
        return decimal(3 * (at as i32 + 1));
    }
    match suffix {
        "" => decimal(0),
        "m" => decimal(-3),
        "u" => decimal(-6),
        "n" => decimal(-9),
        _ => decimal(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::value;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("10M", 10_000_000),
            ("1k", 1_000),
            ("1Ki", 1_024),
            ("1.5G", 1_500_000_000),
            ("2.5Mi", 2_621_440),
            ("1500000", 1_500_000),
            ("1e6", 1_000_000),
            ("+1E6", 1_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("100m", 1),
            ("1000m", 1),
            ("1.0000000001", 2),
            ("1.000000001", 2),
            (".5k", 500),
            ("5.k", 5_000),
            ("25e-1", 3),
            ("0", 0),
        ];
        for (text, bits) in cases {
            assert_eq!(value(text), Some(bits), "{text}");
        }
        for text in
            ["", ".", "M", "10 M", "10MB", "10Mbit", "-1M", "1.2.3", "1e", "1e1.5", "1ki", "100E", "1e99", "ten", "1é"]
        {
            assert_eq!(value(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in ".{0,40}") {
            let _any = value(&text);
        }

        #[test]
        fn whole_numbers_are_what_they_are(number: u64) {
            prop_assert_eq!(value(&number.to_string()), Some(number));
        }
    }
}
