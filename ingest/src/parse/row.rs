//! The place a record's events go to, with what holds for every format.
//!
//! # Layout
//! - this file: what is refused, and what the origin says of the reporter's own end
//! - `name`: better names for parties that are known by an address or a pod
//! - `witness`: who may vouch for a certificate

mod name;
#[cfg(test)]
mod tests;
pub(super) mod witness;

use qualm_model::{
    event::{Activity, EventBuilder, EventDraft, Party, Position, Reporter},
    identity::Provenance,
    time::{Span, Timestamp},
};

use self::witness::Voucher;
use super::json::Stretch;
use crate::source::{Invalid, Rejection};

/// How far ahead of its arrival a record may be.
pub const MAX_AHEAD: Span = Span(5 * Span::MINUTE.0);
/// The longest SPIFFE ID; no longer text is an identity.
const MAX_IDENTITY_BYTES: usize = 2048;
/// Host names, reasons, fingerprints are cut here.
const MAX_NAME_BYTES: usize = 256;

/// What an envelope or the configuration says of where a record was written. An empty text is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Cluster.
    pub cluster: &'a str,
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Pod name.
    pub pod: &'a str,
    /// Address of the pod.
    pub pod_ip: &'a str,
    /// Node name.
    pub node: &'a str,
    /// Container name.
    pub container: &'a str,
    /// Name of the workload that owns the pod.
    pub owner: &'a str,
    /// Version label of the pod.
    pub version: &'a str,
    /// When the shipper says the record was written.
    pub time: Option<Timestamp>,
}

impl<'a> Origin<'a> {
    /// What this says, and `other` where this says nothing.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let or = |own: &'a str, other: &'a str| if own.is_empty() { other } else { own };
        Self {
            cluster: or(self.cluster, other.cluster),
            namespace: or(self.namespace, other.namespace),
            pod: or(self.pod, other.pod),
            pod_ip: or(self.pod_ip, other.pod_ip),
            node: or(self.node, other.node),
            container: or(self.container, other.container),
            owner: or(self.owner, other.owner),
            version: or(self.version, other.version),
            time: self.time.or(other.time),
        }
    }
}

/// The place a record's events go to: usually one, where a record carries several each of them.
#[derive(Debug)]
pub struct Row<'a> {
    builder: &'a mut EventBuilder,
    position: Position,
    arrival: Option<Timestamp>,
    stored: Option<Timestamp>,
    max_age: Option<Span>,
    origin: Origin<'a>,
    refused: Vec<Rejection>,
    lost: u64,
    voucher: Voucher,
    unvouched: u64,
    /// The container of the last of these.
    stranger: &'a str,
    /// Containers of proxies, as configured.
    proxies: &'a [String],
    /// A value of the record that was read already.
    known: Stretch,
}

/// Where the one who wrote a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// At one end of the call, or between the two.
    InTheCall,
    /// Beside it.
    Onlooker,
}

impl<'a> Row<'a> {
    /// The row of the record at `position`, which arrived at `arrival`.
    pub fn new(builder: &'a mut EventBuilder, position: Position, arrival: Option<Timestamp>) -> Self {
        Self {
            builder,
            position,
            arrival,
            stored: None,
            max_age: None,
            origin: Origin::default(),
            refused: Vec::new(),
            lost: 0,
            voucher: Voucher::Operator,
            unvouched: 0,
            stranger: "",
            proxies: &[],
            known: Stretch::default(),
        }
    }

    /// The same row, which takes nothing that was older than `max_age` on arrival.
    #[must_use]
    pub fn with_max_age(self, max_age: Option<Span>) -> Self {
        Self { max_age, ..self }
    }

    /// The same row of a record that was sent, or stored in its topic, at `stored`: the same however late it is read.
    #[must_use]
    pub fn stored_at(self, stored: Option<Timestamp>) -> Self {
        Self { stored, ..self }
    }

    /// The same row of a record that was written at `origin`.
    #[must_use]
    pub fn written_at(self, origin: Origin<'a>) -> Self {
        Self { origin, ..self }
    }

