//! The three pages. None takes a body, none waits for the pipeline.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use qualm_model::{level::Level, time::Timestamp};
use serde::Serialize;
use tokio::sync::watch;

const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the pipeline does its work, and how far it may go.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Readiness {
    /// Why it does not; empty when it is ready.
    pub reasons: Vec<String>,
    /// What does not keep it from its work at the ports and is to be known: a probe that took it off the network for
    /// that would cut off enforcement points and telemetry that are well.
    pub notes: Vec<String>,
    /// Which levels behaviour may lead to, lowest first.
    pub levels: Vec<Arming>,
    /// What became of the records of each input, in a sentence.
    pub inputs: Vec<String>,
    /// Inputs whose records name their cluster.
    pub clustered: Vec<String>,
}

/// Whether a level can be entered on behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arming {
    /// The level.
    pub level: Level,
    /// Whether its curve can be read.
    pub armed: bool,
    /// When it will be at the earliest, event time, where that is known.
    pub due: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct ReadyPage {
    ready: bool,
    reasons: Vec<String>,
    notes: Vec<String>,
    levels: Vec<LevelPage>,
    inputs: Vec<String>,
    clustered: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LevelPage {
    level: Level,
    armed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
}

#[derive(Debug, Clone)]
struct Pages {
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
}

pub(super) fn routes(registry: Registry, readiness: watch::Receiver<Readiness>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn(refuse_body))
        .with_state(Pages { registry, readiness })
}

async fn metrics(State(pages): State<Pages>) -> Response {
    match TextEncoder::new().encode_to_string(&pages.registry.gather()) {
        Ok(text) => answer(StatusCode::OK, METRICS, text),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, METRICS, format!("# {error}\n")),
    }
}

/// Alive for as long as the pipeline holds the other end.
async fn healthz(State(pages): State<Pages>) -> Response {
    match pages.readiness.has_changed() {
        Ok(_) => answer(StatusCode::OK, JSON, "{\"healthy\":true}\n".to_owned()),
        Err(_) => answer(StatusCode::SERVICE_UNAVAILABLE, JSON, "{\"healthy\":false}\n".to_owned()),
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let mut readiness = pages.readiness.borrow().clone();
    if pages.readiness.has_changed().is_err() {
        readiness.reasons.insert(0, "the pipeline has ended".to_owned());
    }
    let page = ReadyPage::from(readiness);
    let status = if page.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&page) {
        Ok(json) => answer(status, JSON, json + "\n"),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, JSON, format!("\"{error}\"\n")),
    }
}

impl From<Readiness> for ReadyPage {
    fn from(readiness: Readiness) -> Self {
        let level = |arming: Arming| LevelPage {
            level: arming.level,
            armed: arming.armed,
            due: arming.due.filter(|_| !arming.armed).and_then(rfc3339),
        };
        Self {
            ready: readiness.reasons.is_empty(),
            reasons: readiness.reasons,
            notes: readiness.notes,
            levels: readiness.levels.into_iter().map(level).collect(),
            inputs: readiness.inputs,
            clustered: readiness.clustered,
        }
    }
}

/// Nothing here has a use for a body: whoever sends one is answered before it is read.
async fn refuse_body(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let length = headers.get(CONTENT_LENGTH).map_or(&b"0"[..], |length| length.as_bytes());
    if length != b"0" || headers.contains_key(TRANSFER_ENCODING) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    next.run(request).await
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response {
    (status, [(CONTENT_TYPE, content_type)], Body::from(text)).into_response()
}

fn rfc3339(time: Timestamp) -> Option<String> {
    jiff::Timestamp::from_nanosecond(i128::from(time.0)).ok().map(|time| time.to_string())
}
