//! Attacks through the platform: secrets, grants, roles, and the identity as a way for others.

use super::plan::Plan;
use crate::{
    calendar::SECOND,
    mesh::{Kind, Operation, ServiceId},
    traffic::{Answer, Step, Train},
};

impl Plan<'_> {
    /// Lists Vault's mounts, then reads the secrets of one service after another; its policy refuses most.
    pub(super) fn secrets_harvest(&mut self) -> Option<Train> {
        let vault = self.mesh.of_kind(Kind::Vault).next()?;
        let owners: Vec<ServiceId> = self.mesh.ids().filter(|&id| id != self.actor).collect();
        let mut operations = vec![Operation::http(vault, "GET", "/v1/sys/mounts")];
        for owner in self.stream.sample(&owners, 40) {
            let owner = self.mesh.service(owner);
            let path = format!("/v1/secret/data/{}/{}", owner.namespace, owner.name);
            operations.push(Operation::http(vault, "GET", &path));
        }
        let train = self.through(operations, 60.0, 2 * SECOND);
        Some(Train { answer: Answer::Mostly(403, 0.35), ..train })
    }

    /// Asks for its own rights, then for every kind of object in every namespace.
    pub(super) fn privilege_enumeration(&mut self) -> Option<Train> {
        let api = self.mesh.of_kind(Kind::Kubernetes).next()?;
        let mut operations = vec![
            Operation::http(api, "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"),
            Operation::http(api, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
            Operation::http(api, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
        ];
        for namespace in ["kube-system", "security", "data", "pay"] {
            for resource in ["secrets", "pods", "serviceaccounts", "configmaps"] {
                let path = format!("/api/v1/namespaces/{namespace}/{resource}");
                operations.push(Operation::http(api, "GET", &path));
            }
        }
        let train = self.through(operations, 60.0, SECOND);
        Some(Train { answer: Answer::Mostly(403, 0.15), ..train })
    }

    /// Token exchange, a service it never calls, token exchange, the next one.
    pub(super) fn role_chain(&mut self) -> Option<Train> {
        let issuer = self.mesh.of_kind(Kind::Issuer).next()?;
        let exchange = self.mesh.add_operation(Operation::http(issuer, "POST", "/oauth/token/exchange"));
        let strangers = self.mesh.strangers(self.actor, Kind::Api);
        let mut steps = Vec::new();
        for destination in self.stream.sample(&strangers, 5) {
            let operation = *self.mesh.service(destination).operations.first()?;
            steps.push(Step { destination: issuer, operation: exchange });
            steps.extend([Step { destination, operation }; 3]);
        }
        (!steps.is_empty()).then(|| self.calls(40.0, 5 * SECOND, steps))
    }

    /// The everyday calls of a dozen other services, made under the actor's identity.
    pub(super) fn internal_proxy(&mut self) -> Option<Train> {
        let strangers = self.mesh.strangers(self.actor, Kind::Api);
        let relayed = self.stream.sample(&strangers, 12);
        let steps: Vec<_> = relayed
            .into_iter()
            .flat_map(|destination| {
                let operations = self.mesh.service(destination).operations.clone();
                let asked = self.stream.sample(&operations, 3);
                asked.into_iter().map(move |operation| Step { destination, operation })
            })
            .collect();
        let steps = self.stream.sample(&steps, steps.len());
        (!steps.is_empty()).then(|| self.calls(240.0, 2 * SECOND, steps))
    }

    /// About `count` calls through operations of one service.
    fn through(&mut self, operations: Vec<Operation>, count: f64, gap: i64) -> Train {
        let steps = operations
            .into_iter()
            .map(|operation| Step { destination: operation.service, operation: self.mesh.add_operation(operation) })
            .collect();
        self.calls(count, gap, steps)
    }
}
