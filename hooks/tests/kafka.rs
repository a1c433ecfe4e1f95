//! Kafka, the real one, with its authorizer and TLS: a principal is denied what it was allowed, or slowed down, and given
//! back exactly that.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and what was measured is told"
)]

#[path = "../../tests/support/kafka.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod kafka;
mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use kafka::{Kafka, Shown, block_on};
use qualm_hooks::{config::HookConfig, effect::Stored, hook::Hook, order::Order};
use qualm_model::{level::Level, time::Clock};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    producer::{FutureProducer, FutureRecord},
    types::RDKafkaErrorCode,
};
// What the brokers' own file stands on.
use support::{
    account,
    engine::{Running, run_child},
    now, order,
    parts::{self, Part, present},
    ports, process, until, wait,
};

#[test]
#[ignore = "a child of other tests"]
fn child() {
    run_child();
}

struct Cluster {
    folder: PathBuf,
    port: u16,
    kafka: Kafka,
}

/// Files of one authority in a folder: `ca.pem`, and of each name its `.pem` and `.key`.
fn write_certificates(folder: &Path, names: &[&str]) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for name in names {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, *name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        fs::write(folder.join(format!("{name}.both")), key.serialize_pem() + &certificate.pem()).unwrap();
    }
}

impl Cluster {
    fn start(folder: &Path) -> Self {
        write_certificates(folder, &["broker", "qualm", "cart", "web", "nobody"]);
        let port = ports::free();
        let shown = Shown { identity: &folder.join("broker.both"), roots: &folder.join("ca.pem") };
        let kafka = Kafka::start_secured(folder, port, &shown);
        let cluster = Self { folder: folder.to_owned(), port, kafka };
        for topic in ["orders", "mails"] {
            cluster.kafka.create_topic(topic, 1);
        }
        // The least rights, as docs/hooks.md has them, and two that may write.
        cluster.acls("--add --allow-principal User:qualm --cluster --operation Describe --operation Alter --operation DescribeConfigs --operation AlterConfigs");
        for name in ["cart", "web"] {
            cluster.acls(&format!(
                "--add --allow-principal User:{name} --topic orders --operation Write --operation Describe"
            ));
        }
        cluster.acls("--add --allow-principal User:cart --topic ma --resource-pattern-type prefixed --operation Read");
        cluster
    }

