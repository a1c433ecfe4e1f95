//! The audit log of the Kubernetes API server, which is itself what is called.
//!
//! A token that is asked for (`serviceaccounts/token`) is remembered with what the record tells of it, so that its end
//! and the pod it is bound to are known when its `JTI` is used. How much is told depends on the audit policy: the
//! validity needs level `Request` or more for that resource. Calls are told once, when they are complete; a call that
//! was refused before it had an answer to complete ends at `ResponseStarted`. A watch is as long as it lasts.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::Provenance,
    time::{Span, Timestamp},
};
use serde::Deserialize;

use super::{
    Row, clip,
    issued::{Issue, IssuedCredentials},
    time::rfc3339,
    typed::{self, Text},
};
use crate::source::{Invalid, Rejection};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Line<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    api_version: Text<'a>,
    #[serde(rename = "auditID")]
    audit_id: Text<'a>,
    stage: Text<'a>,
    #[serde(rename = "requestURI")]
    request_uri: Text<'a>,
    verb: Text<'a>,
    user: Option<User<'a>>,
    #[serde(rename = "sourceIPs")]
    source_ips: Option<Vec<Text<'a>>>,
    object_ref: Option<ObjectRef<'a>>,
    response_status: Option<ResponseStatus<'a>>,
    request_received_timestamp: Text<'a>,
    stage_timestamp: Text<'a>,
    annotations: Option<Annotations<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User<'a> {
    #[serde(borrow)]
    username: Text<'a>,
    extra: Option<Extra<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Extra<'a> {
    #[serde(borrow, rename = "authentication.kubernetes.io/credential-id")]
    credential: Vec<Text<'a>>,
    #[serde(rename = "authentication.kubernetes.io/pod-name")]
    pod: Vec<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectRef<'a> {
    #[serde(borrow)]
    resource: Text<'a>,
    namespace: Text<'a>,
    api_group: Text<'a>,
    subresource: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResponseStatus<'a> {
    code: Option<u16>,
    #[serde(borrow)]
    reason: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations<'a> {
    #[serde(borrow, rename = "authentication.kubernetes.io/issued-credential-id")]
    issued: Text<'a>,
    #[serde(rename = "authorization.k8s.io/decision")]
    decision: Text<'a>,
}

/// What a request for a token holds beside all that, at level `Request` and above. Read only where a token is asked
/// for: the objects of other requests have fields of the same names and other types.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TokenLine<'a> {
    #[serde(borrow)]
    request_object: Option<TokenObject<'a>>,
    response_object: Option<TokenObject<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenObject<'a> {
    #[serde(borrow)]
    spec: Option<TokenSpec<'a>>,
    status: Option<TokenStatus<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TokenSpec<'a> {
    expiration_seconds: Option<i64>,
    #[serde(borrow)]
    bound_object_ref: Option<BoundObject<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BoundObject<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    name: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TokenStatus<'a> {
    #[serde(borrow)]
    expiration_timestamp: Text<'a>,
}

/// Reads lines of the API server's audit log.
#[derive(Debug, Default)]
pub struct KubernetesAudit {
    issued: IssuedCredentials,
}

/// Whether a record that cannot be read says that it is one: programs have keys of these names too, with what they like.
fn is_audit(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), b"\"audit.k8s.io/").is_some()
}

impl KubernetesAudit {
    /// Reads one line of the log, or an `EventList` as the webhook sends it.
    pub fn parse(&mut self, text: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let line: Line<'_> =
            typed::object(text).map_err(|why| if is_audit(text) { why } else { Rejection::Foreign })?;
        if &*line.kind != "EventList" {
            return self.push(&line, || typed::object(text).unwrap_or_default(), row);
        }
        typed::entries(text, "items", row, |event, row| {
            let mut line: Line<'_> = typed::entry(event)?;
            // The items of a list have neither kind nor version of their own.
            line.kind = Text::of("Event");
            line.api_version = Text::of("audit.k8s.io/v1");
            self.push(&line, || typed::entry(event).unwrap_or_default(), row)
        })
    }

