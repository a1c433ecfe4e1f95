//! Istio's default text format, 22 fields. It names no identity: the caller is its address.

use super::{
    Row,
    access::{AccessEntry, Forwarded},
    istio_json::{milliseconds, whole_number},
    time::rfc3339,
};
use crate::source::{Invalid, Rejection};

/// Fields after the time and the request line.
const FIELDS: usize = 20;

/// Reads lines of Istio's text format.
#[derive(Debug, Default)]
pub struct IstioText {
    operation: String,
}

impl IstioText {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let entry = AccessEntry { pod: row.origin().pod, ..access_entry(line)? };
        row.push(entry.draft(&mut self.operation)?)
    }
}

/// What one line says.
pub(crate) fn access_entry(line: &str) -> Result<AccessEntry<'_>, Rejection> {
    let Some(rest) = line.trim_ascii_end().strip_prefix('[') else { return Err(Rejection::Foreign) };
    let Some((time, rest)) = rest.split_once("] ") else {
        // Cut off in its time, or somebody else's bracket.
        let is_of_time = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'T' | b':' | b'.' | b'Z');
        let is_cut_off = rest.strip_suffix(']').unwrap_or(rest).bytes().all(is_of_time);
        return Err(if is_cut_off { Invalid::Syntax.into() } else { Rejection::Foreign });
    };
    let start = rfc3339(time).map_err(|invalid| match invalid {
        // A bracketed word at the front of a line is common in logs of applications.
        Invalid::WrongType => Rejection::Foreign,
        other => other.into(),
    })?;
    let mut fields = Splitter { rest: Some(rest) };
    let request = fields.next().ok_or(Invalid::Syntax)??;
    let mut all = [""; FIELDS];
    for field in &mut all {
        *field = fields.next().ok_or(Invalid::Syntax)??;
    }
    if fields.next().is_some() {
        return Err(Invalid::Syntax.into());
    }
    Ok(AccessEntry { start, ..entry(request, &all)? })
}

/// `- - -` where there was no request; a path may hold blanks.
fn request_line(request: &str) -> Result<[&str; 3], Invalid> {
    let (method, rest) = request.split_once(' ').ok_or(Invalid::Syntax)?;
    let (path, protocol) = rest.rsplit_once(' ').ok_or(Invalid::Syntax)?;
    Ok([method, path, protocol].map(|part| if part == "-" { "" } else { part }))
}

fn entry<'a>(request: &'a str, fields: &[&'a str; FIELDS]) -> Result<AccessEntry<'a>, Invalid> {
    let [method, path, protocol] = request_line(request)?;
    let [status, flags, details, termination, failure, received, sent, duration, _service_time, ..] = *fields;
    let [.., forwarded, _agent, request_id, authority, host, cluster, up_local, local, remote, sni, _route] = *fields;
    let number = |field: &str| if field.is_empty() { Ok(None) } else { whole_number(field).map(Some) };
    let status = number(status)?.map(u16::try_from).transpose().map_err(|_| Invalid::WrongType)?;
    Ok(AccessEntry {
        duration: number(duration)?.map(milliseconds).transpose()?,
        method,
        path,
        protocol,
        authority,
        request_id,
        status,
        response_flags: flags,
        response_code_details: details,
        connection_termination_details: termination,
        transport_failure_reason: failure,
        bytes_received: number(received)?,
        bytes_sent: number(sent)?,
        requested_server_name: sni,
        upstream_cluster: cluster,
        upstream_host: host,
        upstream_local_address: up_local,
        downstream_local_address: local,
        downstream_remote_address: remote,
        forwarded: Forwarded::of(forwarded),
        ..AccessEntry::default()
    })
}

/// Fields between single blanks; quoted ones may hold blanks. `-` is absent.
///
/// Envoy does not escape quotes: a value that holds `" ` makes one field too many, and the line is refused.
struct Splitter<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for Splitter<'a> {
    type Item = Result<&'a str, Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let field = match rest.strip_prefix('"') {
            Some(quoted) => match quoted.find("\" ").or_else(|| quoted.strip_suffix('"').map(str::len)) {
                Some(end) => {
                    self.rest = quoted.get(end + 2..);
                    &quoted[..end]
                }
                None => return Some(Err(Invalid::Syntax)),
            },
            None => match rest.split_once(' ') {
                Some((field, after)) => {
                    self.rest = Some(after);
                    field
                }
                None => rest,
            },
        };
        if field.is_empty() && self.rest.is_none() {
            return Some(Err(Invalid::Syntax));
        }
        Some(Ok(if field == "-" { "" } else { field }))
    }
}

