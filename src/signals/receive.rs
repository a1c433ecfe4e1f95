//! The receiver's side: tokens of configured transmitters, pushed to us (RFC 8935). What one says of a workload here is
//! carried out as that transmitter's entry, at the level and for the time that the configuration gives to its word.
//!
//! A transmitter's word is no call that was seen: it enters no clock, curve or budget. It is bounded as an operator's
//! is: protection, blast radius, a lease, the journal. Each `jti` acts once, also across restarts, as the loop remembers
//! by whom a key was used for a day, and a token older than that is refused.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use qualm_model::{
    identity::Peer,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::Length,
    operator::{Ask, InShadow, Refusal},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::{
    Signals,
    keys::{Key, Keys},
    transmit::{No, bytes, caller, empty, told},
};
use crate::{
    listen::roles::Role,
    operator::{Call, Request as Asked, allowance::Effort},
};

/// A token is this old at most when it comes; a key is remembered for longer.
const OLDEST: Span = Span(12 * Span::HOUR.0);
/// A clock may be ahead by so much.
const SKEW: Span = Span(5 * Span::MINUTE.0);

/// `[[signals.from]]`: a transmitter whose word counts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Transmitter {
    /// Its `iss`.
    pub(crate) issuer: String,
    /// What its tokens must name as `aud`.
    pub(crate) audience: String,
    /// Its keys: a JWK Set.
    pub(crate) jwks_file: Option<PathBuf>,
    /// Or where that is fetched, again and again.
    pub(crate) jwks_url: Option<String>,
    /// PEM file with the roots of whoever serves it.
    pub(crate) jwks_ca_file: Option<PathBuf>,
    /// The level that a high risk, or a revoked session or credential, leads to.
    #[serde(default = "watched")]
    pub(crate) level: Level,
    /// For how long.
    #[serde(default = "half_an_hour")]
    pub(crate) lease: Length,
}

fn watched() -> Level {
    Level::Watched
}

fn half_an_hour() -> Length {
    Length(Span(30 * Span::MINUTE.0))
}

/// A transmitter with its keys.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) of: Transmitter,
    pub(super) keys: Arc<Keys>,
}

impl Known {
    /// Reads its keys, where a file has them.
    ///
    /// # Errors
    /// There are none that can be used, or the level or lease is none that a transmitter's word may have.
    pub(crate) fn read(of: &Transmitter) -> Result<Self> {
        let named = || format!("[[signals.from]] {}", of.issuer);
        if of.level == Level::Trusted || of.level > Level::Quarantined {
            bail!("{}: level: watched, throttled, restricted or quarantined", named());
        }
        if of.lease.0 < Span::seconds(10) || of.lease.0 > Span(7 * Span::DAY.0) {
            bail!("{}: lease: from \"10s\" to \"7d\"", named());
        }
        let keys = match (&of.jwks_file, &of.jwks_url) {
            (Some(file), None) => Keys::read(file),
            (None, Some(url)) => Keys::at(url, of.jwks_ca_file.as_deref()),
            _ => Err(anyhow::anyhow!("exactly one of jwks_file and jwks_url is needed, for its keys")),
        };
        Ok(Self { of: of.clone(), keys: Arc::new(keys.with_context(named)?) })
    }
}

#[derive(Debug, Deserialize)]
struct Head {
    typ: String,
    alg: String,
    kid: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    jti: String,
    iat: i64,
    aud: Value,
    sub_id: Option<Value>,
    #[serde(default)]
    exp: Option<i64>,
    events: Map<String, Value>,
}

/// What a token says, once it is believed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) issuer: String,
    pub(crate) jti: String,
    pub(crate) identity: String,
    /// The last part of the event's type.
    pub(crate) event: String,
    /// `None`: nothing is to be done.
    pub(crate) level: Option<Level>,
    pub(crate) lease: Span,
}

