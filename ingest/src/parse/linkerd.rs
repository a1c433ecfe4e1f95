//! Linkerd's access log: written by the called's proxy, once a response has ended.
//!
//! The proxy has verified `client.id` in its TLS handshake; a caller outside the mesh is its address. It says nothing
//! of its own workload, so the called is the host that was asked for.

use std::borrow::Cow;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::Provenance,
    time::{Span, Timestamp},
};
use serde::Deserialize;

use super::{
    Row,
    access::host_and_port,
    clip,
    number::{self, Whole},
    time::rfc3339,
    typed,
    url::split_url,
};
use crate::source::{Invalid, Rejection};

/// What stands between service account, namespace and trust domain in a name of Linkerd's.
const IDENTITY: &str = ".serviceaccount.identity.";

/// Reads `config.linkerd.io/access-log: json`.
#[derive(Debug, Default)]
pub struct LinkerdJson {
    texts: Texts,
}

/// Reads `config.linkerd.io/access-log: apache`.
#[derive(Debug, Default)]
pub struct LinkerdApache {
    texts: Texts,
}

/// What is written anew for every entry.
#[derive(Debug, Default)]
struct Texts {
    operation: String,
    principal: String,
}

#[derive(Deserialize)]
struct JsonLine<'a> {
    #[serde(borrow, rename = "client.addr")]
    address: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "client.id")]
    identity: Option<Cow<'a, str>>,
    #[serde(borrow)]
    host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    total_ns: Option<Whole<'a>>,
    #[serde(borrow)]
    request_bytes: Option<Whole<'a>>,
    #[serde(borrow)]
    response_bytes: Option<Whole<'a>>,
    #[serde(borrow)]
    status: Option<Whole<'a>>,
}

/// One entry, whichever way it was written.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    address: &'a str,
    identity: &'a str,
    host: &'a str,
    method: &'a str,
    uri: &'a str,
    start: Timestamp,
    status: Option<u16>,
    bytes_in: Option<u64>,
    bytes_out: Option<u64>,
    duration: Option<Span>,
}

impl LinkerdJson {
    /// Reads one line. JSON without `client.addr` is the proxy's diagnostics or another's line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        if memchr::memmem::find(line.as_bytes(), b"\"client.addr\"").is_none() {
            return Err(Rejection::Foreign);
        }
        let line: JsonLine<'_> = typed::object(line)?;
        let entry = Entry {
            address: present(line.address.as_ref()),
            identity: present(line.identity.as_ref()),
            host: present(line.host.as_ref()),
            method: present(line.method.as_ref()),
            uri: present(line.uri.as_ref()),
            start: rfc3339(line.timestamp.as_deref().ok_or(Invalid::MissingField)?)?,
            status: number::status(line.status.as_ref())?,
            bytes_in: number::whole(line.request_bytes.as_ref())?,
            bytes_out: number::whole(line.response_bytes.as_ref())?,
            duration: nanoseconds(number::whole(line.total_ns.as_ref())?)?,
        };
        row.push(entry.draft(&mut self.texts))
    }
}

impl LinkerdApache {
    /// Reads one line: `address identity - [time] "method uri version" status`. Of the bytes that may follow the last
    /// digits could be cut off, so they are left unread.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        row.push(apache(line)?.draft(&mut self.texts))
    }
}

fn apache(line: &str) -> Result<Entry<'_>, Rejection> {
    let line = line.trim_ascii_end();
    let (head, rest) = line.split_once(" [").ok_or(Rejection::Foreign)?;
    let mut words = head.split(' ');
    let (Some(address), Some(identity), Some("-"), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Rejection::Foreign);
    };
    if host_and_port(address).1 == 0 {
        return Err(Rejection::Foreign);
    }
    let (time, rest) = rest.split_once("] \"").ok_or(Invalid::Syntax)?;
    // A path may hold quotes; what follows the last one may not.
    let (request, after) = rest.rsplit_once("\" ").ok_or(Invalid::Syntax)?;
    let (method, rest) = request.split_once(' ').ok_or(Invalid::Syntax)?;
    let (uri, version) = rest.rsplit_once(' ').ok_or(Invalid::Syntax)?;
    let status = after.split(' ').next().unwrap_or_default();
    if !version.starts_with("HTTP/") || status.len() != 3 {
        return Err(Invalid::Syntax.into());
    }
    Ok(Entry {
        address,
        identity: if identity == "-" { "" } else { identity },
        host: "",
        method,
        uri,
        start: rfc3339(time)?,
        status: Some(status.parse().map_err(|_| Invalid::WrongType)?),
        bytes_in: None,
        bytes_out: None,
        duration: None,
    })
}