#[cfg(test)]
mod tests {
    use qualm_model::{
        event::{EventBatch, EventBuilder, Kind, Outcome, Position, Reporter},
        identity::Provenance,
    };

    use super::*;

    const LINE: &str = r#"[2020-11-25T21:26:18.409Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 135 3 1 "-" "curl/7.73.0-DEV" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "127.0.0.1:80" inbound|8000|| 127.0.0.1:41854 10.44.1.27:80 10.44.1.23:37652 outbound_.8000_._.httpbin.foo.svc.cluster.local default"#;

    fn parse(line: &str) -> Result<EventBatch, Rejection> {
        let mut builder = EventBuilder::new();
        IstioText::default().parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
        Ok(builder.finish())
    }

    #[test]
    fn the_caller_is_its_address_and_no_more_than_a_name() {
        let batch = parse(LINE).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.source().principal(), event.source().provenance()), ("10.44.1.23", Provenance::Name));
        assert_eq!((event.destination().principal(), event.destination().port()), ("httpbin", 80));
        assert_eq!((event.operation(), event.outcome()), ("GET /status/{id}", Outcome::Failure));
        assert_eq!((event.reporter(), event.bytes_out()), (Reporter::Destination, Some(135)));
    }

    #[test]
    fn a_caller_that_names_another_address_has_no_instance() {
        let ip = |line: &str| parse(line).expect("an event").event(0).source().ip().to_owned();
        assert_eq!(ip(LINE), "10.44.1.23");
        assert_eq!(ip(&LINE.replace(r#"1 "-" "curl"#, r#"1 "10.44.1.23" "curl"#)), "");
    }

    #[test]
    fn a_denied_connection_is_a_refused_connection() {
        let line = r#"[2026-11-22T02:02:24.159Z] "- - -" 0 - - rbac_access_denied_matched_policy[qualm-deny] "-" 1 0 3 - "-" "-" "-" "-" "127.0.0.1:18101" echo 127.0.0.1:43996 127.0.0.1:10061 127.0.0.1:47768 orders.shop.svc -"#;
        let batch = parse(line).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.kind(), event.outcome(), event.status()), (Kind::Connection, Outcome::Refused, None));
        assert_eq!((event.decision_id(), event.hostname()), ("qualm-deny", "orders.shop.svc"));
    }

    #[test]
    fn a_user_agent_cannot_forge_the_fields_after_it() {
        let forged = LINE.replace("curl/7.73.0-DEV", r#"x" "forged-id" "bank:443"#);
        assert_eq!(parse(&forged).err(), Some(Invalid::Syntax.into()));
    }

    #[test]
    fn other_lines_are_foreign_and_cut_ones_invalid() {
        assert_eq!(parse("2026-11-22 info starting").err(), Some(Rejection::Foreign));
        for line in ["[main] starting up", "[info]starting up", "[1,2,3]", "[{}]"] {
            assert_eq!(parse(line).err(), Some(Rejection::Foreign), "{line}");
        }
        assert_eq!(parse(&LINE[..20]).err(), Some(Invalid::Syntax.into()));
        assert_eq!(parse(&LINE[..200]).err(), Some(Invalid::Syntax.into()));
        assert_eq!(parse(&LINE.replace("2020-11-25", "2020-11-31")).err(), Some(Invalid::ImpossibleTime.into()));
    }
}
