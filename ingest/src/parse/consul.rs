//! Consul's service mesh: Envoy's access log with Consul's default keys, which are Istio's 24, and Consul's names.
//!
//! `local_app` is the cluster of the service behind an inbound proxy. Any other cluster is an upstream's, named by its
//! server name: `[subset.]service.namespace.[partition.]datacentre.internal[-v1].<id>.consul`. Without identity keys
//! in the format (`downstream_peer_uri_san` …) the caller of an inbound entry is its address.

use std::net::IpAddr;

use super::{
    Row,
    access::{AccessEntry, Direction},
    istio_json::IstioJson,
};
use crate::source::Rejection;

/// The inbound cluster; one for each port of a service that has several: `local_app_8080`.
const LOCAL_APP: &str = "local_app";
/// What every name of Consul's ends in.
const CONSUL: &str = ".consul";

/// Reads lines of Consul's proxies.
#[derive(Debug, Default)]
pub struct Consul {
    envoy: IstioJson,
    /// Whether lines of other proxies, which have the same keys, are somebody else's to read.
    leaves_others: bool,
}

impl Consul {
    /// Lines of other proxies than Consul's are foreign from now on.
    pub(super) fn leave_others(&mut self) {
        self.leaves_others = true;
    }

    /// Reads one line.
    pub fn parse(&mut self, line: &str, row: &mut Row<'_>) -> Result<(), Rejection> {
        let (known, leaves_others) = (row.known(), self.leaves_others);
        self.envoy.read(line, known, |entry, operation| {
            if leaves_others && !is_consuls(&entry) {
                return Err(Rejection::Foreign);
            }
            let direction = direction_of(entry.upstream_cluster);
            let entry = AccessEntry { direction, ..entry };
            let mut draft = entry.draft(operation)?;
            // A name: no certificate of the called was reported.
            let verified = match direction {
                Direction::Inbound => entry.downstream_local_uri_san,
                _ => entry.upstream_peer_uri_san,
            };
            let server = match direction {
                Direction::Outbound => entry.upstream_cluster,
                _ => entry.requested_server_name,
            };
            if let ("", Some(service)) = (verified, service_of(server)) {
                draft.destination.principal = service;
            }
            // An application calls its own proxy on the loopback address, which is everybody's.
            if is_loopback(draft.source.principal) && !draft.source.ip.is_empty() {
                draft.source.principal = draft.source.ip;
            }
            if draft.hostname == "localhost" || is_loopback(draft.hostname) {
                draft.hostname = "";
            }
            row.push(draft)
        })
    }
}

/// Whether a line is of one of Consul's proxies. They name the application behind them `local_app`, and others by names
/// that end in `.consul`. The cluster is the proxy's own word; the server name, which a caller may choose, is asked only
/// where there is none, and nothing else that a caller chooses is.
pub(super) fn is_consuls(entry: &AccessEntry<'_>) -> bool {
    match entry.upstream_cluster {
        "" => entry.requested_server_name.ends_with(CONSUL),
        cluster => cluster.starts_with(LOCAL_APP) || cluster.ends_with(CONSUL),
    }
}

fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn direction_of(cluster: &str) -> Direction {
    let is_local = cluster.strip_prefix(LOCAL_APP).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    match cluster {
        "" => Direction::Unsaid,
        _ if is_local => Direction::Inbound,
        _ => Direction::Outbound,
    }
}

/// The service in a server name of Consul's.
fn service_of(server: &str) -> Option<&str> {
    // What a discovery chain or an escape hatch puts before it.
    let server = server.rsplit_once('~').map_or(server, |(_, server)| server);
    let (names, rest) = [".internal.", ".internal-v1."].iter().find_map(|mark| server.split_once(mark))?;
    if !rest.ends_with(CONSUL) {
        return None;
    }
    let names: Vec<&str> = names.split('.').collect();
    // Between the service and the mark: namespace, partition (not of the default one) and datacentre.
    let after = if server.contains(".internal-v1.") { 3 } else { 2 };
    names.len().checked_sub(after + 1).map(|at| names[at])
}

#[cfg(test)]
mod tests {
    use qualm_model::{
        event::{EventBatch, EventBuilder, Position, Reporter},
        identity::Provenance,
    };

    use super::*;

    const LINE: &str = r#"{"start_time":"2026-11-22T02:02:24.122Z","method":"GET","path":"/v1/orders/42?x=1","protocol":"HTTP/1.1","response_code":200,"duration":2,"downstream_remote_address":"10.0.0.7:32830","downstream_local_address":"10.0.0.9:20000","requested_server_name":"orders.default.dc1.internal.1d9f6a3b.consul","upstream_cluster":"local_app","x_forwarded_for":null,"authority":"orders.virtual.consul"}"#;

    fn parse(line: &str) -> EventBatch {
        let mut builder = EventBuilder::new();
        Consul::default().parse(line, &mut Row::new(&mut builder, Position::default(), None)).expect("an event");
        builder.finish()
    }

    #[test]
    fn the_local_app_is_the_called_and_every_other_cluster_an_upstream() {
        let upstream = LINE.replace("local_app", "v2.orders.default.dc1.internal.1d9f6a3b.consul");
        for (line, reporter) in [(LINE, Reporter::Destination), (&upstream, Reporter::Source)] {
            let batch = parse(line);
            let event = batch.event(0);
            assert_eq!((event.reporter(), event.destination().principal()), (reporter, "orders"));
            assert_eq!((event.source().principal(), event.source().provenance()), ("10.0.0.7", Provenance::Name));
        }
    }

    #[test]
    fn callers_on_the_loopback_address_are_told_apart_by_that_of_their_proxy() {
        let line = LINE
            .replace("local_app", "orders.default.dc1.internal.1d9f6a3b.consul")
            .replace("10.0.0.7:32830", "127.0.0.1:48122")
            .replace("orders.virtual.consul", "localhost:5000")
            .replacen('{', r#"{"upstream_local_address":"10.0.0.7:35430","#, 1);
        let batch = parse(&line);
        assert_eq!((batch.event(0).source().principal(), batch.event(0).hostname()), ("10.0.0.7", ""));
    }

    #[test]
    fn a_reported_certificate_is_better_than_a_name() {
        let ids = r#"{"downstream_peer_uri_san":"spiffe://1d9f6a3b.consul/ns/default/dc/dc1/svc/cart","downstream_local_uri_san":"spiffe://1d9f6a3b.consul/ns/default/dc/dc1/svc/orders","#;
        let batch = parse(&LINE.replacen('{', ids, 1));
        let event = batch.event(0);
        assert_eq!(event.source().principal(), "spiffe://1d9f6a3b.consul/ns/default/dc/dc1/svc/cart");
        assert_eq!(event.source().provenance(), Provenance::Certificate);
        assert_eq!(event.destination().principal(), "spiffe://1d9f6a3b.consul/ns/default/dc/dc1/svc/orders");
    }

    #[test]
    fn server_names_hold_the_service() {
        for (name, service) in [
            ("orders.default.dc1.internal.1d9f6a3b.consul", Some("orders")),
            ("v2.orders.default.dc1.internal.1d9f6a3b.consul", Some("orders")),
            ("orders.default.east.dc1.internal-v1.1d9f6a3b.consul", Some("orders")),
            ("passthrough~orders.default.dc1.internal.1d9f6a3b.consul", Some("orders")),
            ("example.com", None),
            ("dc1.internal.1d9f6a3b.consul", None),
        ] {
            assert_eq!(service_of(name), service, "{name}");
        }
    }
}
