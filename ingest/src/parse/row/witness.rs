//! Who may vouch for a certificate.
//!
//! Two do: a proxy, which verified the other end's certificate when it was called, and an issuer of credentials, in its
//! own log, for who asked it for one. Any other server's log (a database's, a broker's, a login's) says under which name
//! it let somebody in, which may be a password's as well: names, whatever it calls them.
//!
//! An application can print a line that looks like its proxy's, and the shipper ships it like the proxy's. So where the
//! envelope names the container, a proxy log is believed of proxies alone; and where a proxy's own name is of another
//! namespace than the pod that wrote the line, of nobody. What such a line says is kept as bare names, which lead to
//! *watched* at most. An issuer has no name of its own in its log: it is believed of its container in the namespaces that
//! it is installed in.

use qualm_model::{
    event::{EventDraft, Reporter},
    identity::Provenance,
};

use super::{End, Origin, Standing, own_end};

/// Whose word a format is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::parse) enum Voucher {
    /// Only proxies write it.
    Proxy,
    /// Only an issuer of credentials writes it.
    Issuer(&'static Issuer),
    /// The operator's mapping says who calls.
    Operator,
    /// Nobody who verifies certificates for others.
    Nobody,
}

/// An issuer of credentials, as it is installed.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::parse) struct Issuer {
    container: &'static str,
    namespaces: &'static [&'static str],
}

/// SPIRE server, as its quickstart, its charts and its own operator install it.
pub(in crate::parse) const SPIRE: Issuer =
    Issuer { container: "spire-server", namespaces: &["spire", "spire-server", "spire-system", "spire-mgmt"] };
/// The API server, which issues the tokens of service accounts; most write their audit log to a file of the node.
pub(in crate::parse) const API_SERVER: Issuer = Issuer { container: "kube-apiserver", namespaces: &["kube-system"] };

/// The containers of proxies, as the meshes and gateways name them.
const PROXIES: [&str; 14] = [
    "istio-proxy",
    "envoy",
    "linkerd-proxy",
    "ztunnel",
    "consul-dataplane",
    "envoy-sidecar",
    "cilium-agent",
    "cilium-envoy",
    "kuma-sidecar",
    "kuma-gateway",
    "gateway-proxy",
    "api-gateway",
    "ingress-gateway",
    "terminating-gateway",
];

/// Takes from both parties what a certificate says, where the line is of none who may vouch for it. Whether there was
/// anything to take. `place` is where its writer stands, and whether it [is a proxy](is_proxys).
pub(super) fn disown(
    draft: &mut EventDraft<'_>,
    origin: &Origin<'_>,
    place: (Standing, bool),
    voucher: Voucher,
) -> bool {
    let is_verified = [&draft.source, &draft.destination].iter().any(|party| party.provenance.may_enforce());
    if !is_verified || is_vouched_for(draft, origin, place, voucher) {
        return false;
    }
    for party in [&mut draft.source, &mut draft.destination] {
        if party.provenance.may_enforce() {
            party.provenance = Provenance::Name;
        }
    }
    true
}

fn is_vouched_for(
    draft: &EventDraft<'_>,
    origin: &Origin<'_>,
    (standing, is_proxys): (Standing, bool),
    voucher: Voucher,
) -> bool {
    match voucher {
        Voucher::Proxy => is_proxys && is_of_its_namespace(draft, origin, standing),
        Voucher::Issuer(issuer) => {
            (origin.container.is_empty() || origin.container == issuer.container)
                && (origin.namespace.is_empty() || issuer.namespaces.contains(&origin.namespace))
        }
        Voucher::Operator => true,
        Voucher::Nobody => false,
    }
}

/// Whether a proxy wrote the line, as far as is known; `configured` are containers of proxies beside the known ones.
#[inline]
pub(super) fn is_proxys(origin: &Origin<'_>, configured: &[String]) -> bool {
    origin.container.is_empty()
        || PROXIES.contains(&origin.container)
        || configured.iter().any(|proxy| proxy == origin.container)
}

/// Whether the proxy says that it stands where the line was written, as far as is known.
fn is_of_its_namespace(draft: &EventDraft<'_>, origin: &Origin<'_>, standing: Standing) -> bool {
    // A node's proxy has the identities of all its pods.
    if origin.namespace.is_empty() || standing == Standing::Onlooker || draft.reporter == Reporter::Ztunnel {
        return true;
    }
    let own = match own_end(draft.reporter, standing) {
        Some(End::Source) => draft.source.principal,
        Some(End::Destination) => draft.destination.principal,
        None => "",
    };
    let named = [namespace_of(draft.reporter_id), namespace_of_id(own)];
    named.into_iter().flatten().all(|namespace| namespace == origin.namespace)
}

/// The namespace in a SPIFFE ID, or in Istio's `sidecar~10.0.0.1~cart-1.shop~shop.svc.cluster.local`.
fn namespace_of(reporter_id: &str) -> Option<&str> {
    // Most are SPIFFE IDs, in which this is looked for in vain: the quicker the better.
    if memchr::memchr(b'~', reporter_id.as_bytes()).is_none() {
        return namespace_of_id(reporter_id);
    }
    match reporter_id.split('~').nth(2) {
        Some(pod) => pod.rsplit_once('.').map(|(_, namespace)| namespace),
        None => namespace_of_id(reporter_id),
    }
}

/// The namespace in `spiffe://mesh.test/ns/shop/sa/cart`.
fn namespace_of_id(id: &str) -> Option<&str> {
    let before_slash = |text: &str| memchr::memchr(b'/', text.as_bytes());
    let rest = id.strip_prefix("spiffe://")?;
    let path = rest[before_slash(rest)? + 1..].strip_prefix("ns/")?;
    Some(&path[..before_slash(path)?])
}
