//! Reading of single values: booleans in every spelling, numbers as people write them.

/// A boolean in any of the usual spellings, in any case.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A whole number with an optional unit: `k`, `m`, `g`, `t` are powers of 1000, `K`, `M`, `G`, `T`
/// and `KiB`, `MiB`, `GiB`, `TiB` powers of 1024, `kB`, `MB`, `GB`, `TB` of 1000. A decimal part is
/// taken when the product is whole enough to round: `1.5k`, `25.6k`.
pub fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (number, unit) = (number.trim().replace('_', ""), unit.trim());
    let factor: u64 = match unit {
        "" | "B" => 1,
        "k" | "kB" | "KB" => 1_000,
        "m" | "MB" => 1_000_000,
        "g" | "GB" => 1_000_000_000,
        "t" | "TB" => 1_000_000_000_000,
        "K" | "Ki" | "KiB" => 1 << 10,
        "M" | "Mi" | "MiB" => 1 << 20,
        "G" | "Gi" | "GiB" => 1 << 30,
        "T" | "Ti" | "TiB" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    if factor == 1 {
        return None;
    }
    let digits = number.strip_prefix('+').unwrap_or(&number);
    if !digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let product = digits.parse::<f64>().ok()? * factor as f64;
    // 2^53: beyond it a float no longer tells neighbours apart.
    (product <= 9_007_199_254_740_992.0).then_some(product.round() as u64)
}

/// Bytes as people read them: `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A count as people read it: `1.54 B`, `134.5 M`.
pub fn count(number: u64) -> String {
    let value = number as f64;
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{:.1} K", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.2} B", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_in_every_spelling() {
        for (text, want) in [
            ("True", Some(true)),
            ("1", Some(true)),
            ("YES", Some(true)),
            ("on", Some(true)),
            ("false", Some(false)),
            ("0", Some(false)),
            ("No", Some(false)),
            ("model", None),
            ("", None),
        ] {
            assert_eq!(boolean(text), want, "{text:?}");
        }
    }

    #[test]
    fn whole_numbers_with_units() {
        for (text, want) in [
            ("4096", Some(4096)),
            ("4k", Some(4000)),
            ("4K", Some(4096)),
            ("25.6k", Some(25600)),
            ("1.5GiB", Some(1_610_612_736)),
            ("1_000", Some(1000)),
            ("2 GB", Some(2_000_000_000)),
            ("1.5", None),
            ("-1", None),
            ("-1k", None),
            ("4x", None),
            ("", None),
            ("inf", None),
            ("99999999999999999999", None),
            ("18446744073709551615K", None),
        ] {
            assert_eq!(whole(text), want, "{text:?}");
        }
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(count(134_515_008), "134.5 M");
        assert_eq!(count(7_000_000_000), "7.00 B");
    }
}
