//! The clock of this machine -> dates and moments as documents write them. `SOURCE_DATE_EPOCH` stands in for it, so that what is
//! made twice is the same.

/// Today (UTC) as `2026-11-20`.
pub fn today() -> String {
    date_of(seconds() / 86_400)
}

/// The moment as `2026-11-20T10:00:00Z`.
pub fn now() -> String {
    let seconds = seconds();
    let of_day = seconds % 86_400;
    format!("{}T{:02}:{:02}:{:02}Z", date_of(seconds / 86_400), of_day / 3600, of_day / 60 % 60, of_day % 60)
}

fn seconds() -> u64 {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|v| v.parse::<u64>().ok());
    let now =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    epoch.unwrap_or_else(now)
}

/// Days since 1970-01-01 -> `YYYY-MM-DD` (proleptic Gregorian calendar, counted in eras of 400 years).
fn date_of(days: u64) -> String {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [(0, "1970-01-01"), (11_016, "2000-02-29"), (20_777, "2026-11-20")] {
            assert_eq!(date_of(days), date);
        }
    }
}
