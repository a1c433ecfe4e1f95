//! Better names for parties that are known by an address or a pod: one that stays the same when a pod is restarted, and
//! when somebody outside comes from the next address of the same provider.

use std::net::IpAddr;

use qualm_model::{
    event::{EventDraft, Kind, Party, Reporter},
    identity::{external, probe, workload_of_pod},
};

use super::{End, Origin, clip};

/// The longest text that is an address: one of IPv4 within IPv6.
const MAX_ADDRESS_BYTES: usize = 45;

/// A better name of the caller. What it says of itself (its user agent) has no part in it.
pub(super) fn of_source(draft: &EventDraft<'_>, origin: &Origin<'_>, own: Option<End>) -> Option<String> {
    let is_own = own == Some(End::Source);
    let Some(address) = address(draft.source.principal) else { return of_pod(&draft.source) };
    let named = if is_own { of_origin(origin) } else { None };
    // The proxy of a caller that asks for a probe's path is no probe.
    let may_probe = draft.kind == Kind::Request && draft.reporter != Reporter::Source;
    named.or_else(|| external(address)).or_else(|| if may_probe { probe(address, draft.operation) } else { None })
}

/// A better name of the called.
pub(super) fn of_destination(draft: &EventDraft<'_>, origin: &Origin<'_>, own: Option<End>) -> Option<String> {
    let is_own = own == Some(End::Destination);
    let Some(address) = address(draft.destination.principal) else { return of_pod(&draft.destination) };
    let named = if is_own { of_origin(origin) } else { None };
    named.or_else(|| external(address))
}

/// `cart.shop` of the pod `cart-7d6c6c7775-49tpt.shop`: the same workload after every restart.
fn of_pod(party: &Party<'_>) -> Option<String> {
    let namespace = party.principal.strip_prefix(party.instance)?.strip_prefix('.')?;
    let workload = workload_of_pod(party.instance);
    (!party.instance.is_empty() && workload.len() < party.instance.len()).then(|| format!("{workload}.{namespace}"))
}

/// The workload that wrote the record.
fn of_origin(origin: &Origin<'_>) -> Option<String> {
    let workload = if origin.pod.is_empty() { origin.owner } else { workload_of_pod(origin.pod) };
    let is_known = !workload.is_empty() && !origin.namespace.is_empty();
    is_known.then(|| format!("{}.{}", clip(workload), clip(origin.namespace)))
}

#[inline]
fn address(principal: &str) -> Option<IpAddr> {
    let first = principal.as_bytes().first()?;
    let is_like_one = first.is_ascii_hexdigit() || *first == b':';
    if is_like_one && principal.len() <= MAX_ADDRESS_BYTES { principal.parse().ok() } else { None }
}
