//! The transmitter's side (SSF 1.0): its metadata, its keys, streams and their verification, and polling (RFC 8936).
//!
//! A stream belongs to the SPIFFE ID of whoever has made it; each has one. What changes is on disk before it is answered.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{RawQuery, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use qualm_model::{identity::Peer, time::Span};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Signals,
    book::{Book, MOST_STREAMS, Push, Status, Stream},
    event::{SUPPORTED, jti, verification},
};
use crate::listen::roles::Role;

/// Bytes of a request.
pub(super) const LARGEST_REQUEST: usize = 64 << 10;
/// Tokens in one answer to a poll.
const MOST_POLLED: usize = 100;
/// A poll waits so long for something to tell.
const POLL: Duration = Duration::from_secs(20);
/// A stream is verified this often at most, seconds.
const VERIFY_EVERY: i64 = 30;

/// A refusal: status, code and words.
pub(super) struct No(pub(super) StatusCode, pub(super) &'static str, pub(super) String);

type Answer = Result<Response, No>;

pub(super) fn routes(signals: Arc<Signals>) -> Router {
    Router::new()
        .route("/.well-known/ssf-configuration", get(metadata))
        .route("/ssf/jwks.json", get(keys))
        .route("/ssf/streams", axum::routing::any(streams))
        .route("/ssf/status", get(status).post(status))
        .route("/ssf/verify", post(verify))
        .route("/ssf/poll", post(poll))
        .with_state(signals)
}

/// Who asks, if they are listed for that.
pub(super) fn caller(signals: &Signals, peer: Option<&Peer>, role: Role) -> Result<String, No> {
    match peer {
        Some(Peer::Loopback) => Ok("loopback".to_owned()),
        Some(Peer::Verified(id)) if signals.roles.allow(role, id) => Ok(id.to_string()),
        Some(Peer::Verified(id)) => {
            let words = format!("{id} is not listed in listen.{} of Qualm's configuration", role.key());
            Err(No(StatusCode::FORBIDDEN, "access_denied", words))
        }
        None => Err(No(StatusCode::UNAUTHORIZED, "authentication_failed", "no verified peer".to_owned())),
    }
}

pub(super) fn answered(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

pub(super) fn told(answer: Answer) -> Response {
    answer.unwrap_or_else(|No(status, code, words)| answered(status, &json!({ "err": code, "description": words })))
}

pub(super) fn invalid(words: impl Into<String>) -> No {
    No(StatusCode::BAD_REQUEST, "invalid_request", words.into())
}

async fn metadata(State(signals): State<Arc<Signals>>) -> Response {
    let at = |path: &str| format!("{}{path}", signals.config.base());
    answered(
        StatusCode::OK,
        &json!({
            "spec_version": "1_0", "issuer": signals.config.issuer, "jwks_uri": at("/ssf/jwks.json"),
            "delivery_methods_supported": ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"],
            "configuration_endpoint": at("/ssf/streams"), "status_endpoint": at("/ssf/status"),
            "verification_endpoint": at("/ssf/verify"),
            "authorization_schemes": [{ "spec_urn": "urn:ietf:rfc:8705" }],
            "default_subjects": "ALL",
        }),
    )
}

async fn keys(State(signals): State<Arc<Signals>>) -> Response {
    answered(StatusCode::OK, &signals.signing.jwks())
}

/// What a receiver may say of its stream.
#[derive(Debug, Default, Deserialize)]
struct Wanted {
    stream_id: Option<String>,
    #[serde(default)]
    events_requested: Option<Vec<String>>,
    #[serde(default)]
    delivery: Option<Delivery>,
    #[serde(default)]
    description: Option<String>,
    /// What the transmitter says of it, which a receiver sends back with the rest.
    #[serde(flatten)]
    said: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delivery {
    method: String,
    #[serde(default)]
    endpoint_url: Option<String>,
    #[serde(default)]
    authorization_header: Option<String>,
}

async fn streams(State(signals): State<Arc<Signals>>, RawQuery(query): RawQuery, request: Request) -> Response {
    told(stream(&signals, query.as_deref().unwrap_or_default(), request).await)
}

async fn stream(signals: &Arc<Signals>, query: &str, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let who = caller(signals, parts.extensions.get::<Peer>(), Role::Receiver)?;
    match parts.method {
        Method::GET => {
            let named = named(query);
            signals.read(|book| match book.streams.get(&who) {
                Some(stream) if named.as_deref().is_none_or(|id| id == stream.id) => {
                    let told = describe(signals, stream);
                    Ok(answered(StatusCode::OK, &if named.is_some() { told } else { json!([told]) }))
                }
                None if named.is_none() => Ok(answered(StatusCode::OK, &json!([]))),
                _ => Err(missing()),
            })
        }
        Method::DELETE => {
            let named = named(query);
            signals.change(|book| {
                let is_it = |stream: &Stream| named.as_deref() == Some(&stream.id);
                book.streams.get(&who).filter(|stream| is_it(stream)).ok_or_else(missing)?;
                book.streams.remove(&who);
                Ok(empty(StatusCode::NO_CONTENT))
            })
        }
        Method::POST => {
            let wanted = wanted(body).await?;
            let (push, requested) = (checked(signals, wanted.delivery.as_ref())?, wanted.events_requested);
            signals.change(|book| {
                if book.streams.contains_key(&who) {
                    return Err(No(StatusCode::CONFLICT, "invalid_request", "you have a stream already".to_owned()));
                }
                if book.streams.len() >= MOST_STREAMS {
                    return Err(No(
                        StatusCode::TOO_MANY_REQUESTS,
                        "invalid_request",
                        format!("there are {MOST_STREAMS} streams already"),
                    ));
                }
                let stream = made(&who, push, requested, wanted.description);
                let told = describe(signals, &stream);
                book.streams.insert(who.clone(), stream);
                Ok(answered(StatusCode::CREATED, &told))
            })
        }
        Method::PATCH | Method::PUT => {
            let is_whole = parts.method == Method::PUT;
            let wanted = wanted(body).await?;
            let push = checked(signals, wanted.delivery.as_ref())?;
            signals.change(|book| {
                let stream = book.streams.get_mut(&who).ok_or_else(missing)?;
                if wanted.stream_id.as_deref() != Some(&stream.id) {
                    return Err(missing());
                }
                if is_whole || wanted.events_requested.is_some() {
                    let requested = wanted.events_requested.unwrap_or_else(all);
                    (stream.delivered, stream.requested) = (supported(&requested), requested);
                }
                if is_whole || wanted.delivery.is_some() {
                    stream.push = push;
                }
                if is_whole || wanted.description.is_some() {
                    stream.description = wanted.description;
                }
                Ok(answered(StatusCode::OK, &describe(signals, stream)))
            })
        }
        _ => Err(No(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "GET, POST, PATCH, PUT or DELETE".to_owned())),
    }
}

async fn wanted(body: Body) -> Result<Wanted, No> {
    let wanted: Wanted = read(body).await?;
    let known =
        ["iss", "aud", "events_supported", "events_delivered", "min_verification_interval", "inactivity_timeout"];
    match wanted.said.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(invalid(format!("`{key}` is not known"))),
        None => Ok(wanted),
    }
}

pub(super) async fn bytes(body: Body) -> Result<Bytes, No> {
    let too_long = |_| invalid(format!("it cannot be read, or has more than {LARGEST_REQUEST} bytes"));
    to_bytes(body, LARGEST_REQUEST).await.map_err(too_long)
}

async fn read<T: for<'a> Deserialize<'a>>(body: Body) -> Result<T, No> {
    let bytes = bytes(body).await?;
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| invalid(format!("it is not what is expected: {error}")))
}

fn missing() -> No {
    No(StatusCode::NOT_FOUND, "invalid_request", "you have no stream of this id".to_owned())
}

fn named(query: &str) -> Option<String> {
    query.split('&').find_map(|pair| pair.strip_prefix("stream_id=")).map(str::to_owned)
}

fn all() -> Vec<String> {
    SUPPORTED.map(str::to_owned).to_vec()
}

fn supported(requested: &[String]) -> Vec<String> {
    requested.iter().filter(|kind| SUPPORTED.contains(&kind.as_str())).cloned().collect()
}

fn made(who: &str, push: Option<Push>, requested: Option<Vec<String>>, description: Option<String>) -> Stream {
    let requested = requested.unwrap_or_else(all);
    Stream {
        id: const_hex::encode(&Sha256::digest(who)[..8]),
        audience: who.to_owned(),
        delivered: supported(&requested),
        requested,
        push,
        description,
        status: Status::Enabled,
        why: None,
        verified: None,
        waiting: std::collections::VecDeque::new(),
        lost: 0,
    }
}

/// Where tokens are to go; only where the configuration says that they may.
fn checked(signals: &Signals, delivery: Option<&Delivery>) -> Result<Option<Push>, No> {
    let Some(delivery) = delivery else { return Ok(None) };
    match (delivery.method.as_str(), &delivery.endpoint_url) {
        ("urn:ietf:rfc:8936", _) => Ok(None),
        ("urn:ietf:rfc:8935", Some(url)) => {
            if !signals.config.may_push_to(url) {
                return Err(invalid("its endpoint_url is none of [signals] push_to of Qualm's configuration"));
            }
            let authorization = delivery.authorization_header.clone();
            if authorization.as_deref().is_some_and(|header| HeaderValue::from_str(header).is_err()) {
                return Err(invalid("its authorization_header is no header"));
            }
            Ok(Some(Push { url: url.clone(), authorization }))
        }
        ("urn:ietf:rfc:8935", None) => Err(invalid("delivery by push needs an endpoint_url")),
        _ => Err(invalid("its delivery method is neither urn:ietf:rfc:8935 nor urn:ietf:rfc:8936")),
    }
}

fn describe(signals: &Signals, stream: &Stream) -> Value {
    let delivery = match &stream.push {
        // What proves us to them is not told again.
        Some(push) => json!({ "method": "urn:ietf:rfc:8935", "endpoint_url": push.url }),
        None => json!({ "method": "urn:ietf:rfc:8936", "endpoint_url": format!("{}/ssf/poll", signals.config.base()) }),
    };
    json!({
        "stream_id": stream.id, "iss": signals.config.issuer, "aud": stream.audience,
        "events_supported": SUPPORTED, "events_requested": stream.requested, "events_delivered": stream.delivered,
        "delivery": delivery, "min_verification_interval": VERIFY_EVERY, "description": stream.description,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    stream_id: String,
    status: Status,
    #[serde(default)]
    reason: Option<String>,
}

async fn status(State(signals): State<Arc<Signals>>, RawQuery(query): RawQuery, request: Request) -> Response {
    told(status_of(&signals, query.as_deref().unwrap_or_default(), request).await)
}

async fn status_of(signals: &Arc<Signals>, query: &str, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let who = caller(signals, parts.extensions.get::<Peer>(), Role::Receiver)?;
    let say = |stream: &Stream| {
        answered(StatusCode::OK, &json!({ "stream_id": stream.id, "status": stream.status, "reason": stream.why }))
    };
    if parts.method == Method::GET {
        let named = named(query);
        let is_it = |stream: &&Stream| named.as_deref() == Some(&stream.id);
        return signals.read(|book| book.streams.get(&who).filter(is_it).map(say).ok_or_else(missing));
    }
    let change: Change = read(body).await?;
    signals.change(|book| {
        let stream = book.streams.get_mut(&who).filter(|of| of.id == change.stream_id).ok_or_else(missing)?;
        (stream.status, stream.why) = (change.status, change.reason);
        if change.status == Status::Disabled {
            stream.waiting.clear();
        }
        Ok(say(stream))
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {
    stream_id: String,
    #[serde(default)]
    state: Option<String>,
}

async fn verify(State(signals): State<Arc<Signals>>, request: Request) -> Response {
    told(verified(&signals, request).await)
}

async fn verified(signals: &Arc<Signals>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let who = caller(signals, parts.extensions.get::<Peer>(), Role::Receiver)?;
    let Verify { stream_id, state } = read(body).await?;
    if state.as_ref().is_some_and(|state| state.len() > 1024) {
        return Err(invalid("its state has more than 1024 bytes"));
    }
    let wall = signals.clock.now();
    let seconds = wall.0.div_euclid(Span::SECOND.0);
    signals.change(|book: &mut Book| {
        let stream = book.streams.get_mut(&who).filter(|of| of.id == stream_id).ok_or_else(missing)?;
        if stream.verified.is_some_and(|last| (0..VERIFY_EVERY).contains(&(seconds - last))) {
            let words = format!("once in {VERIFY_EVERY} s");
            return Err(No(StatusCode::TOO_MANY_REQUESTS, "invalid_request", words));
        }
        stream.verified = Some(seconds);
        let event = verification(&stream_id, state.as_deref());
        let id = jti(&stream_id, wall.0.unsigned_abs(), &event.kind);
        signals.queue(stream, &event, id, wall)?;
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Poll {
    max_events: Option<usize>,
    return_immediately: bool,
    ack: Vec<String>,
    set_errs: Map<String, Value>,
}

async fn poll(State(signals): State<Arc<Signals>>, request: Request) -> Response {
    told(polled(&signals, request).await)
}

async fn polled(signals: &Arc<Signals>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let who = caller(signals, parts.extensions.get::<Peer>(), Role::Receiver)?;
    let poll: Poll = read(body).await?;
    if !poll.ack.is_empty() || !poll.set_errs.is_empty() {
        signals.change(|book| {
            let stream = book.streams.get_mut(&who).ok_or_else(missing)?;
            let acknowledged = poll.ack.iter().filter(|jti| stream.settle(jti)).count();
            signals.metrics.told("acknowledged", acknowledged);
            for (jti, error) in &poll.set_errs {
                if stream.settle(jti) {
                    stream.lost += 1;
                    signals.metrics.told("refused", 1);
                    tracing::warn!(receiver = who, jti, %error, "a receiver has refused a signal");
                }
            }
            Ok(())
        })?;
    }
    let most = poll.max_events.unwrap_or(MOST_POLLED).min(MOST_POLLED);
    let mut news = signals.news.subscribe();
    let take = || {
        signals.read(|book| {
            let stream = book.streams.get(&who).filter(|stream| stream.push.is_none()).ok_or_else(missing)?;
            let waiting = if stream.status == Status::Enabled { stream.waiting.len() } else { 0 };
            let sets: Map<String, Value> = stream
                .waiting
                .iter()
                .take(most.min(waiting))
                .map(|waiting| (waiting.jti.clone(), waiting.token.clone().into()))
                .collect();
            Ok((sets, waiting))
        })
    };
    let until = tokio::time::Instant::now() + POLL;
    loop {
        let (sets, waiting) = take()?;
        let is_over = most == 0 || poll.return_immediately || !sets.is_empty();
        if is_over || tokio::time::timeout_at(until, news.changed()).await.is_err() {
            let more = waiting > sets.len();
            return Ok(answered(StatusCode::OK, &json!({ "sets": sets, "moreAvailable": more })));
        }
    }
}
