//! A failed attempt -> how long to wait before the next one, or that there is none.
//!
//! Pauses double and are spread at random, so that many runners that failed together do not come back
//! together. What the registry asks for with `Retry-After` counts more. An attempt that brought bytes starts
//! the count anew.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::limits;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Counts attempts without progress.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
}

impl Patience {
    /// Bytes arrived: what failed before is forgotten.
    pub(super) fn progress(&mut self) {
        self.failures = 0;
    }

    /// How many attempts in a row have failed, for the message.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a failure. Waits and says `true` where another attempt may be made, out of `attempts_max`.
    pub(super) async fn wait(&mut self, asked: Option<Duration>, attempts_max: u32) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= attempts_max {
            return false;
        }
        tokio::time::sleep(asked.unwrap_or_else(|| pause(self.failures, random()))).await;
        true
    }
}

/// Whether trying again may help: busy, limited or broken for the moment.
pub(super) fn is_passing(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        status => status.is_server_error(),
    }
}

/// What the answer asks for with `Retry-After`: seconds, or a date seen from `now`.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        // A number too long for u64 is a very long wait all the same.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

/// Whether a wait is more than this program does on its own.
pub(super) fn is_too_long(asked: Duration) -> bool {
    asked > Duration::from_secs(limits::RETRY_AFTER_SECONDS_MAX)
}

/// Doubles from [`FIRST_PAUSE`] up to [`PAUSE_MAX`]; `random` in 0..=255 takes off up to half of it.
fn pause(failures: u32, random: u8) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX);
    doubled.mul_f64(1.0 - f64::from(random) / 512.0)
}

/// The keys of the standard library's hash maps are random: enough to spread pauses.
fn random() -> u8 {
    let hash = std::collections::hash_map::RandomState::new().build_hasher().finish();
    hash.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str) -> Option<Duration> {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:07 GMT").unwrap();
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(asked("0"), Some(Duration::ZERO));
        assert_eq!(asked(" 17 "), Some(Duration::from_secs(17)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Sunday, 06-Nov-94 08:49:37 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-1"), None);
        assert_eq!(asked(""), None);
        assert!(is_too_long(asked("99999999999999999999999999").unwrap()));
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::now()), None);
    }

    #[test]
    fn waits_of_the_limit_are_kept_and_longer_ones_are_not() {
        assert!(!is_too_long(Duration::from_secs(limits::RETRY_AFTER_SECONDS_MAX)));
        assert!(is_too_long(Duration::from_secs(limits::RETRY_AFTER_SECONDS_MAX + 1)));
    }

    #[test]
    fn pauses_double_and_stay_within_half_and_whole() {
        assert_eq!(pause(1, 0), FIRST_PAUSE);
        assert_eq!(pause(3, 0), FIRST_PAUSE * 4);
        assert!(pause(3, 255) > FIRST_PAUSE * 2);
        assert_eq!(pause(u32::MAX, 0), PAUSE_MAX);
    }

    #[test]
    fn only_what_passes_is_tried_again() {
        for (status, wanted) in [
            (408, true),
            (429, true),
            (500, true),
            (503, true),
            (501, false),
            (404, false),
            (401, false),
            (200, false),
        ] {
            assert_eq!(is_passing(StatusCode::from_u16(status).unwrap()), wanted, "{status}");
        }
    }
}