    /// The same row, which believes logs of proxies of these containers too.
    #[must_use]
    pub(super) fn believing(self, proxies: &'a [String]) -> Self {
        Self { proxies, ..self }
    }

    /// The same row of a record of which one value, the shipper's metadata, was read already.
    #[must_use]
    pub(super) fn knowing(self, known: Stretch) -> Self {
        Self { known, ..self }
    }

    /// Where that stands in the record; empty where there is none.
    pub(super) fn known(&self) -> Stretch {
        self.known
    }

    /// Says where the record was written.
    #[inline]
    pub(super) fn set_origin(&mut self, origin: Origin<'a>) {
        self.origin = origin;
    }

    /// Where the record was written, as far as is known.
    pub fn origin(&self) -> &Origin<'a> {
        &self.origin
    }

    /// When the record arrived, where that is known.
    pub(super) fn arrival(&self) -> Option<Timestamp> {
        self.arrival
    }

    /// Says whose word the record's format is: what it says of certificates is believed of them alone.
    #[inline]
    pub(super) fn set_voucher(&mut self, voucher: Voucher) {
        self.voucher = voucher;
    }

    /// Checks what holds for every format, and pushes. What the draft does not say of its reporter's own end is taken
    /// from the origin.
    #[inline]
    pub fn push<'d>(&mut self, draft: EventDraft<'d>) -> Result<(), Rejection>
    where
        'a: 'd,
    {
        self.push_seen(draft, Standing::InTheCall)
    }

    /// The same for what an onlooker saw: a node's agent, a sensor on the wire, a collector. The pod that wrote the
    /// record is neither end of the call, so the origin says no more than the cluster and who reported.
    pub fn push_as_onlooker<'d>(&mut self, draft: EventDraft<'d>) -> Result<(), Rejection>
    where
        'a: 'd,
    {
        self.push_seen(draft, Standing::Onlooker)
    }

    #[inline]
    fn push_seen<'d>(&mut self, mut draft: EventDraft<'d>, standing: Standing) -> Result<(), Rejection>
    where
        'a: 'd,
    {
        if draft.source.principal.is_empty() {
            return Err(Invalid::MissingIdentity.into());
        }
        if draft.source.principal.len().max(draft.destination.principal.len()) > MAX_IDENTITY_BYTES {
            return Err(Invalid::TooLong.into());
        }
        if draft.activity == Activity::Traffic && draft.report == draft.start {
            // Envoy does not say how long a stream has lasted before it ends, only whoever took the line does.
            draft.report = self.origin.time.or(self.stored).ok_or(Rejection::Part)?.max(draft.start);
        }
        if self.arrival.is_some_and(|arrival| draft.report > arrival + MAX_AHEAD) {
            return Err(Invalid::FutureTime.into());
        }
        if let (Some(arrival), Some(max_age)) = (self.arrival, self.max_age)
            && arrival - draft.report > max_age
        {
            return Err(Invalid::PastTime.into());
        }
        draft.position = self.position;
        if self.origin == Origin::default() {
            self.push_named(&draft, standing);
            return Ok(());
        }
        let origin: Origin<'d> = self.origin;
        let is_proxys = witness::is_proxys(&origin, self.proxies);
        if witness::disown(&mut draft, &origin, (standing, is_proxys), self.voucher) {
            self.unvouched += 1;
            let is_known = is_proxys && self.voucher == Voucher::Proxy;
            self.stranger = if is_known { "" } else { clip(self.origin.container) };
        }
        place(&mut draft, &origin, standing);
        self.push_named(&draft, standing);
        Ok(())
    }

    /// Pushes, with better names than addresses and pods where there are any. Certificates have none.
    #[inline]
    fn push_named(&mut self, draft: &EventDraft<'_>, standing: Standing) {
        let by_name = |party: &Party<'_>| party.provenance == Provenance::Name;
        if !by_name(&draft.source) && !by_name(&draft.destination) {
            self.push_vouched(draft);
            return;
        }
        let own = own_end(draft.reporter, standing);
        let source = by_name(&draft.source).then(|| name::of_source(draft, &self.origin, own)).flatten();
        let destination = by_name(&draft.destination).then(|| name::of_destination(draft, &self.origin, own)).flatten();
        if source.is_none() && destination.is_none() {
            self.push_vouched(draft);
            return;
        }
        let named = |party, name| Party { principal: name, ..party };
        self.push_vouched(&EventDraft {
            source: named(draft.source, source.as_deref().unwrap_or(draft.source.principal)),
            destination: named(draft.destination, destination.as_deref().unwrap_or(draft.destination.principal)),
            ..*draft
        });
    }

    /// Pushes. In a proxy's words that are no proxy's nobody is at an address: whoever prints such a line could be anywhere.
    #[inline]
    fn push_vouched(&mut self, draft: &EventDraft<'_>) {
        if self.voucher != Voucher::Proxy || witness::is_proxys(&self.origin, self.proxies) {
            self.builder.push(draft);
            return;
        }
        let nowhere = |party| Party { instance: "", ..party };
        let (source, destination) = (nowhere(draft.source), nowhere(draft.destination));
        self.builder.push(&EventDraft { source, destination, ..*draft });
    }

    /// Says that one of several entries of the record became no event.
    pub fn refuse(&mut self, why: Rejection) {
        self.refused.push(why);
    }

    /// Says that the reporter itself lost records before it could write them.
    pub fn lose(&mut self, records: u64) {
        self.lost = self.lost.saturating_add(records);
    }

    /// Records that the reporter says it lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Events whose certificates nobody vouches for.
    pub(crate) fn unvouched(&self) -> u64 {
        self.unvouched
    }

    /// The container that wrote the last of these; empty where it is a proxy's, of another namespace than it says.
    pub(super) fn stranger(&self) -> &'a str {
        self.stranger
    }

    /// Why entries of a record of several became no events.
    pub(crate) fn into_refused(self) -> Vec<Rejection> {
        self.refused
    }
}