    fn push<'t>(
        &mut self,
        line: &Line<'_>,
        token: impl FnOnce() -> TokenLine<'t>,
        row: &mut Row<'_>,
    ) -> Result<(), Rejection> {
        if &*line.kind != "Event" || !line.api_version.starts_with("audit.k8s.io/") {
            return Err(Rejection::Foreign);
        }
        let code = line.response_status.as_ref().and_then(|status| status.code);
        match &*line.stage {
            "ResponseComplete" | "Panic" => {}
            // Who could not be authenticated gets an answer that is never told to be complete.
            "ResponseStarted" if code == Some(401) => {}
            "RequestReceived" | "ResponseStarted" => return Err(Rejection::Part),
            _ => return Err(Invalid::MissingField.into()),
        }
        let report = rfc3339(&line.stage_timestamp)?;
        let start = match &*line.request_received_timestamp {
            "" => report,
            time => rfc3339(time)?.min(report),
        };
        let issues = line.issues();
        if issues {
            self.remember(line, &token(), report);
        }
        let operation = line.operation()?;
        let issue = self.issued.of(line.credential());
        row.push(EventDraft {
            start,
            report,
            kind: if issues { Kind::Authentication } else { Kind::Request },
            reporter: Reporter::Destination,
            record_id: clip(&line.audit_id),
            source: line.caller(issue),
            destination: Party { principal: "kube-apiserver", ..Party::default() },
            operation: &operation,
            status: code,
            outcome: line.outcome(code),
            denial_reason: &typed::reason(line.response_status.as_ref().map_or("", |status| &*status.reason)),
            duration_ns: Some((report - start).0),
            credential: clip(line.credential()),
            not_before: issue.and_then(|issue| issue.not_before),
            not_after: issue.and_then(|issue| issue.not_after),
            auth_method: if issues { "token_request" } else { "" },
            issued: if issues { clip(line.issued()) } else { "" },
            ..EventDraft::default()
        })
    }

    fn remember(&mut self, line: &Line<'_>, told: &TokenLine<'_>, now: Timestamp) {
        let objects = [&told.response_object, &told.request_object].map(Option::as_ref);
        let spec = objects.iter().flatten().filter_map(|object| object.spec.as_ref());
        let seconds = spec.clone().find_map(|spec| spec.expiration_seconds).filter(|seconds| *seconds > 0);
        let mut bound = spec.filter_map(|spec| spec.bound_object_ref.as_ref());
        let status = objects.iter().flatten().find_map(|object| object.status.as_ref());
        let told_end = status.and_then(|status| rfc3339(&status.expiration_timestamp).ok());
        let by_length = seconds.map(|seconds| now + Span(seconds.saturating_mul(Span::seconds(1).0)));
        let pod = bound.find(|object| &*object.kind == "Pod");
        self.issued.insert(
            line.issued(),
            Issue {
                not_before: Some(now),
                not_after: told_end.or(by_length),
                bound_to: pod.map_or_else(String::new, |pod| pod.name.to_string()),
            },
        );
    }
}

impl Line<'_> {
    fn extra(&self) -> Option<&Extra<'_>> {
        self.user.as_ref()?.extra.as_ref()
    }

    /// The id of what the caller authenticated with.
    fn credential(&self) -> &str {
        self.extra().and_then(|extra| extra.credential.first()).map_or("", |id| jti(id))
    }

    /// The id of the token that was given out, where the API server notes it.
    fn issued(&self) -> &str {
        jti(self.annotations.as_ref().map_or("", |annotations| &annotations.issued))
    }

    /// Whether a token is what was asked for, and given.
    fn issues(&self) -> bool {
        let is_token =
            |object: &ObjectRef<'_>| &*object.resource == "serviceaccounts" && &*object.subresource == "token";
        &*self.verb == "create" && self.object_ref.as_ref().is_some_and(is_token)
    }

    fn caller<'b>(&'b self, issue: Option<&'b Issue>) -> Party<'b> {
        // Every address but the last is what the caller says.
        let ip = self.source_ips.as_ref().and_then(|ips| ips.last()).map_or("", |ip| typed::address(ip));
        let pod = self.extra().and_then(|extra| extra.pod.first()).map_or("", |pod| &**pod);
        let name = self.user.as_ref().map_or("", |user| &*user.username);
        let has_certificate = self.credential().starts_with("X509SHA256=");
        Party {
            principal: typed::first([name, ip]),
            instance: clip(typed::first([pod, issue.map_or("", |issue| &issue.bound_to)])),
            ip,
            provenance: if has_certificate { Provenance::Certificate } else { Provenance::Name },
            ..Party::default()
        }
    }

    /// `list deployments.apps in shop`; the names of single objects are left out, as they are not bounded.
    fn operation(&self) -> Result<String, Invalid> {
        if self.verb.is_empty() {
            return Err(Invalid::MissingField);
        }
        let mut operation = clip(&self.verb).to_owned();
        operation.push(' ');
        let Some(object) = self.object_ref.as_ref().filter(|object| !object.resource.is_empty()) else {
            fold::append_path(&self.request_uri, &mut operation);
            return Ok(operation);
        };
        operation.push_str(clip(&object.resource));
        for (separator, part) in [('.', &object.api_group), ('/', &object.subresource)] {
            if !part.is_empty() {
                operation.push(separator);
                operation.push_str(clip(part));
            }
        }
        if !object.namespace.is_empty() {
            operation.push_str(" in ");
            fold::append_path(&object.namespace, &mut operation);
        }
        Ok(operation)
    }

    fn outcome(&self, code: Option<u16>) -> Outcome {
        if self.annotations.as_ref().is_some_and(|annotations| &*annotations.decision == "forbid") {
            return Outcome::Refused;
        }
        match (&*self.stage, code) {
            ("Panic", _) => Outcome::Failure,
            (_, Some(code)) => Outcome::of_http(code, None),
            (_, None) => Outcome::Unknown,
        }
    }
}

