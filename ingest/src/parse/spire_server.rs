//! SPIRE server's audit log (`audit_log_enabled = true`, `log_format = "json"`): who called its API, and for whom it
//! issued identities. Everything else in its log is foreign.
//!
//! The server has verified the certificate of a caller that it names by SPIFFE ID. A caller that it could not
//! authenticate is logged outside the audit log, and is an address.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter, certificate_of},
    fold,
    identity::Provenance,
    time::Timestamp,
};
use serde::Deserialize;

use super::{
    Row,
    access::host_and_port,
    clip,
    time::rfc3339,
    typed::{self, Text},
};
use crate::source::{Invalid, Rejection};

/// gRPC's codes of a refusal.
const PERMISSION_DENIED: u16 = 7;
const UNAUTHENTICATED: u16 = 16;
/// The end of the year 2200: times are kept in nanoseconds.
const LATEST_END: i64 = 7_289_654_400;
/// The longest SPIFFE ID.
const MAX_ID_BYTES: usize = 2048;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    time: Text<'a>,
    msg: Text<'a>,
    r#type: Text<'a>,
    request_id: Text<'a>,
    service: Text<'a>,
    method: Text<'a>,
    authorized_via: Text<'a>,
    node_attestor_type: Text<'a>,
    entry_id: Text<'a>,
    csr: Text<'a>,
    caller_addr: Text<'a>,
    caller_id: Text<'a>,
    caller_uid: Text<'a>,
    agent_id: Text<'a>,
    spiffe_id: Text<'a>,
    status: Text<'a>,
    status_code: Option<u16>,
    expires_at: Option<i64>,
    status_message: Text<'a>,
    error: Text<'a>,
}

/// Reads lines of SPIRE server's log.
#[derive(Debug, Default)]
pub struct SpireServer;

impl SpireServer {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let line: Line<'_> = typed::object(line)?;
        let is_refused_caller = &*line.msg == "Failed to authenticate caller";
        if &*line.r#type != "audit" && !is_refused_caller {
            return Err(Rejection::Foreign);
        }
        if line.time.is_empty() || line.method.is_empty() {
            return Err(Invalid::MissingField.into());
        }
        let time = rfc3339(&line.time)?;
        let operation = line.operation();
        let reason = line.reason();
        let principal = line.principal();
        let record_id = line.record_id();
        let issued = line.issued();
        let (ip, port) = host_and_port(&line.caller_addr);
        let has_certificate = !line.caller_id.is_empty();
        row.push(EventDraft {
            start: time,
            report: time,
            kind: if line.issues() { Kind::Authentication } else { Kind::Request },
            reporter: Reporter::Issuer,
            record_id: clip(&record_id),
            source: Party {
                principal: &principal,
                ip: typed::address(ip),
                port,
                provenance: if has_certificate { Provenance::Certificate } else { Provenance::Name },
                ..Party::default()
            },
            destination: Party { principal: "spire-server", ..Party::default() },
            hostname: clip(&line.service),
            operation: &operation,
            grpc_status: line.status_code,
            outcome: if is_refused_caller { Outcome::Refused } else { line.outcome() },
            denial_reason: &reason,
            auth_method: if line.issues() { clip(line.auth_method()) } else { "" },
            issued: &issued,
            ..EventDraft::default()
        })
    }
}

impl Line<'_> {
    /// Whether an identity is what was asked for.
    fn issues(&self) -> bool {
        let methods = ["AttestAgent", "RenewAgent", "BatchNewX509SVID", "NewJWTSVID", "MintX509SVID", "MintJWTSVID"];
        methods.contains(&&*self.method) || self.method.starts_with("NewDownstreamX509CA")
    }

    /// The X.509 SVID that was given out. Its serial is not logged, its end is.
    fn issued(&self) -> String {
        let is_certificate = matches!(&*self.method, "BatchNewX509SVID" | "MintX509SVID") && &*self.status == "success";
        let end = self.expires_at.filter(|seconds| (1..=LATEST_END).contains(seconds) && is_certificate);
        match end {
            Some(seconds) if self.spiffe_id.len() <= MAX_ID_BYTES && !self.spiffe_id.is_empty() => {
                certificate_of(&self.spiffe_id, Timestamp::from_seconds(seconds))
            }
            _ => String::new(),
        }
    }

    /// A batch is a line an item, and all have the id of the request.
    fn record_id(&self) -> String {
        match typed::first([&self.entry_id, &self.csr, &self.spiffe_id]) {
            "" if self.method.starts_with("Batch") => String::new(),
            "" => self.request_id.to_string(),
            item => format!("{} {item}", &*self.request_id),
        }
    }

    fn auth_method(&self) -> &str {
        typed::first([&self.node_attestor_type, &self.authorized_via])
    }

    /// The method, and for an issue the identity it was for: a node that begins to fetch another workload's is news.
    fn operation(&self) -> String {
        let mut operation = clip(&self.method).to_owned();
        if self.issues()
            && let Some(id) = self.spiffe_id.strip_prefix("spiffe://")
        {
            operation.push(' ');
            fold::append_path(id, &mut operation);
        }
        operation
    }

    /// The verified caller; or the agent that has just been attested; or a process on the server's own node; or only
    /// an address.
    fn principal(&self) -> String {
        let named = typed::first([&self.caller_id, &self.agent_id]);
        if !named.is_empty() {
            return named.to_owned();
        }
        if !self.caller_uid.is_empty() {
            return format!("uid:{}", clip(&self.caller_uid));
        }
        clip(host_and_port(&self.caller_addr).0).to_owned()
    }

    fn outcome(&self) -> Outcome {
        match (&*self.status, self.status_code) {
            ("success", _) => Outcome::Success,
            (_, Some(PERMISSION_DENIED | UNAUTHENTICATED)) => Outcome::Refused,
            ("error", _) => Outcome::Failure,
            _ => Outcome::Unknown,
        }
    }

    fn reason(&self) -> String {
        let mut reason = String::new();
        let words = typed::first([&self.status_message, &self.error]);
        // `rpc error: code = PermissionDenied desc = …`: what follows names the method again.
        let words = words.split_once("code = ").map_or(words, |(_, code)| code);
        let words = words.split_once(" desc = ").map_or(words, |(code, _)| code);
        fold::append_text(clip(words), &mut reason);
        reason
    }
}
