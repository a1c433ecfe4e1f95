//! Users outside: their requests at the ingress gateways.

use std::net::Ipv4Addr;

use super::{Edge, Holding, Instance, Kind, Mesh, Operation, Pattern, Protocol, Service, instance, mix};
use crate::{
    calendar::Millis,
    random::{Purpose, Stream},
};

/// A gateway asks about so many services for one request.
const FAN_OUT: f64 = 2.5;
/// Browsers and apps: user agent, JA4.
const CLIENTS: [(&str, &str); 3] = [
    ("Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0", "t13d1717h2_5b57614c22b0_3cbfd9057e0d"),
    ("Mozilla/5.0 (Windows NT 10.0) Chrome/142.0", "t13d1516h2_8daaf6152771_d8a2da3f94cd"),
    ("ShopApp/7.3 (iOS 26.1)", "t13d2014h2_a09f3c656075_14788d8d241b"),
];

impl Mesh {
    /// Adds the users after all services there are: 256 addresses in 203.0.113.0/24, without certificates, whose
    /// requests are what the gateways answer by calling the mesh.
    pub(crate) fn add_users(&mut self) {
        let mut stream = Stream::new(self.config.seed, Purpose::Users, 0);
        let users = self.add_service(Service {
            name: "internet".to_owned(),
            namespace: "",
            spiffe_id: String::new(),
            kind: Kind::Client,
            port: 0,
            address: Ipv4Addr::UNSPECIFIED,
            minor: 0,
            runtime: 0,
            replicas: Vec::new(),
            operations: Vec::new(),
        });
        for last in 0..=255 {
            let (agent, ja4) = CLIENTS[stream.below(CLIENTS.len())];
            let user = Instance {
                address: Ipv4Addr::new(203, 0, 113, last),
                user_agent: agent.to_owned(),
                ja4,
                holding: Holding::Nothing,
                ..instance(self, users, 0, u32::from(last))
            };
            let user = self.add_instance(user);
            self.services[users.0 as usize].replicas.push(user);
        }
        let gateways: Vec<_> = self.of_kind(Kind::Gateway).collect();
        for gateway in gateways {
            let own = self.edges.iter().filter(|edge| edge.source == gateway);
            let rate: f64 =
                own.clone().map(|edge| if let Pattern::Steady { rate } = edge.pattern { rate } else { 0.0 }).sum();
            let asked: Vec<Operation> = own
                .flat_map(|edge| edge.mix.iter().map(|&(_, operation)| self.operation(operation)))
                .filter(|operation| operation.protocol == Protocol::Http && operation.host.is_none())
                .map(|operation| {
                    let mut public = operation.clone();
                    public.service = gateway;
                    public.path.insert(0, super::Segment::Literal("/api".into()));
                    public.duration.median *= 3.0;
                    public
                })
                .collect();
            let operations: Vec<_> = asked.into_iter().map(|operation| self.add_operation(operation)).collect();
            if operations.is_empty() || rate <= 0.0 {
                continue;
            }
            self.services[gateway.0 as usize].operations.extend(&operations);
            self.edges.push(Edge {
                source: users,
                destination: gateway,
                mix: mix(&operations),
                pattern: Pattern::Steady { rate: rate / FAN_OUT },
                failure: 5e-4,
                born: Millis(i64::MIN),
                gone: Millis(i64::MAX),
                since_minor: 0,
            });
        }
    }
}