fn jti(id: &str) -> &str {
    id.strip_prefix("JTI=").unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    fn parse(format: &mut KubernetesAudit, line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        format.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    const ISSUE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"a1","stage":"ResponseComplete","verb":"create","user":{"username":"system:node:n1"},"sourceIPs":["10.0.0.9"],"objectRef":{"resource":"serviceaccounts","namespace":"shop","name":"cart","apiVersion":"v1","subresource":"token"},"responseStatus":{"code":201},"requestObject":{"kind":"TokenRequest","spec":{"audiences":["x"],"expirationSeconds":3607,"boundObjectRef":{"kind":"Pod","name":"cart-1"}},"status":{"token":"","expirationTimestamp":null}},"requestReceivedTimestamp":"2026-11-22T15:00:00Z","stageTimestamp":"2026-11-22T15:00:00Z","annotations":{"authentication.kubernetes.io/issued-credential-id":"JTI=be07"}}"#;
    const USE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a2","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/pods?watch=true","verb":"watch","user":{"username":"system:serviceaccount:shop:cart","extra":{"authentication.kubernetes.io/credential-id":["JTI=be07"]}},"sourceIPs":["1.2.3.4","10.0.0.7"],"objectRef":{"resource":"pods","namespace":"shop"},"responseStatus":{"code":200},"requestReceivedTimestamp":"2026-11-22T15:01:00Z","stageTimestamp":"2026-11-22T21:01:00Z"}"#;

    #[test]
    fn a_token_that_is_used_has_the_end_and_the_pod_it_was_issued_with() {
        let mut format = KubernetesAudit::default();
        assert_eq!(parse(&mut format, ISSUE).expect("an event").event(0).kind(), Kind::Authentication);
        let batch = parse(&mut format, USE).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.credential(), event.source().instance()), ("be07", "cart-1"));
        let (begin, end) = event.validity();
        assert_eq!(begin.zip(end).map(|(begin, end)| end - begin), Some(Span::seconds(3607)));
    }

    #[test]
    fn what_has_keys_of_these_names_and_is_no_audit_event_is_foreign_and_a_broken_event_is_not() {
        let mut format = KubernetesAudit::default();
        for line in [r#"{"event":"order_placed","user":"u1"}"#, r#"{"verb":{},"annotations":[]}"#, r#"{"user":"u"#] {
            assert_eq!(parse(&mut format, line).err(), Some(Rejection::Foreign), "{line}");
        }
        let wrong = USE.replace(r#""sourceIPs":["1.2.3.4","10.0.0.7"]"#, r#""sourceIPs":"1.2.3.4""#);
        assert_eq!(parse(&mut format, &wrong).err(), Some(Invalid::WrongType.into()));
        assert_eq!(parse(&mut format, &USE[..300]).err(), Some(Invalid::Syntax.into()));
    }

    #[test]
    fn a_list_of_the_webhook_is_read_event_by_event() {
        let item = |line: &str| line.replace(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "");
        let list = format!(
            r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{},{}]}}"#,
            item(ISSUE),
            item(USE)
        );
        let batch = parse(&mut KubernetesAudit::default(), &list).expect("a batch");
        assert_eq!((batch.len(), batch.event(1).source().instance()), (2, "cart-1"));
    }

    #[test]
    fn a_watch_lasts_and_comes_from_the_address_that_the_caller_cannot_choose() {
        let batch = parse(&mut KubernetesAudit::default(), USE).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.report() - event.start(), event.source().ip()), (Span::seconds(6 * 3600), "10.0.0.7"));
        assert_eq!((event.operation(), event.validity()), ("watch pods in shop", (None, None)));
    }

    #[test]
    fn a_call_is_told_once_and_a_refused_caller_too() {
        let mut format = KubernetesAudit::default();
        let started = USE.replace("ResponseComplete", "ResponseStarted");
        assert_eq!(parse(&mut format, &started).err(), Some(Rejection::Part));
        assert_eq!(
            parse(&mut format, &USE.replace("ResponseComplete", "RequestReceived")).err(),
            Some(Rejection::Part)
        );
        let unknown = started.replace(r#""code":200"#, r#""code":401"#).replace("system:serviceaccount:shop:cart", "");
        let batch = parse(&mut format, &unknown).expect("an event");
        assert_eq!((batch.event(0).source().principal(), batch.event(0).outcome()), ("10.0.0.7", Outcome::Refused));
    }
}
