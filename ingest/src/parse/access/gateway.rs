//! What gateways report. A gateway is the end of no call: a client calls through it the service behind it (ingress), or
//! a workload something outside (egress), and these are the parties.

use qualm_model::{event::Party, identity::Provenance};

use super::{
    AccessEntry, first_present, host_and_port,
    names::{cluster_host, first_san, is_egress_gateway, is_in_mesh, service_of_host},
};

impl<'a> AccessEntry<'a> {
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
