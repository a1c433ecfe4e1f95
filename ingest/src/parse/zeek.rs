//! Zeek's logs of connections, TLS handshakes, HTTP requests and SSH logins, as JSON and as tab-separated text.
//!
//! One stream may hold them all: which log a line is of, `_path` says (JSON), the header (text), or else its keys.
//! Lines of other logs are foreign. Zeek is a sensor on the wire: a party is its address and no more.
//!
//! - `conn` is a connection, known when it ends; its outcome is that of `conn_state`;
//! - `ssl` and `ssh` are authentications: TLS, mutual where the caller showed a certificate, and a login;
//! - `http` is a request. Names and passwords of it are not read.

mod json;
mod tsv;

use std::fmt::Write as _;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    time::{Span, Timestamp},
};

pub use self::{json::ZeekJson, tsv::ZeekTsv};
use super::{Row, access::host_and_port, clip, url::split_url};
use crate::source::{Invalid, Rejection};

/// The logs that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Log {
    Conn,
    Ssl,
    Http,
    Ssh,
}

impl Log {
    fn of_path(path: &str) -> Option<Self> {
        match path {
            "conn" => Some(Self::Conn),
            "ssl" => Some(Self::Ssl),
            "http" => Some(Self::Http),
            "ssh" => Some(Self::Ssh),
            _ => None,
        }
    }
}

/// One line of any of them. An empty text is absent.
#[derive(Debug, Clone, Copy, Default)]
struct Entry<'a> {
    start: Timestamp,
    uid: &'a str,
    source: &'a str,
    source_port: u16,
    destination: &'a str,
    destination_port: u16,
    proto: &'a str,
    service: &'a str,
    duration: Option<Span>,
    source_bytes: Option<u64>,
    destination_bytes: Option<u64>,
    state: &'a str,
    trans_depth: Option<u64>,
    method: &'a str,
    host: &'a str,
    uri: &'a str,
    status: Option<u16>,
    version: &'a str,
    server_name: &'a str,
    /// What the log says of success: of the handshake, of the login.
    success: Option<bool>,
    certificate: &'a str,
    ja3: &'a str,
    ja4: &'a str,
}

/// What is written anew for every entry.
#[derive(Debug, Default)]
struct Texts {
    operation: String,
    id: String,
}

impl<'a> Entry<'a> {
    fn push(&self, log: Log, texts: &mut Texts, row: &mut Row<'_>) -> Result<(), Rejection> {
        row.push_as_onlooker(self.draft(log, texts)?)
    }

    fn draft<'b>(&self, log: Log, texts: &'b mut Texts) -> Result<EventDraft<'b>, Invalid>
    where
        'a: 'b,
    {
        if self.source.is_empty() {
            return Err(Invalid::MissingIdentity);
        }
        self.write_texts(log, texts);
        let texts = &*texts;
        let duration = if log == Log::Conn { self.duration } else { None };
        let outcome = self.outcome(log)?;
        let host = if log == Log::Http { host_and_port(self.host).0 } else { self.server_name };
        Ok(EventDraft {
            start: self.start,
            report: self.start + duration.unwrap_or_default(),
            kind: match log {
                Log::Conn => Kind::Connection,
                Log::Http => Kind::Request,
                Log::Ssl | Log::Ssh => Kind::Authentication,
            },
            reporter: Reporter::Destination,
            record_id: clip(&texts.id),
            source: address(self.source, self.source_port),
            destination: address(self.destination, self.destination_port),
            hostname: clip(host),
            operation: &texts.operation,
            status: self.status,
            outcome,
            denial_reason: if log == Log::Conn && outcome != Outcome::Success { self.state } else { "" },
            bytes_in: self.source_bytes,
            bytes_out: self.destination_bytes,
            duration_ns: duration.map(|duration| duration.0),
            tls_version: if log == Log::Ssl { clip(self.version) } else { "" },
            ja3: clip(self.ja3),
            ja4: clip(self.ja4),
            credential: clip(self.certificate),
            auth_method: match log {
                Log::Ssl if self.certificate.is_empty() => "tls",
                Log::Ssl => "mtls",
                Log::Ssh => "ssh",
                Log::Conn | Log::Http => "",
            },
            ..EventDraft::default()
        })
    }

    /// One connection has one uid in all logs: its id is told apart by the log, that of a request by its number.
    fn write_texts(&self, log: Log, texts: &mut Texts) {
        let Texts { operation, id } = texts;
        operation.clear();
        id.clear();
        id.push_str(clip(self.uid));
        match log {
            Log::Conn => operation.push_str(clip(if self.service.is_empty() { self.proto } else { self.service })),
            Log::Http => {
                fold::operation(self.method, split_url(self.uri).1, operation);
                // Writing to a text cannot fail.
                let _ = write!(id, "/{}", self.trans_depth.unwrap_or_default());
            }
            Log::Ssl => {
                operation.push_str("tls");
                id.push_str("/ssl");
            }
            Log::Ssh => {
                operation.push_str("ssh");
                id.push_str("/ssh");
            }
        }
        if self.uid.is_empty() {
            id.clear();
        }
    }

    fn outcome(&self, log: Log) -> Result<Outcome, Invalid> {
        let of_success = |success| if success { Outcome::Success } else { Outcome::Failure };
        Ok(match log {
            Log::Conn => of_state(self.state, self.proto)?,
            Log::Http => self.status.map_or(Outcome::Unknown, |status| Outcome::of_http(status, None)),
            Log::Ssl => self.success.map_or(Outcome::Unknown, of_success),
            Log::Ssh if self.success == Some(false) => Outcome::Refused,
            Log::Ssh => self.success.map_or(Outcome::Unknown, of_success),
        })
    }
}

/// Zeek's `conn_state`. Of a protocol without connections, silence is no failure.
fn of_state(state: &str, proto: &str) -> Result<Outcome, Invalid> {
    Ok(match state {
        "SF" | "S1" | "S2" | "S3" => Outcome::Success,
        "S0" if proto != "tcp" => Outcome::Unknown,
        "S0" | "REJ" | "RSTO" | "RSTR" | "RSTOS0" | "RSTRH" | "SH" | "SHR" => Outcome::Failure,
        "OTH" | "" => Outcome::Unknown,
        _ => return Err(Invalid::WrongType),
    })
}

fn address(ip: &str, port: u16) -> Party<'_> {
    let ip = clip(ip);
    Party { principal: ip, ip, port, ..Party::default() }
}

/// Seconds of a duration; what is negative or longer than decades is of the wrong type.
fn seconds(text: &str) -> Result<Option<Span>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    span(text.parse().map_err(|_| Invalid::WrongType)?).map(Some)
}

fn span(seconds: f64) -> Result<Span, Invalid> {
    if (0.0..=1e9).contains(&seconds) { Ok(Span((seconds * 1e9).round() as i64)) } else { Err(Invalid::WrongType) }
}

#[cfg(test)]
mod tests;
