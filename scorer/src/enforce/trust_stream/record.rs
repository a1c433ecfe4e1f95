//! A trust entry as the public confidence level record.

use prost_types::{Duration as ProtoDuration, Timestamp as ProtoTimestamp};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_proto::trust::v1 as wire;
use sha2::{Digest, Sha256};

use crate::table::{Object, Subject, TrustEntry};

/// How much of the mesh enforces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Proxies that have acknowledged the table.
    pub enforcing: u32,
    /// Proxies that were seen in telemetry.
    pub reporting: u32,
}

/// The key of an entry: opaque, and the same for the same subject and object for ever.
pub fn key(subject: &Subject, object: &Object) -> String {
    let (destination, operation) = called(object);
    let mut hash = Sha256::new();
    let optional = [subject.cluster.as_deref(), subject.instance.as_deref()].map(Option::unwrap_or_default);
    let parts = [subject.principal.as_str(), optional[0], optional[1], destination, operation];
    // Where there is no workload, keys are as they have always been.
    for part in parts.into_iter().chain(subject.workload.as_deref()) {
        // With its length before it, no part can pass for the end of another.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    const_hex::encode(&hash.finalize()[..16])
}

/// The record of an entry, made at `now`.
pub fn record(entry: &TrustEntry, model_version: &str, coverage: Coverage, now: Timestamp) -> wire::ConfidenceLevel {
    let (destination, operation) = called(&entry.object);
    let workload = entry.subject.principal.starts_with("spiffe://");
    wire::ConfidenceLevel {
        key: key(&entry.subject, &entry.object),
        subject_kind: if workload { wire::SubjectKind::Workload } else { wire::SubjectKind::Unspecified }.into(),
        principal: entry.subject.principal.clone(),
        cluster: entry.subject.cluster.clone().unwrap_or_default(),
        instance: entry.subject.instance.clone().unwrap_or_default(),
        scope: if entry.subject.instance.is_some() { wire::Scope::Instance } else { wire::Scope::Service }.into(),
        object: Some(wire::Object { destination: destination.to_owned(), operation: operation.to_owned() }),
        level: level(entry.level).into(),
        mode: if entry.enforce { wire::Mode::Enforce } else { wire::Mode::Shadow }.into(),
        evidence_bits: entry.evidence_bits,
        decided: Some(timestamp(entry.decided)),
        expires: Some(timestamp(entry.expires)),
        remaining: Some(duration(entry.expires - now)),
        reason: entry.reason.clone(),
        decision_id: entry.decision.clone(),
        coverage: Some(wire::Coverage { enforcing: coverage.enforcing, reporting: coverage.reporting }),
        model_version: model_version.to_owned(),
    }
}

fn called(object: &Object) -> (&str, &str) {
    match object {
        Object::Any => ("", ""),
        Object::Destination(destination) => (destination, ""),
        Object::Operation(destination, operation) => (destination, operation),
    }
}

const fn level(level: Level) -> wire::Level {
    match level {
        Level::Trusted => wire::Level::Trusted,
        Level::Watched => wire::Level::Watched,
        Level::Throttled => wire::Level::Throttled,
        Level::Restricted => wire::Level::Restricted,
        Level::Quarantined => wire::Level::Quarantined,
        Level::Revoked => wire::Level::Revoked,
    }
}

fn timestamp(time: Timestamp) -> ProtoTimestamp {
    let nanos = time.0.rem_euclid(Span::SECOND.0);
    ProtoTimestamp { seconds: time.0.div_euclid(Span::SECOND.0), nanos: i32::try_from(nanos).unwrap_or(0) }
}

/// A lease that is over has no rest: never negative.
fn duration(span: Span) -> ProtoDuration {
    let rest = span.0.max(0);
    ProtoDuration { seconds: rest / Span::SECOND.0, nanos: i32::try_from(rest % Span::SECOND.0).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(principal: &str, cluster: Option<&str>, instance: Option<&str>) -> Subject {
        let (cluster, instance) = (cluster.map(Into::into), instance.map(Into::into));
        Subject { principal: principal.into(), cluster, workload: None, instance }
    }

    #[test]
    fn keys_differ_wherever_subject_or_object_do_and_never_change() {
        let plain = key(&subject("ab", None, None), &Object::Any);
        assert_eq!(plain, "32bf8856bf4a314d0bb2ec0341e38efe");
        for other in [
            key(&subject("a", Some("b"), None), &Object::Any),
            key(&subject("ab", Some("x"), None), &Object::Any),
            key(&subject("ab", None, Some("x")), &Object::Any),
            key(&Subject { workload: Some("x".into()), ..subject("ab", None, None) }, &Object::Any),
            key(&subject("ab", None, None), &Object::Destination("x".into())),
            key(&subject("ab", None, None), &Object::Operation("x".into(), "y".into())),
        ] {
            assert_ne!(plain, other);
        }
    }

    #[test]
    fn times_before_1970_and_leases_that_are_over_are_written_as_the_format_wants_them() {
        assert_eq!(timestamp(Timestamp(-1)), ProtoTimestamp { seconds: -1, nanos: 999_999_999 });
        assert_eq!(duration(Span(-5)), ProtoDuration { seconds: 0, nanos: 0 });
        assert_eq!(duration(Span(1_500_000_000)), ProtoDuration { seconds: 1, nanos: 500_000_000 });
    }
}
