//! Consul's own audit log (Enterprise): calls of its HTTP interface, two lines each.
//!
//! The line of the end (`OperationComplete`) has all that the first has, and the status. The caller is the accessor of
//! its token: an id of Consul's, which is no secret.

use std::borrow::Cow;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
};
use serde::Deserialize;

use super::{
    Row,
    access::host_and_port,
    clip,
    number::{self, Whole},
    time::rfc3339,
    typed,
};
use crate::source::{Invalid, Rejection};

/// Reads lines of Consul's audit log.
#[derive(Debug, Default)]
pub struct ConsulAudit {
    operation: String,
}

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    payload: Option<Payload<'a>>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    timestamp: Text<'a>,
    #[serde(borrow)]
    auth: Option<Auth<'a>>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    #[serde(borrow)]
    stage: Text<'a>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    #[serde(borrow)]
    accessor_id: Text<'a>,
    #[serde(borrow)]
    create_time: Text<'a>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    operation: Text<'a>,
    #[serde(borrow)]
    endpoint: Text<'a>,
    #[serde(borrow)]
    remote_addr: Text<'a>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    status: Option<Whole<'a>>,
}

impl ConsulAudit {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        // Nomad's audit log looks alike; its events are of another type.
        let is_audit = [&b"\"event_type\""[..], b"\"audit\"", b"\"HTTPEvent\""];
        if is_audit.iter().any(|word| memchr::memmem::find(line.as_bytes(), word).is_none()) {
            return Err(Rejection::Foreign);
        }
        let line: Line<'_> = typed::object(line)?;
        let payload = line.payload.as_ref().ok_or(Invalid::MissingField)?;
        match text(&payload.stage) {
            "OperationStart" => Err(Rejection::Part),
            "" => Err(Invalid::MissingField.into()),
            _ => row.push(self.draft(payload)?),
        }
    }

    fn draft<'b>(&'b mut self, payload: &'b Payload<'b>) -> Result<EventDraft<'b>, Invalid> {
        let time = rfc3339(payload.timestamp.as_deref().ok_or(Invalid::MissingField)?)?;
        let request = payload.request.as_ref().ok_or(Invalid::MissingField)?;
        fold::operation(text(&request.operation), text(&request.endpoint), &mut self.operation);
        let (ip, port) = host_and_port(text(&request.remote_addr));
        let accessor = payload.auth.as_ref().map_or("", |auth| text(&auth.accessor_id));
        let created = payload.auth.as_ref().and_then(|auth| auth.create_time.as_deref());
        let status = number::status(payload.response.as_ref().and_then(|response| response.status.as_ref()))?;
        Ok(EventDraft {
            start: time,
            report: time,
            kind: Kind::Request,
            reporter: Reporter::Issuer,
            record_id: clip(text(&payload.id)),
            source: Party {
                principal: if accessor.is_empty() { ip } else { accessor },
                ip: clip(ip),
                port,
                ..Party::default()
            },
            destination: Party { principal: "consul", ..Party::default() },
            operation: &self.operation,
            status,
            outcome: status.map_or(Outcome::Unknown, |status| Outcome::of_http(status, None)),
            credential: clip(accessor),
            not_before: created.filter(|time| !time.is_empty()).map(rfc3339).transpose()?,
            ..EventDraft::default()
        })
    }
}

fn text<'a>(field: &'a Text<'_>) -> &'a str {
    field.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use qualm_model::event::{EventBuilder, Position};

    use super::*;

    const LINE: &str = r#"{"created_at":"2020-12-08T12:30:29.197-05:00","event_type":"audit","payload":{"id":"1f85053f","type":"HTTPEvent","timestamp":"2020-12-08T12:30:29.196365-05:00","auth":{"accessor_id":"08f05787","create_time":"2020-12-01T11:01:51.652566-05:00"},"request":{"operation":"GET","endpoint":"/v1/kv/cart?raw=hunter2","remote_addr":"10.0.0.7:64015"},"response":{"status":"403"},"stage":"OperationComplete"}}"#;

    #[test]
    fn the_end_of_an_operation_is_the_event_and_its_begin_a_part() {
        let mut builder = EventBuilder::new();
        let mut row = Row::new(&mut builder, Position::default(), None);
        let begin = LINE.replace("OperationComplete", "OperationStart").replace("403", "");
        assert_eq!(ConsulAudit::default().parse(&begin, &mut row), Err(Rejection::Part));
        assert_eq!(ConsulAudit::default().parse(LINE, &mut row), Ok(()));
        let batch = builder.finish();
        let event = batch.event(0);
        assert_eq!((event.source().principal(), event.source().ip()), ("08f05787", "10.0.0.7"));
        assert_eq!((event.operation(), event.outcome()), ("GET /v1/kv/cart", Outcome::Refused));
        assert!(event.validity().0.is_some_and(|begin| begin < event.start()));
    }
}
