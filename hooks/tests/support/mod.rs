//! What the tests of hooks stand on: a server that records, orders, an engine in this process or in one to be killed.
#![allow(dead_code, reason = "each test binary is compiled with all of it and uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests have a clock, and tell their children by the environment")]

pub mod engine;
pub mod server;

use std::time::{Duration, Instant};

use qualm_hooks::order::{Order, Subject};
use qualm_model::{level::Level, time::Timestamp};

/// Other builds may starve this machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The wall time.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_nanos()).unwrap())
}

/// That a service of the namespace `shop` stands at a level, for ten minutes.
pub fn order(service: &str, level: Level) -> Order {
    let principal = format!("spiffe://mesh.test/ns/shop/sa/{service}");
    Order {
        decision: format!("{service}-{level}"),
        subject: Subject { principal, ..Subject::default() },
        level,
        acts: true,
        decided: now(),
        expires: now() + qualm_model::time::Span::seconds(600),
        evidence_bits: 31.5,
        by: None,
        reasons: vec!["it calls whom it never called".to_owned()],
        instances: Vec::new(),
        co_owners: Vec::new(),
    }
}

/// Waits until something is there.
pub fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
