//! The trust stream as an enforcement point sees it: the real client, or a raw one, against the real service.
#![allow(clippy::unwrap_used)] // Tests, and what only they call.

use std::{sync::Arc, time::Duration};

use prometheus::Registry;
use qualm_model::{
    identity::Peer,
    level::Level,
    time::{Clock, Span, Timestamp},
};
use qualm_proto::trust::v1::{
    Acknowledgement, Coverage as CoverageRecord, Level as WireLevel, Mode, SubscribeRequest, Subscription, TrustUpdate,
    subscribe_request::Message, trust_stream_client::TrustStreamClient,
};
use qualm_scorer::{
    enforce::{
        Enforcer,
        metrics::EnforcementMetrics,
        nodes::NodeLimits,
        trust_client::{HeldTable, TrustClient},
        trust_stream::{TrustStream, record::Coverage},
    },
    table::{Enforcement, EnforcementReport, Object, SharedTable, Subject, TrustEntry, TrustTable},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Code, Request, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint, Server},
};

const PATIENCE: Duration = Duration::from_secs(20);
const START: i64 = 1_000_000;
const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
const BANK: &str = "spiffe://mesh.test/ns/bank/sa/ledger";

struct World {
    table: watch::Sender<SharedTable>,
    reports: mpsc::Receiver<EnforcementReport>,
    address: std::net::SocketAddr,
    /// Of its own, so that it can die as a process does: with all its connections.
    server: Option<Runtime>,
    _coverage: watch::Sender<Coverage>,
}

fn loopback(mut request: Request<()>) -> Result<Request<()>, Status> {
    request.extensions_mut().insert(Peer::Loopback);
    Ok(request)
}

impl World {
    async fn start(first: TrustTable) -> Self {
        Self::start_at("127.0.0.1:0", first).await
    }

    async fn start_at(address: &str, first: TrustTable) -> Self {
        let clock = Clock::new(|| Timestamp::from_seconds(START));
        let (coverage_sender, coverage) = watch::channel(Coverage { enforcing: 2, reporting: 3 });
        let metrics = EnforcementMetrics::register(&Registry::new()).unwrap();
        let stream = TrustStream::new(NodeLimits::default(), clock, coverage, metrics);
        let server = Runtime::new().unwrap();
        let bind = TcpListener::bind(address.to_owned());
        let listener = server.spawn(bind).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let service = InterceptedService::new(stream.service(), loopback);
        let (table, receiver) = watch::channel(Arc::new(first));
        let (sender, reports) = mpsc::channel(256);
        server.spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        server.spawn(stream.run(receiver, sender));
        Self { table, reports, address, server: Some(server), _coverage: coverage_sender }
    }

    /// Returns once the server's tasks are gone, and with them its listener: only then is the address free again.
    async fn die(&mut self) {
        if let Some(server) = self.server.take() {
            spawn_blocking(move || server.shutdown_timeout(PATIENCE)).await.unwrap();
        }
    }

    fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    fn set(&self, version: u64, entries: Vec<TrustEntry>) {
        self.table.send_replace(Arc::new(table(version, entries)));
    }