impl Entry<'_> {
    fn draft<'b>(&'b self, texts: &'b mut Texts) -> EventDraft<'b> {
        let (authority, path) = split_url(self.uri);
        fold::operation(self.method, path, &mut texts.operation);
        let (ip, port) = host_and_port(self.address);
        let verified = !self.identity.is_empty();
        write_principal(if verified { self.identity } else { ip }, &mut texts.principal);
        let (host, host_port) = host_and_port(if self.host.is_empty() { authority } else { self.host });
        EventDraft {
            start: self.start,
            report: self.start + self.duration.unwrap_or_default(),
            kind: Kind::Request,
            reporter: Reporter::Destination,
            source: Party {
                principal: &texts.principal,
                ip,
                port,
                provenance: if verified { Provenance::Certificate } else { Provenance::Name },
                ..Party::default()
            },
            destination: Party { principal: clip(host), port: host_port, ..Party::default() },
            hostname: clip(host),
            operation: &texts.operation,
            status: self.status,
            outcome: self.status.map_or(Outcome::Unknown, |status| Outcome::of_http(status, None)),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ns: self.duration.map(|duration| duration.0),
            auth_method: if verified { "mtls" } else { "" },
            ..EventDraft::default()
        }
    }
}

/// The SPIFFE ID behind `cart.shop.serviceaccount.identity.linkerd.cluster.local`: service account, namespace,
/// namespace of the control plane, trust domain. A SPIFFE ID (of a workload outside Kubernetes) is one already.
fn write_principal(identity: &str, out: &mut String) {
    out.clear();
    let parts = identity.split_once(IDENTITY).and_then(|(workload, rest)| {
        let (account, namespace) = workload.rsplit_once('.')?;
        let (_, domain) = rest.split_once('.')?;
        Some((domain, namespace, account))
    });
    match parts {
        Some((domain, namespace, account)) => {
            for part in ["spiffe://", domain, "/ns/", namespace, "/sa/", account] {
                out.push_str(part);
            }
        }
        None => out.push_str(identity),
    }
}

fn present<'a>(field: Option<&'a Cow<'a, str>>) -> &'a str {
    field.map(Cow::as_ref).filter(|text| *text != "-").unwrap_or_default()
}

fn nanoseconds(count: Option<u64>) -> Result<Option<Span>, Invalid> {
    count.map(|count| i64::try_from(count).map(Span).map_err(|_| Invalid::WrongType)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_linkerds_is_a_spiffe_id() {
        for (identity, principal) in [
            (
                "traffic.booksapp.serviceaccount.identity.linkerd.cluster.local",
                "spiffe://cluster.local/ns/booksapp/sa/traffic",
            ),
            ("a.b.shop.serviceaccount.identity.mesh-system.mesh.test", "spiffe://mesh.test/ns/shop/sa/a.b"),
            ("spiffe://root.linkerd/vm-7", "spiffe://root.linkerd/vm-7"),
            ("10.0.0.7", "10.0.0.7"),
            ("x.serviceaccount.identity.linkerd.local", "x.serviceaccount.identity.linkerd.local"),
        ] {
            let mut out = String::from("before");
            write_principal(identity, &mut out);
            assert_eq!(out, principal);
        }
    }

    #[test]
    fn a_path_cannot_forge_the_status_after_it() {
        let line =
            |uri: &str| format!("10.42.0.63:51160 cart - [2022-08-23T20:28:20.071809491Z] \"GET {uri} HTTP/2.0\" 403");
        let forged = line("http://webapp/x\"/HTTP/2.0\"/200");
        assert_eq!(apache(&forged).map(|entry| entry.status), Ok(Some(403)));
        assert_eq!(apache(&line("http://webapp/")).map(|entry| entry.address), Ok("10.42.0.63:51160"));
    }
}