    /// Kafka's own tools, as a super user.
    fn tool(&self, command: &str) -> String {
        let script =
            format!("{}/{command} --bootstrap-server {}", self.kafka.tools().display(), self.kafka.bootstrap());
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn acls(&self, of: &str) -> String {
        self.tool(&format!("kafka-acls.sh {of}"))
    }

    fn quotas(&self, of: &str) -> String {
        self.tool(&format!("kafka-configs.sh {of}"))
    }

    fn client(&self, name: &str) -> ClientConfig {
        let file = |of: &str| self.folder.join(of).display().to_string();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", format!("127.0.0.1:{}", self.port))
            .set("broker.address.family", "v4")
            .set("security.protocol", "ssl")
            .set("ssl.ca.location", file("ca.pem"))
            .set("ssl.certificate.location", file(&format!("{name}.pem")))
            .set("ssl.key.location", file(&format!("{name}.key")))
            .set("message.timeout.ms", "120000");
        config
    }

    /// Whether somebody may use a topic now, asked by one that stays connected.
    fn asker(&self, name: &str) -> impl Fn() -> bool + use<> {
        let client: BaseConsumer = self.client(name).create().unwrap();
        move || {
            let metadata = client.fetch_metadata(Some("orders"), Duration::from_secs(10)).unwrap();
            metadata.topics().iter().all(|topic| topic.error().is_none())
        }
    }

    /// Writes as many records of some bytes by one connection, each when the one before is acknowledged.
    fn write(&self, name: &str, records: usize, bytes: usize) -> Result<(), KafkaError> {
        let producer: FutureProducer = self.client(name).create().unwrap();
        let record = vec![b'x'; bytes];
        (0..records).try_for_each(|_| {
            let sent = block_on(producer.send(FutureRecord::<str, _>::to("orders").payload(&record), Duration::ZERO));
            sent.map(drop).map_err(|(error, _)| error)
        })
    }

    fn hook_as(&self, name: &str, keys: &str) -> HookConfig {
        let file = |of: &str| self.folder.join(of);
        let text = format!(
            "name = \"it\"\nfrom = \"throttled\"\ndry_run = false\ncap = 100\ntimeout_s = 20\n[kafka]\nbrokers = [\"127.0.0.1:1\", \
             \"127.0.0.1:{}\"]\nca_file = {:?}\ncertificate = {:?}\nkey = {:?}\n{keys}\n",
            self.port,
            file("ca.pem"),
            file(&format!("{name}.pem")),
            file(&format!("{name}.key")),
        );
        toml::from_str(&text).unwrap()
    }

    fn hook(&self, keys: &str) -> HookConfig {
        self.hook_as("qualm", keys)
    }

    fn ends_as(&self, name: &str, hook: HookConfig, order: Order, state: &str) -> Stored {
        let running = Running::start(&account::outbox(&self.folder, name), &[hook]);
        running.hooks.orders(vec![order]);
        let effect = if state == "reading" {
            until("it is told", || Some(running.comes_to(&[state])).filter(|of| of.problem.is_some()))
        } else {
            running.comes_to(&[state])
        };
        running.stop();
        effect
    }
}

fn built(hook: &HookConfig) -> Box<dyn Hook> {
    hook.build(&Clock::new(now)).unwrap()
}

#[test]
fn a_principal_is_denied_or_slowed_down_and_given_back_what_it_had() {
    if !present(&[Part::Kafka]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path());
    who_has_no_right_to_do_so_is_told(&cluster);
    it_is_denied_and_nobody_else_is(&cluster);
    after_kill_9_it_is_allowed_again_once(&cluster);
    of_one_instance_the_others_may_go_on(&cluster);
    rules_of_somebody_else_stay(&cluster);
    nobody_and_everybody_are_no_principal(&cluster);
    a_quota_slows_it_down_and_goes(&cluster);
    quotas_that_were_there_come_back_and_what_somebody_else_has_set_stays(&cluster);
}

fn who_has_no_right_to_do_so_is_told(cluster: &Cluster) {
    for act in ["deny", "quota"] {
        let keys = format!("act = \"{act}\"");
        assert!(built(&cluster.hook(&keys)).probe().unwrap().contains("the rights are there"));
        let hook = cluster.hook_as("nobody", &keys);
        let probed = built(&hook).probe().unwrap_err().to_string();
        assert!(probed.contains("31") && probed.contains("docs/hooks.md"), "{probed}");
        let told = cluster.ends_as(&format!("rights-{act}"), hook, order("cart", Level::Quarantined), "reading");
        assert!(told.problem.unwrap().contains("docs/hooks.md"));
    }
}

fn it_is_denied_and_nobody_else_is(cluster: &Cluster) {
    let (before, [cart, web]) = (cluster.acls("--list"), ["cart", "web"].map(|name| cluster.asker(name)));
    cluster.write("cart", 1, 10).unwrap();
    let running = Running::start(&account::outbox(&cluster.folder, "deny"), &[cluster.hook("act = \"deny\"")]);
    let nobody_else = || assert!(web(), "nobody else");
    account::is_cut_and_given_back(&running, ("Kafka", 20), &cart, nobody_else);
    // What it does is refused, not only what it asks.
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    until("it is denied", || (!cart()).then_some(()));
    let refused = cluster.write("cart", 1, 10).unwrap_err();
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::TopicAuthorizationFailed), "{refused}");
    cluster.write("web", 1, 10).unwrap();
    let log = cluster.kafka.log();
    let denied = log.lines().find(|line| line.contains("Principal = User:cart is Denied")).unwrap();
    assert!(denied.contains("operation=ALL, permissionType=DENY"), "{denied}");
    let rules = cluster.acls("--list");
    assert_eq!(
        rules.matches("operation=ALL, permissionType=DENY").count(),
        2,
        "one beside each that allows it: {rules}"
    );
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    running.stop();
    cluster.write("cart", 1, 10).unwrap();
    assert_eq!(sorted(&cluster.acls("--list")), sorted(&before));
}

fn sorted(rules: &str) -> Vec<&str> {
    let mut rules: Vec<&str> = rules.lines().map(str::trim).collect();
    rules.sort_unstable();
    rules
}

fn after_kill_9_it_is_allowed_again_once(cluster: &Cluster) {
    let (folder, hook, cart) =
        (account::outbox(&cluster.folder, "killed"), cluster.hook("act = \"deny\""), cluster.asker("cart"));
    account::is_cut_by_one_that_is_killed(&folder, &hook, &cart);
    account::is_given_back_by_the_next(&folder, hook, &cart).stop();
}

fn of_one_instance_the_others_may_go_on(cluster: &Cluster) {
    let cart = cluster.asker("cart");
    let mut elsewhere = order("cart", Level::Quarantined);
    elsewhere.subject.instance = Some("10.0.1.1".to_owned());
    let running = Running::start(&account::outbox(&cluster.folder, "instance"), &[cluster.hook("act = \"deny\"")]);
    running.hooks.orders(vec![elsewhere]);
    assert_eq!(running.comes_to(&["in effect"]).target.unwrap(), "User:cart from 10.0.1.1");
    assert!(cart(), "it calls from here");
    let mut here = order("cart", Level::Quarantined);
    here.subject.instance = Some("127.0.0.1".to_owned());
    running.hooks.orders(vec![here]);
    until("it is denied", || (!cart()).then_some(()));
    running.hooks.orders(Vec::new());
    until("it is allowed", || cart().then_some(()));
    until("all are over", || running.hooks.view().effects.iter().all(support::engine::is_over).then_some(()));
    running.stop();
}

