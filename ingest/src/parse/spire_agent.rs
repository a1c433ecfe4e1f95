//! SPIRE agent's log (`log_format = "json"`, level debug): which workload was given which identity, and which got none.
//! Everything else in its log is foreign.

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    time::{Span, Timestamp},
};
use serde::Deserialize;

use super::{
    Row, clip,
    time::rfc3339,
    typed::{self, Text},
};
use crate::source::{Invalid, Rejection};

/// No certificate lives longer than ten years.
const MAX_LIFETIME_SECONDS: f64 = 315_360_000.0;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow)]
    time: Text<'a>,
    msg: Text<'a>,
    method: Text<'a>,
    service: Text<'a>,
    spiffe_id: Text<'a>,
    registered: Option<bool>,
    ttl: Option<f64>,
    selectors: Vec<Selector<'a>>,
}

/// What the agent has found out about a process, such as `unix` `uid:0`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Selector<'a> {
    #[serde(borrow)]
    r#type: Text<'a>,
    value: Text<'a>,
}

/// Reads lines of SPIRE agent's log.
#[derive(Debug, Default)]
pub struct SpireAgent;

impl SpireAgent {
    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let line: Line<'_> = typed::object(line)?;
        let is_given = line.msg.starts_with("Fetched ") && !line.spiffe_id.is_empty();
        let is_refused = &*line.msg == "No identity issued";
        if !(is_given || is_refused) || line.method.is_empty() {
            return Err(Rejection::Foreign);
        }
        if line.time.is_empty() || line.registered == Some(is_refused) {
            return Err(Invalid::MissingField.into());
        }
        let time = rfc3339(&line.time)?;
        let attested = line.attested();
        row.push(EventDraft {
            start: time,
            report: time,
            kind: Kind::Authentication,
            reporter: Reporter::Issuer,
            source: Party {
                principal: if is_given { &line.spiffe_id } else { &attested },
                instance: clip(line.selector("k8s", "pod-name:")),
                ..Party::default()
            },
            destination: Party { principal: "spire-agent", ..Party::default() },
            hostname: clip(&line.service),
            operation: clip(&line.method),
            outcome: if is_given { Outcome::Success } else { Outcome::Refused },
            denial_reason: if is_given { "" } else { "no identity issued" },
            not_after: line.ttl.and_then(|seconds| ends(time, seconds)),
            auth_method: if line.method.contains("JWT") { "jwt_svid" } else { "x509_svid" },
            ..EventDraft::default()
        })
    }
}

impl Line<'_> {
    fn selector(&self, kind: &str, prefix: &str) -> &str {
        let of_kind = self.selectors.iter().filter(|selector| &*selector.r#type == kind);
        of_kind.filter_map(|selector| selector.value.strip_prefix(prefix)).next().unwrap_or_default()
    }

    /// What a process without an identity is called by: its service account, or its user. Process ids are never the
    /// same twice and name nobody.
    fn attested(&self) -> String {
        let (namespace, account) = (self.selector("k8s", "ns:"), self.selector("k8s", "sa:"));
        if !account.is_empty() {
            return format!("ns/{}/sa/{}", clip(namespace), clip(account));
        }
        match self.selector("unix", "uid:") {
            "" => "unattested".to_owned(),
            uid => format!("uid:{}", clip(uid)),
        }
    }
}

fn ends(time: Timestamp, seconds: f64) -> Option<Timestamp> {
    (0.0..MAX_LIFETIME_SECONDS).contains(&seconds).then(|| time + Span((seconds * 1e9) as i64))
}
