use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    journal::{Journal, JournalLimits},
    notify::{FileSink, Notifier},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

use super::{
    log::{Colour, LogConfig},
    metrics::PipelineMetrics,
    *,
};

struct Running {
    address: SocketAddr,
    registry: Registry,
    readiness: Option<watch::Sender<Readiness>>,
}

async fn running(shape: impl FnOnce(Door) -> Door, connections: usize) -> Running {
    let config = ObserveConfig { address: SocketAddr::from(([127, 0, 0, 1], 0)), connections };
    let Observability { door, address } = Observability::bind(&config).await.unwrap();
    let (registry, readiness) = (Registry::new(), watch::Sender::new(Readiness::default()));
    let page = Observability { door: shape(door), address };
    assert_eq!(page.address(), address);
    tokio::spawn(page.serve(registry.clone(), readiness.subscribe()));
    Running { address, registry, readiness: Some(readiness) }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = ask(address, &format!("GET {path} HTTP/1.1\r\nhost: qualm\r\nconnection: close\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Those of the pipeline, the journal and the alerts.
async fn every_metric(registry: &Registry) {
    let directory = tempfile::tempdir().unwrap();
    let opened = Journal::open(directory.path(), &JournalLimits::default()).unwrap();
    opened.journal.register(registry).unwrap();
    let mut notifier = Notifier::new(1, mpsc::channel(1).0);
    notifier.add(FileSink::new(&directory.path().join("alerts.jsonl")));
    notifier.register(registry).unwrap();
    let metrics = PipelineMetrics::register(registry).unwrap();
    metrics.event_to_verdict.observe(0.001);
    metrics.entered(Level::Watched);
    metrics.came("topic mesh", 3, 2, 1);
    metrics.budget(Level::Quarantined, 0.01, 0.004);
    metrics.counted(Level::Watched, 7.5, Span::HOUR);
    metrics.arming(&Arming { level: Level::Watched, armed: true, due: None });
}

#[tokio::test]
async fn the_metrics_page_has_help_type_and_values() {
    let running = running(|door| door, 4).await;
    every_metric(&running.registry).await;
    let (status, page) = get(running.address, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "# TYPE qualm_event_to_verdict_seconds histogram",
        "# HELP qualm_events_late_total Events further behind the others than lateness_s: scored, not learned.",
        "qualm_events_late_total{source=\"topic mesh\"} 3",
        "qualm_trust_transitions_total{level=\"watched\"} 1",
        "qualm_trust_entries{level=\"quarantined\"} 0",
        "qualm_journal_failing 0",
        "qualm_alerts_dropped_total{reason=\"queue_full\",sink=\"file\"} 0",
        "qualm_realised_entries_per_day{level=\"quarantined\"} 0.004",
        "qualm_counted_entries_per_day{level=\"watched\"} 7.5",
        "qualm_counted_window_seconds 3600",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
    }
}

#[tokio::test]
async fn promtool_accepts_the_names_units_and_help_of_all_metrics() {
    let registry = Registry::new();
    every_metric(&registry).await;
    let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else { return leave_out("promtool is not on the PATH; tests/run installs it") };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// As `tests/support/parts.rs` does it, which the binary's own tests cannot reach.
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "tests are told what they may leave out")]
fn leave_out(why: &str) {
    assert!(!std::env::var("QUALM_REQUIRE_PARTS").is_ok_and(|value| value == "1"), "{why}");
    eprintln!("SKIPPED: {why}");
    if let Some(folder) = std::env::var_os("QUALM_SKIPPED_DIR") {
        let file = std::path::Path::new(&folder).join("qualm.observability.promtool");
        std::fs::write(file, format!("SKIPPED: {why}\n")).unwrap();
    }
}

#[tokio::test]
async fn the_ready_page_says_why_not_and_which_levels_are_armed() {
    let running = running(|door| door, 4).await;
    let readiness = running.readiness.as_ref().unwrap();
    let levels = vec![
        Arming { level: Level::Watched, armed: true, due: Some(Timestamp(0)) },
        Arming { level: Level::Throttled, armed: false, due: Some(Timestamp::from_seconds(86_400)) },
    ];
    readiness.send_replace(Readiness {
        reasons: vec!["history is still being read".to_owned()],
        levels,
        inputs: vec!["topic mesh: 7 records so far, 7 events".to_owned()],
        ..Readiness::default()
    });
    let (status, page) = get(running.address, "/readyz").await;
    assert_eq!(status, 503);
    let expected = json!({
        "ready": false,
        "reasons": ["history is still being read"],
        "notes": [],
        "levels": [
            {"level": "watched", "armed": true},
            {"level": "throttled", "armed": false, "due": "1970-01-02T00:00:00Z"},
        ],
        "inputs": ["topic mesh: 7 records so far, 7 events"],
        "clustered": [],
    });
    assert_eq!(serde_json::from_str::<Value>(&page).unwrap(), expected);
    readiness.send_modify(|readiness| readiness.reasons.clear());
    assert_eq!(get(running.address, "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_pipeline_that_has_ended_is_neither_healthy_nor_ready() {
    let mut running = running(|door| door, 4).await;
    assert_eq!(get(running.address, "/healthz").await, (200, "{\"healthy\":true}\n".to_owned()));
    running.readiness = None;
    assert_eq!(get(running.address, "/healthz").await.0, 503);
    let (status, page) = get(running.address, "/readyz").await;
    assert!(status == 503 && page.contains("the pipeline has ended"), "{page}");
}

#[tokio::test]
async fn bodies_other_methods_and_other_paths_are_refused() {
    let running = running(|door| door, 4).await;
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nhost: q\r\nconnection: close\r\ncontent-length: 9\r\n\r\nwhat else", " 413 "),
        (
            "GET /metrics HTTP/1.1\r\nhost: q\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            " 413 ",
        ),
        ("POST /metrics HTTP/1.1\r\nhost: q\r\nconnection: close\r\n\r\n", " 405 "),
        ("GET /secrets HTTP/1.1\r\nhost: q\r\nconnection: close\r\n\r\n", " 404 "),
        ("nonsense\r\n\r\n", " 400 "),
    ] {
        let answer = ask(running.address, request).await;
        assert!(answer.lines().next().unwrap().contains(status), "{request}: {answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let running = running(|door| door, 1).await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: q\r\n\r\n").await.unwrap();
    assert!(first.read(&mut [0; 64]).await.unwrap() > 0);
    let second = get(running.address, "/healthz");
    tokio::pin!(second);
    assert!(timeout(Duration::from_millis(200), &mut second).await.is_err(), "the only place is taken");
    drop(first);
    assert_eq!(second.await.0, 200);
}

#[tokio::test]
async fn whoever_sends_slowly_loses_the_place() {
    let running = running(|door| door.closing_after(Duration::from_millis(100)), 1).await;
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(b"GET /metr").await.unwrap();
    assert_eq!(get(running.address, "/healthz").await.0, 200);
    let mut rest = Vec::new();
    // Closed or reset: either way it is over.
    let _ = slow.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_by_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ObserveConfig { address: taken.local_addr().unwrap(), ..ObserveConfig::default() };
    let error = Observability::bind(&config).await.unwrap_err().to_string();
    assert!(error.starts_with("[observe] address 127.0.0.1:"), "{error}");
}

#[test]
fn unknown_keys_of_both_sections_are_refused() {
    assert!(serde_json::from_str::<ObserveConfig>(r#"{"adress": "127.0.0.1:1"}"#).is_err());
    assert!(serde_json::from_str::<LogConfig>(r#"{"levl": "info"}"#).is_err());
    assert_eq!(serde_json::from_str::<ObserveConfig>("{}").unwrap(), ObserveConfig::default());
    assert_eq!(serde_json::from_str::<LogConfig>("{}").unwrap(), LogConfig::default());
}

#[test]
fn a_level_that_is_no_filter_is_told_with_what_to_write() {
    let config = LogConfig { level: "info,rdkafka=loud".to_owned(), ..LogConfig::default() };
    let error = config.filter().unwrap_err().to_string();
    assert!(error.starts_with("[log] level = \"info,rdkafka=loud\""), "{error}");
    LogConfig::default().filter().unwrap();
}

/// What a subscriber has written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(config: &LogConfig) -> String {
    let written = Written::default();
    let subscriber = config
        .subscriber(
            {
                let written = written.clone();
                move || written.clone()
            },
            Colour::Off,
        )
        .unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(node = "sidecar-7", "acknowledged");
        tracing::debug!("not asked for");
    });
    String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn the_log_is_text_or_json_at_the_level_asked_for() {
    let text = logged(&LogConfig::default());
    assert!(text.contains("acknowledged node=\"sidecar-7\"") && text.lines().count() == 1, "{text}");
    let json = logged(&LogConfig { format: log::LogFormat::Json, ..LogConfig::default() });
    let line: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&line["level"], &line["message"], &line["node"]),
        (&json!("INFO"), &json!("acknowledged"), &json!("sidecar-7"))
    );
}
