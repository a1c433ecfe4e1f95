//! ztunnel's access log, of Istio's ambient mode: text (`key=value`) and JSON, connections and HTTP requests.
//!
//! Both nodes' ztunnels report each call. *Inbound* is the report of the called's side: its ztunnel has verified the
//! caller's certificate, so it is [`Reporter::Ztunnel`] with a certificate's provenance, and authoritative as a
//! sidecar's inbound report is. *Outbound* is the report of the caller's side, [`Reporter::Source`]: there the caller's
//! name is no more than its own node's word, and the called's certificate is what was verified.
//!
//! ztunnel writes times of ends and whole milliseconds of duration; its bytes are those that the reporting side sent
//! and received. `src.workload` and `dst.workload` are names of pods.

mod fields;

use qualm_model::{
    event::{EventDraft, Kind, Outcome, Party, Reporter},
    fold,
    identity::{Provenance, workload_of_pod},
    time::{Span, Timestamp},
};

use self::fields::{Field, Fields};
use super::{
    Row,
    access::host_and_port,
    clip,
    istio_json::{milliseconds, whole_number},
    time::rfc3339,
};
use crate::source::{Invalid, Rejection};

/// What ztunnel puts before `namespace/policy` where a policy denied by name.
const DENIED_BY: &str = "explicitly denied by: ";
/// What all names of our policies begin with.
const OUR_POLICIES: &str = "qualm-";

/// Reads ztunnel's access log, as text or as JSON, whichever a line is.
#[derive(Debug, Default)]
pub struct Ztunnel {
    fields: Fields,
    texts: Texts,
    /// Whether lines on requests were seen to end with their duration: then one without it was cut off.
    requests_have_duration: bool,
}

/// What is written anew for every entry.
#[derive(Debug, Default)]
struct Texts {
    operation: String,
    reason: String,
    source: String,
    destination: String,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// `connection opened`: its end has the totals.
    Begin,
    /// `connection complete`
    Connection,
    /// `connection failed`: refused before anything was known but the addresses.
    Refused,
    /// `http access request complete`
    Request,
}

impl Ztunnel {
    /// Reads one line. What is no access log is foreign: ztunnel writes its diagnostics to the same stream.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let subject = self.fields.read(line)?;
        if subject == Subject::Begin {
            return Err(Rejection::Part);
        }
        self.check_end(subject)?;
        let entry = Entry { fields: &self.fields, line, subject };
        row.push_as_onlooker(entry.draft(&mut self.texts)?)
    }

    /// A line of text may be cut off at a field's end.
    fn check_end(&mut self, subject: Subject) -> Result<(), Invalid> {
        if self.fields.is_json() {
            return Ok(());
        }
        let has = |field| self.fields.has(field);
        // The error comes last; the level says that there is one.
        let whole = match subject {
            Subject::Begin => true,
            Subject::Connection => has(Field::Duration) && (has(Field::Error) || !self.fields.is_error()),
            Subject::Refused => has(Field::Error),
            Subject::Request => has(Field::ResponseCode) && (has(Field::Duration) || !self.requests_have_duration),
        };
        if !whole {
            return Err(Invalid::Syntax);
        }
        self.requests_have_duration |= subject == Subject::Request && has(Field::Duration);
        Ok(())
    }
}

/// One line, read.
struct Entry<'a> {
    fields: &'a Fields,
    line: &'a str,
    subject: Subject,
}

