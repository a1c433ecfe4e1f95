//! What grows around a mesh: Vault and the Kubernetes API, and who calls them.

use std::net::Ipv4Addr;

use super::{Edge, Kind, Mesh, Operation, OperationId, Pattern, Service, ServiceId, instance, mix};
use crate::{
    calendar::Millis,
    random::{Purpose, Stream},
};

impl Mesh {
    /// Adds Vault and the Kubernetes API server after all services there are, so that everything else stays as it is.
    ///
    /// Three of four APIs and workers read their secrets and renew their token at Vault; one of four asks the
    /// Kubernetes API for endpoints and configuration. Both are slow edges: a call every two to twenty minutes.
    pub(crate) fn add_platform(&mut self) {
        let mut stream = Stream::new(self.config.seed, Purpose::Platform, 0);
        let vault = self.add_platform_service(Kind::Vault, "security", "vault", 8200);
        let kubernetes = self.add_platform_service(Kind::Kubernetes, "kube-system", "kube-apiserver", 6443);
        let renew = self.add_operation(Operation::http(vault, "POST", "/v1/auth/token/renew-self"));
        let login = self.add_operation(Operation::http(vault, "POST", "/v1/auth/approle/login"));
        self.services[vault.0 as usize].operations = vec![renew, login];
        let callers: Vec<ServiceId> =
            self.ids().filter(|&id| matches!(self.service(id).kind, Kind::Api | Kind::Worker | Kind::Cron)).collect();
        for caller in callers {
            let (namespace, name) = (self.service(caller).namespace, self.service(caller).name.clone());
            if stream.chance(0.75) {
                let path = format!("/v1/secret/data/{namespace}/{name}");
                let read = self.add_operation(Operation::http(vault, "GET", &path));
                self.services[vault.0 as usize].operations.push(read);
                self.add_slow_edge(&mut stream, caller, vault, &[read, renew, login]);
            }
            if stream.chance(0.25) {
                let [endpoints, maps] = ["endpoints", "configmaps"].map(|resource| {
                    let path = format!("/api/v1/namespaces/{namespace}/{resource}");
                    self.add_operation(Operation::http(kubernetes, "GET", &path))
                });
                self.services[kubernetes.0 as usize].operations.extend([endpoints, maps]);
                self.add_slow_edge(&mut stream, caller, kubernetes, &[endpoints, maps]);
            }
        }
    }

    fn add_slow_edge(
        &mut self,
        stream: &mut Stream,
        source: ServiceId,
        destination: ServiceId,
        operations: &[OperationId],
    ) {
        self.edges.push(Edge {
            source,
            destination,
            mix: mix(operations),
            pattern: Pattern::Steady { rate: 1.0 / stream.between(120.0, 1_200.0) },
            failure: 5e-4,
            born: Millis(i64::MIN),
            gone: Millis(i64::MAX),
            since_minor: 0,
        });
    }

    fn add_platform_service(&mut self, kind: Kind, namespace: &'static str, name: &str, port: u16) -> ServiceId {
        let number = self.services.len() as u32;
        let id = self.add_service(Service {
            name: name.to_owned(),
            namespace,
            spiffe_id: format!("spiffe://{}/ns/{namespace}/sa/{name}", super::TRUST_DOMAIN),
            kind,
            port,
            address: Ipv4Addr::from(0x0a80_0000 | number),
            minor: 1,
            runtime: 0,
            replicas: Vec::new(),
            operations: Vec::new(),
        });
        for replica in 0..3 {
            let replica = instance(self, id, 1, replica);
            let replica = self.add_instance(replica);
            self.services[id.0 as usize].replicas.push(replica);
        }
        id
    }
}
