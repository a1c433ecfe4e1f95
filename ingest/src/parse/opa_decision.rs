//! OPA's decision log: one decision a record, or a batch of them as the collector's API sends it (an array).
//!
//! The caller is whom the input is about: the peer that Envoy saw (`ext_authz`), or a field of the document that was
//! handed in. Whoever can reach OPA's API can hand in any document, so that such a name is no more than a name. What
//! is decided is a call that its proxy reports too; here the called is OPA, so that no call is counted twice.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Row,
    access::host_and_port,
    clip,
    time::rfc3339,
    typed::{self, Text},
};
use crate::source::{Invalid, Rejection};

/// Where policies for the HTTP API name the caller, best first.
const CALLERS: [&str; 9] =
    ["principal", "identity", "spiffe_id", "subject", "sub", "client_id", "user", "source", "service_account"];
/// Where a caller that is an object has its name.
const NAMES: [&str; 6] = ["spiffe_id", "principal", "id", "sub", "uid", "name"];
/// Where a decision that is an object has its answer.
const ANSWERS: [&str; 4] = ["allow", "allowed", "allowed_to", "permit"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Decision<'a> {
    #[serde(borrow)]
    decision_id: Text<'a>,
    path: Text<'a>,
    query: Text<'a>,
    requested_by: Text<'a>,
    timestamp: Text<'a>,
}

/// Reads OPA's decisions.
#[derive(Debug, Default)]
pub struct OpaDecision;

impl OpaDecision {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        typed::entries(line, "decisions", row, push)
    }
}

fn push(value: &Value, row: &mut Row<'_>) -> Result<(), Rejection> {
    let decision: Decision<'_> = typed::entry(value)?;
    if decision.decision_id.is_empty() || (decision.path.is_empty() && decision.query.is_empty()) {
        return Err(Rejection::Foreign);
    }
    if decision.timestamp.is_empty() {
        return Err(Invalid::MissingField.into());
    }
    let time = rfc3339(&decision.timestamp)?;
    // Absent where a mask has erased it.
    let call = Call::of(value.get("input").unwrap_or(&Value::Null));
    let by = host_and_port(&decision.requested_by).0;
    let operation = call.operation(&decision.path);
    let answer = value.get("result");
    let reason = answer.map_or("", |answer| typed::at(answer, "/reason"));
    let mut folded = String::new();
    fold::append_text(clip(reason), &mut folded);
    row.push(EventDraft {
        start: time,
        report: time,
        kind: Kind::Request,
        reporter: Reporter::Issuer,
        record_id: clip(&decision.decision_id),
        source: Party {
            principal: typed::first([call.caller, call.ip, by]),
            ip: call.ip,
            port: call.port,
            ..Party::default()
        },
        destination: Party { principal: "opa", ..Party::default() },
        hostname: clip(typed::first([call.host, call.called])),
        operation: &operation,
        outcome: if value.get("error").is_some() { Outcome::Failure } else { outcome(answer) },
        denial_reason: &folded,
        ..EventDraft::default()
    })
}

/// The call that was decided on.
#[derive(Debug, Clone, Copy, Default)]
struct Call<'a> {
    caller: &'a str,
    called: &'a str,
    host: &'a str,
    ip: &'a str,
    port: u16,
    method: &'a str,
    path: &'a str,
}

impl<'a> Call<'a> {
    fn of(input: &'a Value) -> Self {
        if let Some(attributes) = input.get("attributes") {
            let port = attributes.pointer("/source/address/socketAddress/portValue").and_then(Value::as_u64);
            return Self {
                caller: typed::at(attributes, "/source/principal"),
                called: typed::at(attributes, "/destination/principal"),
                host: typed::at(attributes, "/request/http/host"),
                ip: typed::address(typed::at(attributes, "/source/address/socketAddress/address")),
                port: port.and_then(|port| port.try_into().ok()).unwrap_or(0),
                method: typed::at(attributes, "/request/http/method"),
                path: typed::at(attributes, "/request/http/path"),
            };
        }
        let caller = CALLERS.iter().find_map(|key| match input.get(key)? {
            Value::String(name) => Some(name.as_str()),
            object => NAMES.iter().find_map(|name| object.get(name)?.as_str()),
        });
        Self {
            // A policy may be handed the token itself.
            caller: caller.filter(|name| !name.starts_with("eyJ")).unwrap_or_default(),
            method: typed::at(input, "/method"),
            path: typed::at(input, "/path"),
            ..Self::default()
        }
    }

