//! The listener as its clients see it, with certificates made for each test.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::{
        discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient,
    },
};
use hyper_util::rt::TokioIo;
use prometheus::Registry;
use qualm_model::time::{Clock, Timestamp};
use qualm_scorer::{
    enforce::{Enforcer, metrics::EnforcementMetrics, nodes::NodeLimits, xds::Xds},
    table::SharedTable,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Uri},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const ORDERS: &str = "spiffe://mesh.test/ns/shop/sa/orders";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key, PEM, with these names.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A listener with xDS behind it, its authority and files.
struct World {
    authority: Authority,
    folder: TempDir,
    address: SocketAddr,
    registry: Registry,
    _table: watch::Sender<SharedTable>,
    _reports: mpsc::Receiver<qualm_scorer::table::EnforcementReport>,
}

impl World {
    async fn start(change: impl FnOnce(&mut ListenConfig)) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let mut config = config(&folder);
        write(&folder, &authority.issue(&["localhost", "spiffe://mesh.test/qualm"]), &authority.0.pem());
        change(&mut config);
        let listener = Listener::prepare(&config).unwrap().unwrap();
        let registry = Registry::new();
        let clock = Clock::new(|| Timestamp::from_seconds(0));
        let xds = Xds::new(NodeLimits::default(), clock, EnforcementMetrics::register(&registry).unwrap());
        let gated = InterceptedService::new(xds.extension_config(), listener.gate(Role::EnforcementPoint));
        let metrics = ListenMetrics::register(&registry).unwrap();
        let bound = listener.bind().await.unwrap();
        let address = bound.address();
        tokio::spawn(bound.serve(Routes::new(gated), metrics, std::future::pending()));
        let (table, receiver) = watch::channel(SharedTable::default());
        let (sender, reports) = mpsc::channel(64);
        tokio::spawn(xds.run(receiver, sender));
        Self { authority, folder, address, registry, _table: table, _reports: reports }
    }

    /// A client whose certificate has these names, from the listener's own authority.
    fn client(&self, names: &[&str]) -> Channel {
        self.client_of(&self.authority, names)
    }

    fn client_of(&self, authority: &Authority, names: &[&str]) -> Channel {
        let (certificate, key) = authority.issue(names);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.0.pem().as_bytes()).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, address) = (TlsConnector::from(Arc::new(config)), self.address);
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect("localhost".try_into().unwrap(), stream).await?))
            }
        });
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
    }
}

fn config(folder: &TempDir) -> ListenConfig {
    ListenConfig {
        address: Some("127.0.0.1:0".parse().unwrap()),
        certificate: Some(folder.path().join("tls.crt")),
        key: Some(folder.path().join("tls.key")),
        client_roots: Some(folder.path().join("ca.crt")),
        enforcement_points: vec!["spiffe://mesh.test/ns/shop/*".to_owned().try_into().unwrap()],
        subscribers: vec!["spiffe://mesh.test/gateway".to_owned().try_into().unwrap()],
        ..ListenConfig::default()
    }
}

fn write(folder: &TempDir, (certificate, key): &(String, String), roots: &str) {
    for (name, text) in [("tls.crt", certificate.as_str()), ("tls.key", key), ("ca.crt", roots)] {
        fs::write(folder.path().join(name), text).unwrap();
    }
}

/// An open stream; what holds it open on the client's side comes with it.
async fn subscribe(channel: Channel, node: &str) -> Result<Open, Status> {
    let (say, requests) = mpsc::channel(1);
    let hello = DeltaDiscoveryRequest {
        node: Some(Node { id: node.into(), ..Node::default() }),
        type_url: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".into(),
        resource_names_subscribe: vec!["*".into()],
        ..DeltaDiscoveryRequest::default()
    };
    say.send(hello).await.unwrap();
    let requests = ReceiverStream::new(requests);
    let mut client = ExtensionConfigDiscoveryServiceClient::new(channel);
    let mut stream =
        timeout(PATIENCE, client.delta_extension_configs(Request::new(requests))).await.unwrap()?.into_inner();
    timeout(PATIENCE, stream.message()).await.unwrap()?.expect("the first push");
    Ok(Open { stream, _say: say })
}

struct Open {
    stream: Streaming<DeltaDiscoveryResponse>,
    _say: mpsc::Sender<DeltaDiscoveryRequest>,
}

async fn refusal(channel: Channel) -> Status {
    subscribe(channel, "n1").await.map(drop).unwrap_err()
}

#[tokio::test]
async fn a_listed_identity_is_served_and_one_that_is_listed_for_something_else_is_told_so() {
    let world = World::start(|_| {}).await;
    subscribe(world.client(&[ORDERS]), "n1").await.unwrap();
    let refused = refusal(world.client(&["spiffe://mesh.test/gateway"])).await;
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("listen.enforcement_points"), "{refused}");
}

#[tokio::test]
async fn certificates_that_name_nobody_or_two_or_come_from_elsewhere_get_no_connection() {
    let world = World::start(|_| {}).await;
    let stranger = Authority::new();
    for client in [
        world.client(&["localhost"]),
        world.client(&[ORDERS, "spiffe://mesh.test/ns/shop/sa/cart"]),
        world.client(&["https://mesh.test/ns/shop/sa/cart"]),
        world.client(&["spiffe://mesh.test/ns/unlisted/sa/cart"]),
        world.client_of(&stranger, &[ORDERS]),
    ] {
        assert!(matches!(refusal(client).await.code(), Code::Unavailable | Code::Unknown));
    }
    subscribe(world.client(&[ORDERS]), "n1").await.unwrap();
}

