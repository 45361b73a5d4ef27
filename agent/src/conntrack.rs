//! How long flows are remembered, by the names that kube-proxy's settings of conntrack have.

use fairlead_datapath::config::Lifetimes;

/// A year. Whatever is longer is a mistake.
const LONGEST: u64 = 365 * 24 * 3600;

/// Reads a time as Go writes it (`24h0m0s`, `90s`), or as a number of seconds.
///
/// # Errors
/// It is none, or one that no flow can have.
pub fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no time: write it as 24h, 1h30m or 90s");
    let units = [('h', 3600), ('m', 60), ('s', 1)];
    let (mut rest, mut total, mut units) = (text, 0_u64, units.iter());
    if let Ok(plain) = text.parse::<u64>() {
        (rest, total) = ("", plain);
    } else if text.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.chars().next().ok_or_else(wrong)?;
        // Each unit once, the largest first.
        let (_, factor) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = total.saturating_add(number.saturating_mul(*factor));
        rest = &tail[unit.len_utf8()..];
    }
    let shortest = Lifetimes::SHORTEST;
    match u32::try_from(total) {
        Ok(seconds) if (u64::from(shortest)..=LONGEST).contains(&total) => Ok(seconds),
        _ => Err(format!("flows live for at least {shortest}s, and at most a year")),
    }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn s71_times_are_written_as_kube_proxy_has_them() {
        for (text, value) in [
            ("24h0m0s", 86_400),
            ("24h", 86_400),
            ("1h", 3600),
            ("1h30m", 5400),
            ("1m30s", 90),
            ("2m", 120),
            ("90s", 90),
            ("90", 90),
            ("10s", 10),
        ] {
            assert_eq!(seconds(text), Ok(value), "{text}");
        }
        for text in [
            "",
            "0s",
            "9s",
            "h",
            "1",
            "1d",
            "1m1h",
            "1h1h",
            "-1h",
            "1.5h",
            "1h 2m",
            "9000h",
            "99999999999999999999h",
            "1é",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