impl<'a> Entry<'a> {
    fn get(&self, field: Field) -> &'a str {
        self.fields.get(field, self.line)
    }

    fn draft<'b>(&self, texts: &'b mut Texts) -> Result<EventDraft<'b>, Rejection>
    where
        'a: 'b,
    {
        let inbound = match self.get(Field::Direction) {
            "inbound" => true,
            "outbound" => false,
            "" => return Err(Invalid::MissingField.into()),
            _ => return Err(Invalid::WrongType.into()),
        };
        let report = self.report()?;
        let duration = self.duration()?;
        let status = self.status()?;
        let outcome = self.outcome(status);
        let (sent, received) = (self.bytes(Field::BytesSent)?, self.bytes(Field::BytesReceived)?);
        self.write_texts(texts);
        let texts = &*texts;
        let source = self.source(texts, inbound);
        let verified = inbound && source.provenance == Provenance::Certificate;
        Ok(EventDraft {
            start: Timestamp((report - duration.unwrap_or_default()).0.max(0)),
            report,
            kind: if self.subject == Subject::Request { Kind::Request } else { Kind::Connection },
            reporter: if inbound { Reporter::Ztunnel } else { Reporter::Source },
            record_id: clip(self.get(Field::RequestId)),
            decision_id: self.own_action(),
            source,
            destination: self.destination(texts),
            hostname: clip(self.hostname()),
            operation: &texts.operation,
            status,
            outcome,
            denial_reason: if outcome == Outcome::Success { "" } else { &texts.reason },
            bytes_in: if inbound { received } else { sent },
            bytes_out: if inbound { sent } else { received },
            duration_ns: duration.map(|duration| duration.0),
            auth_method: if verified { "mtls" } else { "" },
            ..EventDraft::default()
        })
    }

    fn write_texts(&self, texts: &mut Texts) {
        texts.operation.clear();
        if self.subject == Subject::Request {
            fold::operation(self.get(Field::Method), self.get(Field::Path), &mut texts.operation);
        }
        texts.reason.clear();
        fold::append_text(clip(self.get(Field::Error)), &mut texts.reason);
        for (out, namespace, pod) in [
            (&mut texts.source, Field::SourceNamespace, Field::SourceWorkload),
            (&mut texts.destination, Field::DestinationNamespace, Field::DestinationWorkload),
        ] {
            out.clear();
            let (namespace, workload) = (self.get(namespace), workload_of_pod(self.get(pod)));
            if !workload.is_empty() {
                out.push_str(namespace);
                out.push_str(if namespace.is_empty() { "" } else { "/" });
                out.push_str(workload);
            }
        }
    }

    fn report(&self) -> Result<Timestamp, Invalid> {
        match self.get(Field::Time) {
            "" => Err(Invalid::MissingField),
            time => rfc3339(time),
        }
    }

    fn duration(&self) -> Result<Option<Span>, Invalid> {
        match self.get(Field::Duration) {
            "" => Ok(None),
            text => milliseconds(whole_number(text.strip_suffix("ms").ok_or(Invalid::WrongType)?)?).map(Some),
        }
    }

    fn status(&self) -> Result<Option<u16>, Invalid> {
        match self.get(Field::ResponseCode) {
            "" => Ok(None),
            // One that is shorter was cut off.
            code if code.len() == 3 => code.parse().map(Some).map_err(|_| Invalid::WrongType),
            _ => Err(Invalid::Syntax),
        }
    }

    fn bytes(&self, field: Field) -> Result<Option<u64>, Invalid> {
        match self.get(field) {
            "" => Ok(None),
            digits => whole_number(digits).map(Some),
        }
    }

    fn outcome(&self, status: Option<u16>) -> Outcome {
        let error = self.get(Field::Error);
        if error.contains("policy rejection") || error.contains(DENIED_BY) {
            return Outcome::Refused;
        }
        if !error.is_empty() {
            return Outcome::Failure;
        }
        if self.subject != Subject::Request {
            return Outcome::Success;
        }
        status.map_or(Outcome::Unknown, |status| Outcome::of_http(status, None))
    }

    /// The certificate that the called's ztunnel verified, or else what the node knows of the address.
    fn source(&self, texts: &'a Texts, inbound: bool) -> Party<'a> {
        let verified = if inbound { Provenance::Certificate } else { Provenance::Name };
        let address = host_and_port(self.get(Field::SourceAddress));
        self.party(self.get(Field::SourceIdentity), verified, &texts.source, address, Field::SourceWorkload)
    }

    /// Either side's ztunnel knows the called's certificate: as its own, or as the one it verified.
    fn destination(&self, texts: &'a Texts) -> Party<'a> {
        // The tunnel's own port is not what was called.
        let tunnelled = host_and_port(self.get(Field::DestinationTunnelled));
        let outer = host_and_port(self.get(Field::DestinationAddress));
        let address = if tunnelled.0.is_empty() { outer } else { tunnelled };
        let identity = self.get(Field::DestinationIdentity);
        let mut party =
            self.party(identity, Provenance::Certificate, &texts.destination, address, Field::DestinationWorkload);
        let service = self.get(Field::DestinationService);
        if identity.is_empty() && !service.is_empty() {
            (party.principal, party.provenance) = (service, Provenance::Name);
        }
        party
    }

    fn party(
        &self,
        identity: &'a str,
        verified: Provenance,
        workload: &'a str,
        (host, port): (&'a str, u16),
        pod: Field,
    ) -> Party<'a> {
        let (principal, provenance) = match (identity, workload) {
            ("", "") => (host, Provenance::Name),
            // ztunnel knows by address which pod it is.
            ("", workload) => (workload, Provenance::AddressMap),
            (identity, _) => (identity, verified),
        };
        let is_address = host.parse::<std::net::IpAddr>().is_ok();
        let ip = if is_address { host } else { "" };
        Party { principal, provenance, ip, port, instance: clip(self.get(pod)), ..Party::default() }
    }

    fn hostname(&self) -> &'a str {
        match self.get(Field::DestinationService) {
            "" => host_and_port(self.get(Field::Host)).0,
            service => service,
        }
    }

    /// The policy of ours that denied.
    fn own_action(&self) -> &'a str {
        let named = self.get(Field::Error).split_once(DENIED_BY).map_or("", |(_, policy)| policy);
        let policy = named.rsplit_once('/').map_or(named, |(_, policy)| policy);
        if policy.starts_with(OUR_POLICIES) { clip(policy) } else { "" }
    }
}

#[cfg(test)]
mod tests;