#[tokio::test]
async fn new_certificate_files_are_taken_up_and_open_streams_go_on() {
    let world = World::start(|_| {}).await;
    let mut open = subscribe(world.client(&[ORDERS]), "n1").await.unwrap();
    // The roots change: who comes from the old authority is no longer let in, but is not thrown out either.
    let next = Authority::new();
    let server = world.authority.issue(&["localhost"]);
    write(&world.folder, &server, &next.0.pem());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(refused) = subscribe(world.client_of(&next, &[ORDERS]), "n2").await {
        assert!(tokio::time::Instant::now() < deadline, "{refused}");
        sleep(Duration::from_millis(100)).await;
    }
    refusal(world.client(&[ORDERS])).await;
    let quiet = timeout(Duration::from_millis(300), open.stream.message()).await;
    assert!(quiet.is_err(), "still open, nothing to say");
}

#[tokio::test]
async fn broken_certificate_files_leave_the_ones_before_in_force() {
    let world = World::start(|_| {}).await;
    fs::write(world.folder.path().join("tls.key"), "half of a ke").unwrap();
    let seen = || {
        let metrics = world.registry.gather();
        let failures = metrics.iter().find(|metric| metric.name().ends_with("certificate_reload_failures_total"));
        failures.is_some_and(|metric| metric.get_metric()[0].get_counter().get_value() > 0.0)
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !seen() {
        assert!(tokio::time::Instant::now() < deadline, "nobody looked at the files");
        sleep(Duration::from_millis(50)).await;
    }
    subscribe(world.client(&[ORDERS]), "n1").await.unwrap();
}

#[tokio::test]
async fn an_identity_has_only_so_many_connections_and_a_closed_one_makes_room() {
    let world = World::start(|config| config.connections_per_peer = 1).await;
    let first = subscribe(world.client(&[ORDERS]), "n1").await.unwrap();
    refusal(world.client(&[ORDERS])).await;
    subscribe(world.client(&["spiffe://mesh.test/ns/shop/sa/cart"]), "n2").await.unwrap();
    drop(first);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while subscribe(world.client(&[ORDERS]), "n1").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the place was never given back");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_stalls_the_handshake_is_let_go_and_others_are_served_meanwhile() {
    let world = World::start(|config| config.handshake_timeout_s = 1).await;
    let stalled = TcpStream::connect(world.address).await.unwrap();
    subscribe(world.client(&[ORDERS]), "n1").await.unwrap();
    let mut byte = [0];
    let ended = timeout(PATIENCE, async {
        stalled.readable().await.unwrap();
        stalled.try_read(&mut byte)
    });
    assert!(matches!(ended.await.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn on_loopback_without_tls_by_explicit_setting_all_are_served() {
    let world = World::start(|config| {
        *config = ListenConfig { address: config.address, plaintext_loopback: true, ..ListenConfig::default() }
    })
    .await;
    let channel = Endpoint::from_shared(format!("http://{}", world.address)).unwrap().connect_lazy();
    subscribe(channel, "n1").await.unwrap();
}

#[test]
fn a_wrong_section_is_refused_with_the_key_and_the_remedy_before_any_port_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    write(&folder, &authority.issue(&["localhost"]), &authority.0.pem());
    let good = config(&folder);
    assert!(Listener::prepare(&good).unwrap().is_some());
    let absent = folder.path().join("absent.pem");
    let other_key = folder.path().join("other.key");
    fs::write(&other_key, authority.issue(&["x"]).1).unwrap();
    let no_pem = folder.path().join("no.pem");
    fs::write(&no_pem, "hello").unwrap();
    let path = |path: &PathBuf| Some(path.clone());
    let everywhere = Some("0.0.0.0:0".parse().unwrap());
    let plain = ListenConfig { address: good.address, plaintext_loopback: true, ..ListenConfig::default() };
    for (config, words) in [
        (ListenConfig { certificate: None, ..good.clone() }, ["listen.certificate", "plaintext_loopback"]),
        (ListenConfig { certificate: path(&absent), ..good.clone() }, ["absent.pem", "may read"]),
        (ListenConfig { certificate: path(&no_pem), ..good.clone() }, ["no.pem", "PEM form"]),
        (ListenConfig { key: path(&other_key), ..good.clone() }, ["other.key", "must be the key of"]),
        (ListenConfig { client_roots: path(&no_pem), ..good.clone() }, ["client_roots", "no.pem"]),
        (ListenConfig { address: everywhere, ..plain.clone() }, ["no loopback address", "127.0.0.1"]),
        (ListenConfig { key: path(&other_key), ..plain }, ["listen.key", "remove one"]),
        (ListenConfig { collectors: good.subscribers.clone(), ..good.clone() }, ["listen.collectors", "in both"]),
        (ListenConfig { connections: 0, ..good }, ["listen.connections", "1 or more"]),
    ] {
        let error = Listener::prepare(&config).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    assert!(Listener::prepare(&ListenConfig::default()).unwrap().is_none());
}

#[test]
fn an_unknown_key_in_the_section_is_refused() {
    assert!(toml::from_str::<ListenConfig>("adress = \"127.0.0.1:1\"").is_err());
    let error = toml::from_str::<ListenConfig>("reporters = [\"cart\"]").unwrap_err().to_string();
    assert!(error.contains("expected spiffe://"), "{error}");
}