    async fn answer(&mut self) -> (u64, Enforcement) {
        loop {
            let report = timeout(PATIENCE, self.reports.recv()).await.unwrap().unwrap();
            assert_eq!((report.enforcer.as_str(), report.node.as_str()), ("trust-stream", "gw"));
            if !matches!(report.what, Enforcement::Connected | Enforcement::Disconnected) {
                return (report.version, report.what);
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

/// A subscriber that answers by hand.
struct Raw {
    say: mpsc::Sender<SubscribeRequest>,
    hear: Streaming<TrustUpdate>,
}

impl Raw {
    async fn subscribe(world: &World, subscription: Subscription) -> Self {
        let (say, requests) = mpsc::channel(16);
        say.send(request(Message::Subscription(subscription))).await.unwrap();
        let mut client = TrustStreamClient::new(world.channel());
        Self { say, hear: client.subscribe(ReceiverStream::new(requests)).await.unwrap().into_inner() }
    }

    async fn next(&mut self) -> TrustUpdate {
        timeout(PATIENCE, self.hear.message()).await.expect("an update in time").unwrap().expect("an open stream")
    }

    async fn answer(&self, version: u64, rejection: Option<&str>) {
        let rejection = rejection.map(Into::into);
        self.say.send(request(Message::Acknowledgement(Acknowledgement { version, rejection }))).await.unwrap();
    }
}

fn request(message: Message) -> SubscribeRequest {
    SubscribeRequest { message: Some(message) }
}

fn gateway() -> Subscription {
    Subscription { node: "gw".into(), ..Subscription::default() }
}

fn table(version: u64, entries: Vec<TrustEntry>) -> TrustTable {
    TrustTable { version, entries, model_version: "m1".into(), ..TrustTable::default() }
}

fn entry(principal: &str, level: Level) -> TrustEntry {
    let start = Timestamp::from_seconds(START);
    TrustEntry {
        decision: format!("d-{level}"),
        subject: Subject { principal: principal.into(), cluster: None, workload: None, instance: None },
        object: Object::Any,
        level,
        enforce: true,
        decided: start,
        expires: start + Span::seconds(600),
        evidence_bits: 30.5,
        co_owners: Vec::new(),
        reason: "called 14 services it never called".into(),
        known: None,
    }
}

#[tokio::test]
async fn a_subscriber_gets_the_whole_table_then_only_what_changes_and_each_answer_is_reported() {
    let mut world = World::start(table(1, vec![entry(CART, Level::Quarantined)])).await;
    let mut raw = Raw::subscribe(&world, gateway()).await;
    let first = raw.next().await;
    assert_eq!((first.version, first.full, first.upserts.len()), (1, true, 1));
    let record = &first.upserts[0];
    assert_eq!((record.principal.as_str(), record.level()), (CART, WireLevel::Quarantined));
    assert_eq!((record.mode(), record.evidence_bits), (Mode::Enforce, 30.5));
    assert_eq!(record.remaining.map(|rest| rest.seconds), Some(600));
    assert_eq!(record.coverage, Some(CoverageRecord { enforcing: 2, reporting: 3 }));
    assert_eq!((record.model_version.as_str(), record.decision_id.as_str()), ("m1", "d-quarantined"));
    raw.answer(1, None).await;
    assert_eq!(world.answer().await, (1, Enforcement::Acknowledged));

    world.set(2, vec![entry(BANK, Level::Watched), entry(CART, Level::Quarantined)]);
    let second = raw.next().await;
    assert_eq!((second.full, second.upserts.len(), second.removals.len()), (false, 1, 0));
    assert_eq!(second.upserts[0].principal, BANK);
    raw.answer(2, None).await;
    assert_eq!(world.answer().await, (2, Enforcement::Acknowledged));

    world.set(3, vec![entry(BANK, Level::Restricted)]);
    let third = raw.next().await;
    assert_eq!((third.upserts.len(), third.upserts[0].key == second.upserts[0].key), (1, true));
    assert_eq!(third.removals, std::slice::from_ref(&record.key));
}

#[tokio::test]
async fn what_was_not_subscribed_to_is_not_sent_but_every_version_is_told_of() {
    let both = vec![entry(BANK, Level::Watched), entry(CART, Level::Watched)];
    let world = World::start(table(1, both)).await;
    let shop = Subscription { namespaces: vec!["shop".into()], trust_domains: vec!["mesh.test".into()], ..gateway() };
    let mut raw = Raw::subscribe(&world, shop).await;
    let first = raw.next().await;
    assert_eq!(first.upserts.iter().map(|record| record.principal.as_str()).collect::<Vec<_>>(), [CART]);
    world.set(2, vec![entry(BANK, Level::Restricted), entry(CART, Level::Watched)]);
    let second = raw.next().await;
    assert_eq!((second.version, second.upserts.len() + second.removals.len()), (2, 0));
    let elsewhere = Subscription { trust_domains: vec!["other.test".into()], ..gateway() };
    assert_eq!(Raw::subscribe(&world, elsewhere).await.next().await.upserts, []);
}

#[tokio::test]
async fn after_a_rejection_the_next_version_is_sent_whole() {
    let mut world = World::start(table(1, vec![entry(CART, Level::Watched)])).await;
    let mut raw = Raw::subscribe(&world, gateway()).await;
    raw.next().await;
    raw.answer(1, Some("no such service")).await;
    assert_eq!(world.answer().await, (1, Enforcement::Rejected("no such service".into())));
    world.set(2, vec![entry(BANK, Level::Watched), entry(CART, Level::Watched)]);
    let second = raw.next().await;
    assert_eq!((second.full, second.upserts.len()), (true, 2));
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_subscription_or_asks_for_too_much_is_refused() {
    let world = World::start(table(1, vec![])).await;
    let acknowledgement = Message::Acknowledgement(Acknowledgement::default());
    let greedy = Subscription { namespaces: vec![String::new(); 1_025], ..gateway() };
    let nameless = Subscription::default();
    for first in [acknowledgement, Message::Subscription(greedy), Message::Subscription(nameless)] {
        let (say, requests) = mpsc::channel(1);
        say.send(request(first)).await.unwrap();
        let mut client = TrustStreamClient::new(world.channel());
        let mut hear = client.subscribe(ReceiverStream::new(requests)).await.unwrap().into_inner();
        let refused = timeout(PATIENCE, hear.message()).await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
}

/// The client, and what it has put in force.
fn follow(world: &World, refuse: u64) -> (watch::Receiver<HeldTable>, JoinHandle<()>) {
    let (sender, held) = watch::channel(HeldTable::default());
    let client = TrustClient::new(world.channel(), gateway());
    let task = tokio::spawn(async move {
        let apply = |next: &HeldTable| {
            if next.version() == refuse {
                return Err("not this one".to_owned());
            }
            sender.send_replace(next.clone());
            Ok(())
        };
        match client.follow(apply).await {}
    });
    (held, task)
}

async fn reach(held: &mut watch::Receiver<HeldTable>, version: u64) -> HeldTable {
    timeout(PATIENCE, held.wait_for(|held| held.version() == version)).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn the_client_keeps_the_table_and_acknowledges_or_rejects_each_version() {
    let mut world = World::start(table(1, vec![entry(CART, Level::Quarantined)])).await;
    let (mut held, task) = follow(&world, 2);
    let now = Instant::now();
    let first = reach(&mut held, 1).await;
    assert_eq!(first.of(CART, "10.0.0.7", now).map(|record| record.level()), Some(WireLevel::Quarantined));
    assert_eq!(first.of(BANK, "10.0.0.7", now), None);
    let after_the_lease = Instant::now() + Duration::from_secs(601);
    assert_eq!(first.of(CART, "10.0.0.7", after_the_lease), None, "a lease ends without anybody's word");
    assert_eq!(world.answer().await, (1, Enforcement::Acknowledged));
    world.set(2, vec![]);
    assert_eq!(world.answer().await, (2, Enforcement::Rejected("not this one".into())));
    assert_eq!(held.borrow().version(), 1, "what was held before stands");
    world.set(3, vec![entry(BANK, Level::Watched)]);
    let third = reach(&mut held, 3).await;
    assert_eq!(third.of(CART, "", Instant::now()), None);
    assert_eq!(third.of(BANK, "", Instant::now()).map(|record| record.level()), Some(WireLevel::Watched));
    task.abort();
}

#[tokio::test]
async fn an_instance_is_meant_by_its_address_and_the_highest_record_counts() {
    let mut one = entry(CART, Level::Quarantined);
    one.subject.instance = Some("10.0.0.7".into());
    let world = World::start(table(1, vec![entry(CART, Level::Watched), one])).await;
    let (mut held, task) = follow(&world, 0);
    let held = reach(&mut held, 1).await;
    let level = |address| held.of(CART, address, Instant::now()).map(|record| record.level());
    assert_eq!((level("10.0.0.7"), level("10.0.0.8")), (Some(WireLevel::Quarantined), Some(WireLevel::Watched)));
    task.abort();
}

#[tokio::test]
async fn the_client_comes_back_when_the_connection_is_lost_and_gets_the_whole_table() {
    let mut world = World::start(table(1, vec![entry(CART, Level::Watched)])).await;
    let (mut held, task) = follow(&world, 0);
    reach(&mut held, 1).await;
    let address = world.address.to_string();
    world.die().await;
    assert!(held.borrow().of(CART, "", Instant::now()).is_some(), "it stands while nobody is there");
    let _again = World::start_at(&address, table(9, vec![entry(BANK, Level::Watched)])).await;
    let held = reach(&mut held, 9).await;
    assert_eq!(held.of(CART, "", Instant::now()), None);
    task.abort();
}
