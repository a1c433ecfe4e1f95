//! What gateways report. A gateway is the end of no call: a client calls through it the service behind it (ingress), or
//! a workload something outside (egress), and these are the parties.

use qualm_model::{event::Party, identity::Provenance};

use super::{
    AccessEntry, first_present, host_and_port,
    names::{cluster_host, first_san, is_egress_gateway, is_in_mesh, service_of_host},
};
use crate::parse::access::Direction;

/// What the clusters of calls to a service are named like, whoever calls.
const OUTBOUND_CLUSTER: &str = "outbound|";
/// What is in the names of the pods of Istio's own gateways.
const GATEWAY_PODS: [&str; 6] =
    ["ingressgateway", "egressgateway", "ingress-gateway", "egress-gateway", "istio-ingress-", "istio-egress-"];

/// Where the proxy stands in the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// Before the called.
    Inbound,
    /// Behind the caller.
    Outbound,
    /// Between a client and a service, or a workload and something outside.
    Gateway,
}

impl<'a> AccessEntry<'a> {
    pub(super) fn seat(&self) -> Seat {
        if self.is_gateway() {
            return Seat::Gateway;
        }
        if self.is_outbound() { Seat::Outbound } else { Seat::Inbound }
    }

    /// Istio's gateways, whatever they are the way to: by their node id, or what Istio's own log format has instead.
    pub(super) fn is_gateway(&self) -> bool {
        if !self.node_id.is_empty() {
            return self.node_id.starts_with("router~");
        }
        // Whoever has verified who calls, and passes it on to somebody else, is the end of no call.
        if !self.downstream_peer_uri_san.is_empty() && self.upstream_cluster.starts_with(OUTBOUND_CLUSTER) {
            return true;
        }
        let has_cluster = !matches!(self.upstream_cluster, "" | "-");
        if self.direction != Direction::Unsaid || has_cluster && !self.upstream_cluster.starts_with(OUTBOUND_CLUSTER) {
            return false;
        }
        self.is_called_itself() || !self.pod.is_empty() && is_gateway_pod(self.pod)
    }

    /// Whether it was called at the address that it calls from, by somebody else: a sidecar is called at its service's
    /// address, and by its own pod.
    fn is_called_itself(&self) -> bool {
        if self.upstream_local_address.is_empty() || self.downstream_local_address.is_empty() {
            return false;
        }
        let own = host_and_port(self.upstream_local_address).0;
        !own.is_empty()
            && host_and_port(self.downstream_local_address).0 == own
            && host_and_port(self.caller_address()).0 != own
    }

    /// The caller: by its certificate, or else by the address that the gateway takes for the client's. That applies
    /// the hops it is configured to trust, so that it is never simply what `x-forwarded-for` says.
    pub(super) fn source_of_gateway(&self) -> Party<'a> {
        let (ip, port) = host_and_port(self.direct_address());
        let san = first_san(self.downstream_peer_uri_san);
        if !san.is_empty() {
            return Party { principal: san, provenance: Provenance::Certificate, ip, port, ..Party::default() };
        }
        let client = first_present([self.downstream_remote_address, self.downstream_direct_remote_address]);
        Party { principal: host_and_port(client).0, ip, port, ..Party::default() }
    }

    /// What is behind the gateway: a workload by its certificate, the service of the route, or for a caller from
    /// within the mesh what it asked for outside.
    pub(super) fn destination_of_gateway(&self) -> Party<'a> {
        let (ip, port) = host_and_port(self.upstream_host);
        let san = first_san(self.upstream_peer_uri_san);
        if san.starts_with("spiffe://") {
            return Party { principal: san, provenance: Provenance::Certificate, ip, port, ..Party::default() };
        }
        let route = cluster_host(self.upstream_cluster);
        let is_egress = !self.downstream_peer_uri_san.is_empty() && !is_in_mesh(route);
        let names = if is_egress { [self.hostname(), route, ip] } else { [route, self.hostname(), ip] };
        Party { principal: service_of_host(first_present(names)), ip, port, ..Party::default() }
    }

    /// What a workload calls through an egress gateway, as that names it too. Which gateway it is says the route, not
    /// the caller: what is asked for is believed of no other.
    pub(super) fn beyond_egress(&self) -> Option<Party<'a>> {
        let outside = self.hostname();
        let is_beyond =
            !outside.is_empty() && !is_in_mesh(outside) && is_egress_gateway(cluster_host(self.upstream_cluster));
        is_beyond.then(|| Party { principal: outside, ..Party::default() })
    }
}

/// Whether a pod is one of Istio's own gateways, by its name: what else calls itself a gateway may be an application
/// with a sidecar.
fn is_gateway_pod(pod: &str) -> bool {
    GATEWAY_PODS.iter().any(|name| pod.contains(name))
}