pub(super) fn routes(signals: Arc<Signals>) -> Router {
    Router::new().route("/ssf/events", post(receive)).with_state(signals)
}

async fn receive(State(signals): State<Arc<Signals>>, request: Request) -> Response {
    let answer = received(&signals, request).await;
    let outcome = answer.as_ref().map_or_else(|No(_, code, _)| *code, |(_, outcome)| *outcome);
    signals.metrics.heard(outcome);
    if let Err(No(_, code, words)) = &answer {
        tracing::warn!(code, words, "a security event token is refused");
    }
    told(answer.map(|(response, _)| response))
}

async fn received(signals: &Arc<Signals>, request: Request) -> Result<(Response, &'static str), No> {
    let (parts, body) = request.into_parts();
    let who = caller(signals, parts.extensions.get::<Peer>(), Role::Transmitter)?;
    let taken =
        signals.allowances.lock().unwrap_or_else(PoisonError::into_inner).take(&who, Effort::Change, Instant::now());
    if let Err(wait) = taken {
        let words = format!("{who} sends too often; wait {:.1} s", wait.as_secs_f64());
        return Err(No(StatusCode::TOO_MANY_REQUESTS, "too_often", words));
    }
    let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.eq_ignore_ascii_case("application/secevent+jwt") {
        return Err(bad("invalid_request", "send a token, with `Content-Type: application/secevent+jwt`"));
    }
    let token = text(body).await?;
    let word = verified(&token, &signals.from, signals.clock.now())?;
    let accepted = |outcome| Ok((empty(StatusCode::ACCEPTED), outcome));
    let Some(level) = word.level else { return accepted("noted") };
    let ask = Ask::Set {
        identity: word.identity.clone(),
        instance: None,
        level,
        lease: word.lease,
        in_shadow: InShadow::Marks,
        overrides: Vec::new(),
    };
    let key = Sha256::digest([word.issuer.as_bytes(), b"\0", word.jti.as_bytes()].concat());
    let asked = Asked {
        by: word.issuer.clone(),
        why: format!("{} by {}", word.event, word.issuer).chars().take(500).collect(),
        key: const_hex::encode(&key[..16]),
        ask,
    };
    let (answer, done) = oneshot::channel();
    let gone = || No(StatusCode::SERVICE_UNAVAILABLE, "invalid_state", "Qualm is stopping".to_owned());
    signals.calls.send(Call::Do(Box::new(asked), answer)).await.map_err(|_| gone())?;
    match done.await.map_err(|_| gone())? {
        Ok(done) => {
            // It is answered for once it is on disk.
            let record = done.record.ok_or_else(gone)?;
            signals.journal.durable(record).await.map_err(|_| gone())?;
            accepted(if done.repeated { "replayed" } else { "acted" })
        }
        // The same id was used for something else.
        Err(Refusal::KeyUsed(_)) => Err(bad("invalid_request", "its jti was used for another token")),
        // It is about nobody here, or about whom it must not be: heard, and no more.
        Err(refusal) => {
            tracing::info!(issuer = word.issuer, identity = word.identity, %refusal, "a signal that is not acted on");
            accepted("not_acted")
        }
    }
}

async fn text(body: Body) -> Result<String, No> {
    String::from_utf8(bytes(body).await?.to_vec()).map_err(|_| bad("invalid_request", "it is no text"))
}

fn bad(code: &'static str, words: &str) -> No {
    No(StatusCode::BAD_REQUEST, code, words.to_owned())
}