fn rules_of_somebody_else_stay(cluster: &Cluster) {
    let theirs = "--deny-principal User:cart --topic orders --operation All";
    cluster.acls(&format!("--add {theirs}"));
    let before = cluster.acls("--list");
    let running = Running::start(&account::outbox(&cluster.folder, "theirs"), &[cluster.hook("act = \"deny\"")]);
    running.hooks.orders(vec![order("cart", Level::Quarantined)]);
    running.comes_to(&["in effect"]);
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    running.stop();
    assert_eq!(sorted(&cluster.acls("--list")), sorted(&before));
    cluster.acls(&format!("--remove --force {theirs}"));
}

fn nobody_and_everybody_are_no_principal(cluster: &Cluster) {
    let unknown = order("ledger", Level::Quarantined);
    let told = cluster.ends_as("unknown", cluster.hook("act = \"deny\""), unknown, "nothing there").problem.unwrap();
    assert!(told.contains("no rule allows User:ledger anything"), "{told}");
    let mut everybody = order("cart", Level::Quarantined);
    everybody.subject.principal = "*".to_owned();
    for act in ["deny", "quota"] {
        let mut hook = built(&cluster.hook(&format!("act = \"{act}\"\nprincipal = \"User:{{principal}}\"")));
        let refused = hook.read(&everybody).unwrap_err().to_string();
        assert!(refused.contains("`User:*` is no single principal"), "{refused}");
    }
}

const SLOW: &str = "act = \"quota\"\nproducer_byte_rate = 10000\nconsumer_byte_rate = 20000\nrequest_percentage = 7";

fn a_quota_slows_it_down_and_goes(cluster: &Cluster) {
    let writes = |name: &str| {
        let begun = Instant::now();
        cluster.write(name, 2, 200_000).unwrap();
        begun.elapsed()
    };
    let running = Running::start(&account::outbox(&cluster.folder, "quota"), &[cluster.hook(SLOW)]);
    running.hooks.orders(vec![order("cart", Level::Throttled)]);
    running.comes_to(&["in effect"]);
    // 200 KB are the rate of 20 s: the broker makes it wait before it takes the next.
    let slow = writes("cart");
    assert!(slow > Duration::from_secs(5), "{slow:?}");
    let others = writes("web");
    eprintln!("MEASURED two records of 200 KB with a quota of 10 KB/s: {slow:?}, others {others:?}");
    assert!(others < slow);
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    running.stop();
    assert!(!cluster.quotas("--describe --entity-type users").contains("cart"));
}

fn quotas_that_were_there_come_back_and_what_somebody_else_has_set_stays(cluster: &Cluster) {
    let user = "--entity-type users --entity-name cart";
    cluster.quotas(&format!("--alter {user} --add-config producer_byte_rate=50000,request_percentage=3"));
    cluster.quotas(&format!(
        "--alter {user} --entity-type clients --entity-name batch --add-config consumer_byte_rate=90000"
    ));
    let all = || {
        cluster.quotas(&format!("--describe {user}"))
            + &cluster.quotas(&format!("--describe {user} --entity-type clients"))
    };
    let before = all();
    let running = Running::start(&account::outbox(&cluster.folder, "quotas"), &[cluster.hook(SLOW)]);
    running.hooks.orders(vec![order("cart", Level::Throttled)]);
    running.comes_to(&["in effect"]);
    let now = all();
    for words in ["producer_byte_rate=10000.0", "request_percentage=3.0", "consumer_byte_rate=20000.0"] {
        assert!(now.contains(words), "no {words} in {now}");
    }
    assert!(!now.contains("90000"), "a client id's own quota goes before the user's: {now}");
    running.hooks.orders(Vec::new());
    running.comes_to(&["undone"]);
    assert_eq!(sorted(&all()), sorted(&before));

    running.hooks.orders(vec![order("cart", Level::Throttled)]);
    running.comes_to(&["in effect"]);
    cluster.quotas(&format!("--alter {user} --add-config producer_byte_rate=12345"));
    running.hooks.orders(Vec::new());
    let told = running.comes_to(&["changed by others"]).problem.unwrap();
    assert!(told.contains("producer_byte_rate was set by somebody else"), "{told}");
    assert!(all().contains("producer_byte_rate=12345.0"));
    running.stop();
}

#[test]
fn a_broker_that_hangs_or_talks_nonsense_is_told_in_time() {
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path(), &["qualm"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let file = |of: &str| folder.path().join(of);
    let text = format!(
        "name = \"it\"\ndry_run = false\ntimeout_s = 1\n[kafka]\nbrokers = [\"127.0.0.1:{port}\"]\nca_file = {:?}\n\
         certificate = {:?}\nkey = {:?}\n",
        file("ca.pem"),
        file("qualm.pem"),
        file("qualm.key"),
    );
    let mut hook = built(&toml::from_str(&text).unwrap());
    let begun = Instant::now();
    // Nobody accepts: the system holds the connection.
    let told = hook.read(&order("cart", Level::Quarantined)).unwrap_err().to_string();
    assert!(told.contains("no broker can be reached") && begun.elapsed() < Duration::from_secs(20), "{told}");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut &connection, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let told = hook.read(&order("cart", Level::Quarantined)).unwrap_err().to_string();
    assert!(told.contains("is it a TLS listener"), "{told}");
}
