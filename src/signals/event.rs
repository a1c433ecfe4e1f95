//! From verdicts to CAEP events: what a change of trust is called by those who share signals.

use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::verdict::{Cause, Verdict};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// The events that are sent, by their names.
pub(crate) const SUPPORTED: [&str; 3] = [
    "https://schemas.openid.net/secevent/caep/event-type/risk-level-change",
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
    "https://schemas.openid.net/secevent/caep/event-type/credential-change",
];

/// An event about somebody, before it has an audience.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Its type, a URI.
    pub(crate) kind: String,
    pub(crate) subject: Value,
    pub(crate) claims: Value,
    /// What related events have in common.
    pub(crate) transaction: Option<String>,
}

/// How high the risk is at a level.
fn risk(level: Level) -> &'static str {
    match level {
        Level::Trusted => "LOW",
        Level::Watched => "MEDIUM",
        Level::Throttled | Level::Restricted | Level::Quarantined | Level::Revoked => "HIGH",
    }
}

/// What a verdict is to be told as. A shadow changes the risk that is told and revokes nothing; history is not told.
pub(crate) fn events(verdict: &Verdict) -> Vec<Event> {
    if verdict.historic {
        return Vec::new();
    }
    let by = match verdict.cause {
        Cause::Ordered | Cause::Lifted => "admin",
        _ => "policy",
    };
    let reason = verdict.reasons.first().map_or("operator", |reason| reason.detector.name());
    let base = json!({
        "event_timestamp": verdict.time.0.div_euclid(Span::SECOND.0),
        "initiating_entity": by,
        "reason_admin": { "en": format!(
            "level {} after {}, {:.1} bits, {reason}", verdict.level, verdict.previous, verdict.evidence_bits
        ) },
    });
    let event = |kind: &str, more: Value| {
        let mut claims = base.clone();
        if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
            claims.extend(more);
        }
        Event {
            kind: format!("{CAEP}{kind}"),
            subject: subject(&verdict.subject.principal),
            claims,
            transaction: Some(verdict.decision.clone()),
        }
    };
    let mut events = Vec::new();
    let (previous, current) = (risk(verdict.previous), risk(verdict.level));
    if previous != current {
        events.push(event(
            "risk-level-change",
            json!({
                "principal": "APPLICATION", "current_level": current, "previous_level": previous,
                "risk_reason": reason.to_uppercase().replace('-', "_"),
            }),
        ));
    }
    let acts = verdict.enforce && !verdict.paused && verdict.subject.instance.is_none();
    if acts && verdict.level >= Level::Quarantined && verdict.previous < Level::Quarantined {
        events.push(event("session-revoked", json!({})));
    }
    if acts && verdict.level == Level::Revoked && verdict.previous < Level::Revoked {
        events.push(event("credential-change", json!({ "credential_type": "x509", "change_type": "revoke" })));
    }
    events
}

/// Whom it is about (RFC 9493).
fn subject(principal: &str) -> Value {
    if principal.contains("://") {
        json!({ "format": "uri", "uri": principal })
    } else {
        json!({ "format": "opaque", "id": principal })
    }
}

/// That a stream works: asked for by its receiver.
pub(crate) fn verification(stream: &str, state: Option<&str>) -> Event {
    let claims = state.map_or_else(|| json!({}), |state| json!({ "state": state }));
    Event {
        kind: format!("{SSF}verification"),
        subject: json!({ "format": "opaque", "id": stream }),
        claims,
        transaction: None,
    }
}

/// The token's id: of stream, cause and type, so that what is told again after a crash bears the same.
pub(crate) fn jti(stream: &str, cause: u64, kind: &str) -> String {
    let mut hash = Sha256::new();
    for part in [stream, kind] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(cause.to_le_bytes());
    const_hex::encode(&hash.finalize()[..16])
}

/// The claims of the token (RFC 8417, SSF 1.0).
pub(crate) fn claims(event: &Event, (issuer, audience): (&str, &str), jti: &str, wall: Timestamp) -> Value {
    let mut claims = json!({
        "iss": issuer, "aud": audience, "jti": jti, "iat": wall.0.div_euclid(Span::SECOND.0),
        "sub_id": event.subject, "events": { event.kind.as_str(): event.claims },
    });
    if let Some(transaction) = &event.transaction {
        claims["txn"] = transaction.clone().into();
    }
    claims
}
