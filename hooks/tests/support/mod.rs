//! What the tests of hooks stand on: a server that records, orders, an engine in this process or in one to be killed.
#![allow(dead_code, reason = "each test binary is compiled with all of it and uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, clippy::print_stderr, reason = "as in the product's own tests")]
#![allow(clippy::disallowed_methods, reason = "tests have a clock, and tell their children by the environment")]

pub mod account;
pub mod cluster;
pub mod engine;
pub mod server;

// What the end-to-end tests of the product stand on too.
#[path = "../../../tests/support/parts.rs"]
pub mod parts;
#[path = "../../../tests/support/ports.rs"]
pub mod ports;
#[path = "../../../tests/support/process.rs"]
pub mod process;
#[path = "../../../tests/support/wait.rs"]
pub mod wait;

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
        leaking: false,
        provenance: None,
        evidence: Vec::new(),
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

/// The milliseconds of many runs, in the middle and at the worst, as they are reported.
pub fn report(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let ms = |at: usize| took[at].as_secs_f64() * 1000.0;
    let last = took.len() - 1;
    eprintln!("MEASURED {what}: p50 {:.1} ms, worst {:.1} ms of {}", ms(last / 2), ms(last), took.len());
}

/// A JSON call of the test's own, with a bearer's token or none: status and body.
pub fn call(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&serde_json::Value>,
) -> (u16, serde_json::Value) {
    call_with(method, url, headers, body.map(serde_json::Value::to_string))
}

/// The same with a body as it is.
pub fn call_with(method: &str, url: &str, headers: &[(&str, &str)], body: Option<String>) -> (u16, serde_json::Value) {
    // Whom the test has started itself it need not verify.
    let tls = ureq::tls::TlsConfig::builder()
        .unversioned_rustls_crypto_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .disable_verification(true);
    let agent = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let sent = match body {
        Some(body) => {
            let has_type = headers.iter().any(|(name, _)| *name == "content-type");
            let request = if has_type { request } else { request.header("content-type", "application/json") };
            agent.run(request.body(body).unwrap())
        }
        None => agent.run(request.body(()).unwrap()),
    };
    let Ok(mut response) = sent else { return (0, serde_json::Value::Null) };
    let text = response.body_mut().read_to_string().unwrap_or_default();
    (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
}
