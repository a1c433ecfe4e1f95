//! Waiting for what must happen, with a limit so generous that only a failure reaches it.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Long enough for any single step on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until there is something to see.
///
/// # Panics
/// When `limit` passes first, naming `what` was waited for.
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// [`until`] for a plain condition.
pub(crate) fn until_true(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    until(what, limit, || holds().then_some(()));
}