    /// Method and folded path where the input has them, behind the path of the decision.
    fn operation(&self, decision: &str) -> String {
        let mut operation = String::new();
        fold::append_path(decision, &mut operation);
        if !self.path.is_empty() {
            let mut call = String::new();
            fold::operation(self.method, self.path, &mut call);
            operation.push(' ');
            operation.push_str(&call);
        }
        operation
    }
}

/// An undefined decision is neither: what follows from it is for the caller to say.
fn outcome(answer: Option<&Value>) -> Outcome {
    let said = answer.and_then(|answer| match answer {
        Value::Bool(allowed) => Some(*allowed),
        object => ANSWERS.iter().find_map(|key| object.get(key)?.as_bool()),
    });
    let denied = answer.and_then(|answer| answer.get("deny")).is_some_and(|deny| match deny {
        Value::Bool(denied) => *denied,
        Value::Array(reasons) => !reasons.is_empty(),
        _ => false,
    });
    match said {
        _ if denied => Outcome::Refused,
        Some(true) => Outcome::Success,
        Some(false) => Outcome::Refused,
        None => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBatch, EventBuilder, Position};

    use super::*;

    fn parse(line: &str) -> Result<(EventBatch, Vec<Rejection>), Rejection> {
        let mut builder = EventBuilder::new();
        let mut row = Row::new(&mut builder, Position::default(), None);
        OpaDecision.parse(line, &mut row)?;
        let refused = row.into_refused();
        Ok((builder.finish(), refused))
    }

    fn decision(rest: &str) -> String {
        format!(r#"{{"decision_id":"4174","path":"mesh/authz","timestamp":"2026-11-22T15:15:32Z"{rest}}}"#)
    }

    #[test]
    fn a_batch_is_as_many_events_and_its_faults_are_told() {
        let good = decision(r#","requested_by":"10.0.0.7:1","result":true"#);
        let (batch, refused) = parse(&format!("[{good},{{}},{}]", good.replace("11-22", "11-31"))).expect("a batch");
        assert_eq!((batch.len(), refused), (1, vec![Rejection::Foreign, Invalid::ImpossibleTime.into()]));
    }

    #[test]
    fn an_answer_is_a_word_or_an_object_or_undefined() {
        for (result, expected) in [
            (r#","result":true"#, Outcome::Success),
            (r#","result":false"#, Outcome::Refused),
            (r#","result":{"allowed":false,"http_status":403}"#, Outcome::Refused),
            (r#","result":{"deny":["no"]}"#, Outcome::Refused),
            (r#","result":{"other":1}"#, Outcome::Unknown),
            ("", Outcome::Unknown),
            (r#","error":{"code":"eval"}"#, Outcome::Failure),
        ] {
            let line = decision(&format!(r#","requested_by":"10.0.0.7:1"{result}"#));
            let (batch, _) = parse(&line).expect("an event");
            assert_eq!(batch.event(0).outcome(), expected, "{result}");
            assert_eq!(batch.event(0).source().principal(), "10.0.0.7");
        }
    }

    #[test]
    fn a_token_is_nobodys_name() {
        let line = decision(
            r#","input":{"subject":"eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.c2ln"},"requested_by":"10.0.0.7:1""#,
        );
        assert_eq!(parse(&line).expect("an event").0.event(0).source().principal(), "10.0.0.7");
    }

    #[test]
    fn a_decision_about_nobody_is_invalid_and_other_logs_are_foreign() {
        assert_eq!(parse(&decision("")).err(), Some(Invalid::MissingIdentity.into()));
        assert_eq!(parse(r#"{"level":"info","msg":"Initializing server."}"#).err(), Some(Rejection::Foreign));
        assert_eq!(parse("[main] starting").err(), Some(Rejection::Foreign));
    }
}