/// An end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// The end at which the reporter stands. A gateway and a waypoint stand between the two, and neither a node's agent nor
/// an issuer is an end of the call.
fn own_end(reporter: Reporter, standing: Standing) -> Option<End> {
    match reporter {
        _ if standing == Standing::Onlooker => None,
        Reporter::Source => Some(End::Source),
        Reporter::Destination => Some(End::Destination),
        Reporter::Gateway | Reporter::Waypoint | Reporter::Ztunnel | Reporter::Issuer => None,
    }
}

/// Fills in what the origin says of the reporter's own end.
fn place<'a>(draft: &mut EventDraft<'a>, origin: &Origin<'a>, standing: Standing) {
    place_cluster(draft, origin);
    let own: &mut Party<'a> = match own_end(draft.reporter, standing) {
        Some(End::Source) => &mut draft.source,
        Some(End::Destination) => &mut draft.destination,
        None => {
            let is_issuer = draft.reporter == Reporter::Issuer && standing == Standing::InTheCall;
            if !is_issuer {
                fill(&mut draft.reporter_id, clip(if origin.pod.is_empty() { origin.node } else { origin.pod }));
            }
            return;
        }
    };
    fill(&mut own.instance, clip(origin.pod));
    fill(&mut own.version, clip(origin.version));
    fill(&mut own.ip, clip(origin.pod_ip));
    fill(&mut draft.reporter_id, clip(origin.pod));
}

/// Both ends are taken to be of the reporter's cluster unless the record says otherwise.
fn place_cluster<'a>(draft: &mut EventDraft<'a>, origin: &Origin<'a>) {
    for party in [&mut draft.source, &mut draft.destination] {
        fill(&mut party.cluster, origin.cluster);
    }
}

fn fill<'a>(slot: &mut &'a str, value: &'a str) {
    if slot.is_empty() {
        *slot = value;
    }
}

/// At most [`MAX_NAME_BYTES`] of a text.
#[inline]
pub(crate) fn clip(text: &str) -> &str {
    if text.len() <= MAX_NAME_BYTES { text } else { &text[..text.floor_char_boundary(MAX_NAME_BYTES)] }
}
