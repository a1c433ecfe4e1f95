//! `trust.jsonl`: one line a transition.

use qualm_model::{level::Level, time::Timestamp};
use qualm_scorer::{
    carriers::Carrier,
    familiar::Familiar,
    table::{Object, Subject},
    verdict::{Cause, Reason, Verdict},
};
use serde::Serialize;
use serde_json::{Value, json};

/// A line of `trust.jsonl`.
#[derive(Debug, Serialize)]
pub(super) struct Transition<'a> {
    time: String,
    identity: &'a str,
    subject: &'a Subject,
    object: Value,
    level: Level,
    previous: Level,
    evidence_bits: f64,
    threshold_bits: f64,
    lease_s: Option<f64>,
    decision: &'a str,
    cause: Cause,
    /// The alert that it begins or joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    co_owners: &'a [String],
    reasons: Vec<Ground<'a>>,
    /// The records that carried the evidence.
    #[serde(skip_serializing_if = "<[Carrier]>::is_empty")]
    carried_by: &'a [Carrier],
}

#[derive(Debug, Serialize)]
struct Ground<'a> {
    detector: &'static str,
    bits: f64,
    observed: f64,
    expected: f64,
    n: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    usual: Option<(f64, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    familiar: Option<Familiar>,
    #[serde(skip_serializing_if = "str::is_empty")]
    destination: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
}

impl<'a> Transition<'a> {
    /// The line of a verdict; `None` where the level stays, as when a lease is renewed.
    pub(super) fn of(verdict: &'a Verdict) -> Option<Self> {
        if verdict.cause == Cause::Renewed || verdict.level == verdict.previous {
            return None;
        }
        Some(Self {
            time: rfc3339(verdict.decided),
            identity: &verdict.identity,
            subject: &verdict.subject,
            object: object(&verdict.object),
            level: verdict.level,
            previous: verdict.previous,
            evidence_bits: verdict.evidence_bits,
            threshold_bits: verdict.threshold_bits,
            lease_s: verdict.lease.map(|lease| lease.as_seconds()),
            decision: &verdict.decision,
            cause: verdict.cause,
            incident: verdict.incident.as_ref().map(|of| of.id.as_str()),
            co_owners: &verdict.co_owners,
            reasons: verdict.reasons.iter().map(ground).collect(),
            carried_by: &verdict.carried_by,
        })
    }
}

fn ground(reason: &Reason) -> Ground<'_> {
    Ground {
        detector: reason.detector.name(),
        bits: reason.bits,
        observed: reason.observed,
        expected: reason.expected,
        n: reason.n,
        usual: reason.usual,
        familiar: reason.familiar,
        destination: &reason.destination,
        operation: reason.operation.as_deref(),
    }
}

fn object(object: &Object) -> Value {
    match object {
        Object::Any => json!("any"),
        Object::Destination(destination) => json!({ "destination": destination }),
        Object::Operation(destination, operation) => json!({ "destination": destination, "operation": operation }),
    }
}

/// RFC 3339, UTC.
pub(super) fn rfc3339(time: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{} ns after 1970", time.0),
    }
}
