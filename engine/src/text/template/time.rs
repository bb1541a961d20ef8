//! `strftime_now`: the present date in a format of C's `strftime`.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_PER_DAY: i64 = 86_400;

/// Seconds since 1970, UTC.
pub(super) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    i64::try_from(elapsed).unwrap_or(0)
}

/// A moment in the Gregorian calendar, UTC.
struct Moment {
    year: i64,
    /// 1 to 12.
    month: usize,
    /// 1 to 31.
    day: i64,
    /// 0 is Sunday.
    weekday: usize,
    /// 1 to 366.
    year_day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    unix: i64,
}

impl Moment {
    /// From days since 1970, after Howard Hinnant's `civil_from_days`.
    fn new(unix: i64) -> Self {
        let (days, seconds) = (unix.div_euclid(SECONDS_PER_DAY), unix.rem_euclid(SECONDS_PER_DAY));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        // The calendar counted from March: 306 days lie before January.
        let year_day = if month > 2 { from_march + 60 + i64::from(leap) } else { from_march - 305 };
        Self {
            year,
            month: month as usize,
            day,
            weekday: (days + 4).rem_euclid(7) as usize,
            year_day,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            unix,
        }
    }

    fn hour12(&self) -> i64 {
        (self.hour + 11) % 12 + 1
    }

    /// One directive; none if it is not known.
    fn directive(&self, directive: char, dash: bool) -> Option<String> {
        let two = |value: i64| if dash { value.to_string() } else { format!("{value:02}") };
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => two(self.year.rem_euclid(100)),
            'm' => two(self.month as i64),
            'd' => two(self.day),
            'e' if dash => self.day.to_string(),
            'e' => format!("{:2}", self.day),
            'B' => MONTHS[self.month - 1].to_owned(),
            'b' | 'h' => MONTHS[self.month - 1][..3].to_owned(),
            'A' => DAYS[self.weekday].to_owned(),
            'a' => DAYS[self.weekday][..3].to_owned(),
            'w' => self.weekday.to_string(),
            'u' => if self.weekday == 0 { 7 } else { self.weekday }.to_string(),
            'j' if dash => self.year_day.to_string(),
            'j' => format!("{:03}", self.year_day),
            'H' => two(self.hour),
            'I' => two(self.hour12()),
            'M' => two(self.minute),
            'S' => two(self.second),
            'f' => "000000".to_owned(),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            's' => self.unix.to_string(),
            'Z' | 'z' => String::new(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            'F' => self.format("%Y-%m-%d"),
            'T' | 'X' => self.format("%H:%M:%S"),
            'R' => self.format("%H:%M"),
            'D' | 'x' => self.format("%m/%d/%y"),
            'c' => self.format("%a %b %e %H:%M:%S %Y"),
            _ => return None,
        })
    }

    fn format(&self, format: &str) -> String {
        let mut out = String::with_capacity(format.len() * 2);
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let dash = rest.starts_with("%-");
            let skip = if dash { 2 } else { 1 };
            let directive = rest[skip..].chars().next();
            match directive.and_then(|d| Some((d, self.directive(d, dash)?))) {
                Some((directive, text)) => {
                    out.push_str(&text);
                    rest = &rest[skip + directive.len_utf8()..];
                }
                None => {
                    out.push('%');
                    rest = &rest[1..];
                }
            }
        }
        out.push_str(rest);
        out
    }
}

/// `unix` seconds in `format`. As in Python, a directive that is not known stays as it is.
pub(super) fn strftime(format: &str, unix: i64) -> String {
    Moment::new(unix).format(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        // Checked against Python's datetime.fromtimestamp(.., timezone.utc).strftime.
        for (unix, format, expected) in [
            (0, "%d %b %Y", "01 Jan 1970"),
            (1_721_900_000, "%A, %B %d, %Y %H:%M:%S", "Thursday, July 25, 2024 09:33:20"),
            (1_709_164_800, "%Y-%m-%d %j %a", "2024-02-29 060 Thu"),
            (1_735_689_599, "%j %I %p %-d %-m %y", "366 11 PM 31 12 24"),
            (951_782_400, "%F %T %e", "2000-02-29 00:00:00 29"),
            (-1, "%c", "Wed Dec 31 23:59:59 1969"),
            (0, "100%% %Q % é", "100% %Q % é"),
        ] {
            assert_eq!(strftime(format, unix), expected, "{unix} {format}");
        }
    }
}
