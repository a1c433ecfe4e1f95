//! Google Cloud's audit logs: a `LogEntry` with an `AuditLog` in it, one a record, an array of them, or a list of
//! `entries` as the API answers.
//!
//! A service account is known by its name, which looks like an e-mail address; a person is known by theirs, as Google
//! names no other id.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
};
use serde_json::Value;

use super::{Row, clip, time::rfc3339, typed};
use crate::source::{Invalid, Rejection};

const AUDIT_LOG: &str = "type.googleapis.com/google.cloud.audit.AuditLog";
/// gRPC's codes of a refusal.
const PERMISSION_DENIED: u64 = 7;
const UNAUTHENTICATED: u64 = 16;

/// Reads Google Cloud's audit log entries.
#[derive(Debug, Default)]
pub struct GcpAudit;

impl GcpAudit {
    /// Reads one record.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        typed::entries(line, "entries", row, push)
    }
}

fn push(entry: &Value, row: &mut Row<'_>) -> Result<(), Rejection> {
    let Some(payload) = entry.get("protoPayload").filter(|payload| typed::at(payload, "/@type") == AUDIT_LOG) else {
        return Err(Rejection::Foreign);
    };
    let at = |pointer| typed::at(payload, pointer);
    let (service, method) = (at("/serviceName"), at("/methodName"));
    let time = typed::at(entry, "/timestamp");
    if service.is_empty() || method.is_empty() || time.is_empty() {
        return Err(Invalid::MissingField.into());
    }
    // A long-running operation is an entry when it begins and another when it ends.
    if entry.pointer("/operation/last").and_then(Value::as_bool) == Some(true)
        && entry.pointer("/operation/first").and_then(Value::as_bool) != Some(true)
    {
        return Err(Rejection::Part);
    }
    let time = rfc3339(time)?;
    let ip = typed::address(at("/requestMetadata/callerIp"));
    let issues = issues(service, method);
    let code = payload.pointer("/status/code").and_then(Value::as_u64);
    let mut reason = String::new();
    fold::append_text(clip(at("/status/message")), &mut reason);
    let operation = operation(service, method, at("/resourceName"));
    row.push(EventDraft {
        start: time,
        report: time,
        kind: if issues { Kind::Authentication } else { Kind::Request },
        reporter: Reporter::Issuer,
        record_id: clip(typed::at(entry, "/insertId")),
        source: Party { principal: typed::first([caller(payload), ip]), ip, ..Party::default() },
        destination: Party {
            principal: service.strip_suffix(".googleapis.com").unwrap_or(service),
            ..Party::default()
        },
        hostname: clip(typed::at(entry, "/resource/labels/project_id")),
        operation: &operation,
        grpc_status: code.and_then(|code| code.try_into().ok()),
        outcome: outcome(payload, code),
        denial_reason: &reason,
        // `//iam.googleapis.com/projects/…/serviceAccounts/…/keys/<id>`
        credential: clip(at("/authenticationInfo/serviceAccountKeyName").rsplit('/').next().unwrap_or_default()),
        auth_method: if issues { clip(method.rsplit('.').next().unwrap_or_default()) } else { "" },
        ..EventDraft::default()
    })
}

fn caller(payload: &Value) -> &str {
    typed::first([
        typed::at(payload, "/authenticationInfo/principalEmail"),
        typed::at(payload, "/authenticationInfo/principalSubject"),
        typed::at(payload, "/authenticationInfo/authoritySelector"),
    ])
}

fn issues(service: &str, method: &str) -> bool {
    let name = method.rsplit('.').next().unwrap_or_default();
    match service {
        "iamcredentials.googleapis.com" => true,
        "sts.googleapis.com" => name == "ExchangeToken",
        "login.googleapis.com" => true,
        _ => false,
    }
}

/// The method, and for a secret or a service account which one; other resources are not bounded in number.
fn operation(service: &str, method: &str, resource: &str) -> String {
    let mut operation = clip(method).to_owned();
    if matches!(service, "secretmanager.googleapis.com" | "iamcredentials.googleapis.com") && !resource.is_empty() {
        operation.push(' ');
        fold::append_path(resource, &mut operation);
    }
    operation
}

fn outcome(payload: &Value, code: Option<u64>) -> Outcome {
    let denied = |permission: &Value| permission.get("granted").and_then(Value::as_bool) == Some(false);
    let permissions = payload.get("authorizationInfo").and_then(Value::as_array);
    if permissions.is_some_and(|permissions| permissions.iter().any(denied)) {
        return Outcome::Refused;
    }
    match code {
        Some(PERMISSION_DENIED | UNAUTHENTICATED) => Outcome::Refused,
        None | Some(0) => Outcome::Success,
        Some(_) => Outcome::Failure,
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    fn parse(line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        GcpAudit.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    const LINE: &str = r#"{"insertId":"i1","timestamp":"2026-11-22T15:00:00Z","protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"secretmanager.googleapis.com","methodName":"google.cloud.secretmanager.v1.SecretManagerService.AccessSecretVersion","resourceName":"projects/123456789/secrets/db/versions/7","authenticationInfo":{"principalEmail":"cart@shop.iam.gserviceaccount.com","serviceAccountKeyName":"//iam.googleapis.com/projects/shop/serviceAccounts/cart@shop.iam.gserviceaccount.com/keys/abc123"},"authorizationInfo":[{"permission":"p","granted":true}],"requestMetadata":{"callerIp":"private"}}}"#;

    #[test]
    fn a_secret_is_named_and_its_version_is_not() {
        let batch = parse(LINE).expect("an event");
        let event = batch.event(0);
        assert!(
            event.operation().ends_with("AccessSecretVersion projects/{id}/secrets/db/versions/{id}"),
            "{}",
            event.operation()
        );
        assert_eq!((event.credential(), event.source().ip(), event.outcome()), ("abc123", "", Outcome::Success));
    }

    #[test]
    fn a_permission_that_is_not_granted_is_a_refusal_whatever_the_status_says() {
        let denied = LINE.replace(r#""granted":true"#, r#""granted":false"#);
        assert_eq!(parse(&denied).expect("an event").event(0).outcome(), Outcome::Refused);
        let failed = LINE.replace(r#""requestMetadata""#, r#""status":{"code":5},"requestMetadata""#);
        assert_eq!(parse(&failed).expect("an event").event(0).outcome(), Outcome::Failure);
    }

    #[test]
    fn the_end_of_a_long_operation_is_no_second_call() {
        let last = LINE.replacen('{', r#"{"operation":{"id":"o","last":true},"#, 1);
        assert_eq!(parse(&last).err(), Some(Rejection::Part));
        assert_eq!(parse(&LINE.replace("AuditLog", "RequestLog")).err(), Some(Rejection::Foreign));
    }
}
