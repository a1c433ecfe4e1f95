//! The one place of the product in which the clock is read.

use std::time::{SystemTime, UNIX_EPOCH};

use qualm_model::time::{Clock, Timestamp};

/// The system's wall clock.
#[expect(clippy::disallowed_methods, reason = "time enters the program here and is an argument everywhere else")]
pub(crate) fn system() -> Clock {
    Clock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    })
}