/// Takes a token apart and believes it, or says with RFC 8935's codes why not.
pub(crate) fn verified(token: &str, from: &[Known], wall: Timestamp) -> Result<Word, No> {
    let parts: Vec<&str> = token.trim().split('.').collect();
    let [head, body, signature] = parts[..] else { return Err(bad("invalid_request", "it is no compact JWS")) };
    let part = |text: &str| BASE64URL.decode(text).map_err(|_| bad("invalid_request", "it is no base64url"));
    let wrong = |error: serde_json::Error| bad("invalid_request", &format!("it is no security event token: {error}"));
    let Head { typ, alg, kid } = serde_json::from_slice(&part(head)?).map_err(wrong)?;
    if !typ.eq_ignore_ascii_case("secevent+jwt") {
        return Err(bad("invalid_request", "its typ is not secevent+jwt"));
    }
    let claims: Claims = serde_json::from_slice(&part(body)?).map_err(wrong)?;
    let known = from.iter().find(|known| known.of.issuer == claims.iss);
    let Some(known) = known else { return Err(bad("invalid_issuer", "its issuer is no configured transmitter")) };
    let input = format!("{head}.{body}");
    let signature = part(signature)?;
    let named = |key: &&Key| kid.is_none() || key.kid.is_none() || key.kid == kid;
    let keys = known.keys.now();
    let mut keys = keys.iter().filter(named).peekable();
    if keys.peek().is_none() {
        // It may be new: the transmitter is to come again.
        if known.keys.want() {
            let words =
                "its kid is none of the transmitter's that are known; they are fetched again: send it again later";
            return Err(No(StatusCode::SERVICE_UNAVAILABLE, "keys_awaited", words.to_owned()));
        }
        return Err(bad("invalid_key", "its kid is none of the transmitter's"));
    }
    if !keys.any(|key| key.has_signed(&alg, input.as_bytes(), &signature)) {
        return Err(bad("authentication_failed", "its signature is not of the transmitter's key"));
    }
    let is_ours = match &claims.aud {
        Value::String(audience) => *audience == known.of.audience,
        Value::Array(several) => several.iter().any(|audience| audience.as_str() == Some(&known.of.audience)),
        _ => false,
    };
    if !is_ours {
        return Err(bad("invalid_audience", "it is for somebody else"));
    }
    if claims.exp.is_some() {
        return Err(bad("invalid_request", "a security event token has no exp"));
    }
    let issued = Timestamp::from_seconds(claims.iat.clamp(0, i64::MAX / Span::SECOND.0));
    if wall - issued > OLDEST || issued - wall > SKEW {
        return Err(bad("invalid_request", "its iat is too long ago, or ahead"));
    }
    if claims.jti.is_empty() || claims.jti.len() > 256 {
        return Err(bad("invalid_request", "its jti has 1 to 256 characters"));
    }
    said(&claims, &known.of)
}

/// What the one event of a token asks for.
fn said(claims: &Claims, of: &Transmitter) -> Result<Word, No> {
    let mut events = claims.events.iter();
    let (Some((kind, event)), None) = (events.next(), events.next()) else {
        return Err(bad("invalid_request", "it has exactly one event"));
    };
    let name = kind.rsplit('/').next().unwrap_or_default().to_owned();
    let is_caep = kind.starts_with("https://schemas.openid.net/secevent/caep/event-type/");
    let level = match name.as_str() {
        "risk-level-change" if is_caep && event["current_level"] == "HIGH" => Some(of.level),
        "session-revoked" if is_caep => Some(of.level),
        "credential-change" if is_caep && event["change_type"] == "revoke" => Some(of.level),
        // A risk that falls ends by its lease; what else there is, is heard.
        _ => None,
    };
    let subject = claims.sub_id.as_ref().and_then(|subject| match subject["format"].as_str()? {
        "uri" => subject["uri"].as_str(),
        "opaque" => subject["id"].as_str(),
        "complex" => subject["application"]["uri"].as_str(),
        _ => None,
    });
    let identity = subject.unwrap_or_default().to_owned();
    if level.is_some() && identity.is_empty() {
        return Err(bad("invalid_request", "its sub_id names no workload: use the format uri"));
    }
    Ok(Word { issuer: of.issuer.clone(), jti: claims.jti.clone(), identity, event: name, level, lease: of.lease.0 })
}
