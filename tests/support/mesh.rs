//! The whole: a mesh with a past, real sidecars before two services of it, callers that live on, and Qualm beside them.
//!
//! What the product's settings and pages are called stands here and nowhere else.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    authority::{Authority, TRUST_DOMAIN, spiffe_id},
    caller::{Caller, Connection},
    discovery::now,
    envoy::{Envoy, QualmPorts, Sidecar, Streams},
    estate::{Estate, Pair},
    feed::Feed,
    kafka::Kafka,
    ports,
    qualm::Qualm,
    wait::{PATIENCE, until, until_true},
};

/// Where the live replicas of the first pair's caller are, and of the second's.
pub(crate) const DEVIATING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const SIBLING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
pub(crate) const BYSTANDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// Evidence is counted by the minute: a deviation may need some of them.
const MINUTES: Duration = Duration::from_secs(300);
/// Between two deviating calls.
const PAUSE: Duration = Duration::from_millis(500);

/// What a test changes in Qualm's settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// `enforce` or `shadow`.
    pub(crate) mode: &'static str,
    /// Length of a quarantine's lease, as the configuration writes it.
    pub(crate) lease: &'static str,
    /// How often a snapshot is written, likewise.
    pub(crate) snapshot_every: &'static str,
    /// Budgets, as the configuration writes them.
    pub(crate) judgement: &'static str,
    /// What sidecars do about what stays open.
    pub(crate) streams: Streams,
    /// How many services the mesh has.
    pub(crate) services: usize,
    /// The share of identities that may be denied on behaviour, as the configuration writes it. Of a small mesh, one in
    /// twenty is nobody.
    pub(crate) max_share: &'static str,
    pub(crate) telemetry: Telemetry,
    /// Further sections of the configuration.
    pub(crate) more: &'static str,
}

/// How Qualm hears of calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Telemetry {
    /// The first sidecar sends ALS, the neighbour's log and the rest of the mesh are files.
    #[default]
    Direct,
    /// All write files, which a shipper brings to Kafka.
    Shipped,
}

/// Where shippers bring what they read.
const TOPIC: &str = "mesh.access";
/// As often as Fluent Bit sends on what it has read, unless told otherwise.
const SHIPPED_EVERY: Duration = Duration::from_secs(1);
/// As Istio starts its sidecars.
const FLUSHED_EVERY: Duration = Duration::from_secs(1);

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: "enforce",
            lease: "2m",
            snapshot_every: "1s",
            judgement: JUDGEMENT,
            streams: Streams::default(),
            services: 24,
            max_share: "0.5",
            telemetry: Telemetry::default(),
            more: "",
        }
    }
}

impl Settings {
    /// The sidecar of replica `number` of the workload `id`.
    fn sidecar(self, id: &str, number: u8, ports: QualmPorts) -> Sidecar {
        let sidecar = Sidecar::before(id, number, Some(ports));
        let log_flush = if self.telemetry == Telemetry::Shipped { FLUSHED_EVERY } else { sidecar.log_flush };
        Sidecar { streams: self.streams, log_flush, ..sidecar }
    }
}

pub(crate) struct Mesh {
    pub(crate) authority: Authority,
    pub(crate) qualm: Qualm,
    /// The sidecar before the service that [`DEVIATING`] and [`SIBLING`] call. It reports by ALS.
    pub(crate) sidecar: Envoy,
    /// The one before the service that [`BYSTANDER`] calls. Its JSON log is read as a file.
    pub(crate) neighbour: Envoy,
    pub(crate) pair: Pair,
    pub(crate) bystander: Pair,
    pub(crate) ports: QualmPorts,
    /// SPIFFE IDs of services that call others, beside those that live on.
    pub(crate) others: Vec<String>,
    callers: HashMap<Ipv4Addr, Caller>,
    alerts: PathBuf,
    _rest_of_the_mesh: Feed,
    shippers: Vec<Feed>,
    kafka: Option<Kafka>,
    // Last: what stands in it is used until all others are gone.
    pub(crate) folder: TempDir,
}

impl Mesh {
    /// Everything is up: the past has been read, every level is armed, and both sidecars enforce.
    pub(crate) fn start(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let authority = Authority::new();
        let port = ports::free();
        let is_shipped = settings.telemetry == Telemetry::Shipped;
        let als = (!is_shipped).then_some(port);
        let ports = QualmPorts { id: spiffe_id("security", "qualm"), xds: port, als };
        let kafka = is_shipped.then(|| Kafka::start(folder.path()));
        kafka.iter().for_each(|kafka| kafka.create_topic(TOPIC, 3));
        let present = now();
        let mut estate = Estate::of_services(settings.services, 7, present);
        let mut pairs = estate.busiest_pairs();
        let (pair, bystander) = (pairs.remove(0), pairs.remove(0));
        let launch =
            |pair: &Pair, ports| Envoy::launch(folder.path(), &authority, settings.sidecar(&pair.called, 0, ports));
        let mut sidecar = launch(&pair, ports.clone());
        let mut neighbour = launch(&bystander, QualmPorts { als: None, ..ports.clone() });
        sidecar.wait_until_live();
        neighbour.wait_until_live();
        let lives =
            [(&pair, 0, DEVIATING, &sidecar), (&pair, 1, SIBLING, &sidecar), (&bystander, 0, BYSTANDER, &neighbour)];
        let callers = lives.map(|(of, replica, address, before)| {
            let caller = Caller::new(&authority, &of.caller, address, &of.called);
            estate.settle(of.replicas[replica], address, introduce(&caller, address, before, of));
            (address, caller)
        });

        let past = folder.path().join("past.jsonl");
        let rest = folder.path().join("rest.jsonl");
        let feed = Feed::into_files(&past, &rest, estate.lines(present));
        let ship = |kafka, (key, log): (&str, &Path)| Feed::of_file(kafka, TOPIC, key, log, SHIPPED_EVERY);
        let logs = [(pair.called.as_str(), sidecar.log()), (&bystander.called, neighbour.log()), ("rest", &rest)];
        let shippers = kafka.iter().flat_map(|kafka| logs.map(|log| ship(kafka, log))).collect();
        let alerts = folder.path().join("alerts.jsonl");
        let http = ports::free();
        let config = config(&Wiring {
            authority: &authority,
            folder: folder.path(),
            past: &past,
            logs: &[&rest, neighbour.log()],
            kafka: kafka.as_ref(),
            alerts: &alerts,
            ports: &ports,
            http,
            settings,
        });
        let mut qualm = Qualm::start(folder.path(), &config, http);
        until_armed(&mut qualm);
        until_enforcing(&mut qualm, 2);
        let mut others = estate.steady();
        others.retain(|id| [&pair, &bystander].iter().all(|of| *id != of.caller && *id != of.called));
        Self {
            callers: HashMap::from(callers),
            authority,
            qualm,
            sidecar,
            neighbour,
            pair,
            bystander,
            ports,
            others,
            alerts,
            _rest_of_the_mesh: feed,
            shippers,
            kafka,
            folder,
        }
    }

    /// Another replica of the service that the first pair calls; it reports as the first does, and finds Qualm at `ports`.
    pub(crate) fn replica(&mut self, settings: Settings, number: u8, ports: QualmPorts) -> Envoy {
        let sidecar = settings.sidecar(&self.pair.called, number, ports);
        self.start_sidecar(sidecar)
    }

    /// Starts a sidecar, and where lines are shipped, a shipper for it.
    pub(crate) fn start_sidecar(&mut self, sidecar: Sidecar) -> Envoy {
        let envoy = Envoy::start(self.folder.path(), &self.authority, sidecar);
        let ship = |kafka| Feed::of_file(kafka, TOPIC, &envoy.sidecar().node, envoy.log(), SHIPPED_EVERY);
        self.shippers.extend(self.kafka.as_ref().map(ship));
        envoy
    }

    /// The live caller at an address.
    pub(crate) fn caller(&self, source: Ipv4Addr) -> &Caller {
        &self.callers[&source]
    }

    /// A connection of the live caller at `source` to the service that it has always called, on which one usual call
    /// has been served.
    pub(crate) fn open(&self, source: Ipv4Addr) -> Connection {
        let before = if source == BYSTANDER { &self.neighbour } else { &self.sidecar };
        let mut connection = self.callers[&source].connect(before.http()).expect("a sidecar serves its mesh");
        assert_eq!(self.usual(source, &mut connection), 200);
        connection
    }

    /// The answer to a call that the caller at `source` has made every day.
    pub(crate) fn usual(&self, source: Ipv4Addr, connection: &mut Connection) -> u16 {
        let pair = if source == BYSTANDER { &self.bystander } else { &self.pair };
        let (method, path) = &pair.usual[0];
        connection.request(method, path).expect("the connection stays open").status
    }

    /// Asks again and again for what nobody has ever asked for, half of which fails, until `seen`.
    pub(crate) fn deviate(&self, connection: &mut Connection, what: &str, mut seen: impl FnMut(u16) -> bool) {
        let mut asked = 0_usize;
        until_true(what, MINUTES, || {
            asked += 1;
            let root = if asked.is_multiple_of(2) { "internal" } else { "fail" };
            let subject = ["users", "cards", "keys", "audit", "tokens", "backups"][asked % 6];
            let path = format!("/{root}/{subject}/export/{}", ["all", "new", "old", "raw"][asked / 6 % 4]);
            let status = connection.request("POST", &path).expect("the connection stays open").status;
            let done = seen(status);
            if !done {
                std::thread::sleep(PAUSE);
            }
            done
        });
    }

    /// [Deviates](Self::deviate) until the next call of this connection is denied; the decision behind it.
    pub(crate) fn deviate_until_denied(&self, connection: &mut Connection) -> String {
        self.deviate(connection, "the deviating calls are denied", |status| status == 403);
        self.decisions().pop().expect("there was a denial")
    }

    /// The decisions behind the denials in the sidecar's log, in the order of their first denial.
    pub(crate) fn decisions(&self) -> Vec<String> {
        self.sidecar.logged("a denial", |line| line["response_code"] == 403);
        let mut decisions = Vec::new();
        for line in self.denials() {
            let details = line["response_code_details"].as_str().expect("a denial has details");
            let policy = details.strip_prefix("rbac_access_denied_matched_policy[qualm-deny/");
            let decision = policy.and_then(|policy| policy.strip_suffix(']'));
            let decision = decision.unwrap_or_else(|| panic!("not our denial: {details}")).to_owned();
            if !decisions.contains(&decision) {
                decisions.push(decision);
            }
        }
        decisions
    }

    /// Every denial in the logs of both sidecars.
    pub(crate) fn denials(&self) -> Vec<Value> {
        let lines = self.sidecar.log_lines().into_iter().chain(self.neighbour.log_lines());
        lines.filter(|line| line["response_code"] == 403).collect()
    }

    /// The findings about one identity by their uid, each with all that was said of it.
    pub(crate) fn findings_about(&self, identity: &str) -> BTreeMap<String, Vec<Value>> {
        let text = fs::read_to_string(&self.alerts).unwrap_or_default();
        // A line that is being written is read the next time.
        let told = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut findings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for finding in told {
            let uid = finding["finding_info"]["uid"].as_str().expect("a finding has a uid").to_owned();
            findings.entry(uid).or_default().push(finding);
        }
        findings.retain(|_, told| told.iter().any(|finding| is_about(finding, identity)));
        findings
    }

    /// Waits until a finding about the pair's caller names this decision.
    pub(crate) fn finding_with(&self, decision: &str) -> Value {
        until("an alert names the decision and who it is about", PATIENCE, || {
            let findings = self.findings_about(&self.pair.caller).into_values().flatten();
            findings.into_iter().find(|finding| finding["policy"]["uid"] == decision)
        })
    }
}

/// Whether a finding tells of what this identity did; others may name it too.
pub(crate) fn is_about(finding: &Value, identity: &str) -> bool {
    finding["evidences"][0]["actor"]["user"]["uid"] == identity
}

/// Waits until the page that says whether Qualm is ready says that it could quarantine.
pub(crate) fn until_armed(qualm: &mut Qualm) {
    let http = qualm.http();
    qualm.wait_until("has every level armed", || {
        let page = super::qualm::page(http, "/readyz").map(|page| page.body).unwrap_or_default();
        let page: Value = serde_json::from_str(&page).unwrap_or_default();
        page["ready"] == true
            && page["levels"]
                .as_array()
                .is_some_and(|levels| !levels.is_empty() && levels.iter().all(|level| level["armed"] == true))
    });
}

/// Waits until so many proxies have taken the table that stands.
pub(crate) fn until_enforcing(qualm: &mut Qualm, nodes: u32) {
    let http = qualm.http();
    // One acknowledgement each for the two HTTP filters and for the network filter.
    let taken = || super::qualm::sample(http, r#"qualm_acknowledgements_total{enforcer="xds"}"#);
    qualm.wait_until("is heard by every sidecar", || taken() >= Some(f64::from(3 * nodes)));
}

/// What a sidecar writes of a usual call of `caller`.
fn introduce(caller: &Caller, address: Ipv4Addr, sidecar: &Envoy, pair: &Pair) -> Value {
    let mut connection = caller.connect(sidecar.http()).expect("the sidecar serves its mesh");
    let (method, path) = &pair.usual[0];
    connection.request(method, path).expect("the connection stays open");
    sidecar.logged("its first call", |line| {
        line["downstream_remote_address"].as_str().is_some_and(|source| source.starts_with(&format!("{address}:")))
    })
}

/// What a configuration names.
struct Wiring<'a> {
    authority: &'a Authority,
    folder: &'a Path,
    past: &'a Path,
    logs: &'a [&'a Path],
    /// In place of the logs.
    kafka: Option<&'a Kafka>,
    alerts: &'a Path,
    ports: &'a QualmPorts,
    http: u16,
    settings: Settings,
}

fn config(wiring: &Wiring<'_>) -> String {
    let svid = wiring.authority.write_svid(&wiring.ports.id, &wiring.folder.join("qualm-svid"));
    let everyone = format!("spiffe://{TRUST_DOMAIN}/*");
    let mut config = Vec::new();
    if let Some(kafka) = wiring.kafka {
        let topics = format!("[{{ name = \"{TOPIC}\", format = \"istio_json\" }}]");
        writeln!(config, "[[kafka]]\nbrokers = {:?}\ngroup = \"qualm\"\ntopics = {topics}\n", kafka.bootstrap())
            .expect("memory");
    }
    for log in wiring.logs.iter().filter(|_| wiring.kafka.is_none()) {
        writeln!(config, "[[file]]\npath = {log:?}\nformat = \"istio_json\"\nfollow = true\n").expect("memory");
    }
    write!(
        config,
        r#"
[listen]
address = "127.0.0.1:{grpc}"
certificate = {certificate:?}
key = {key:?}
client_roots = {bundle:?}
reporters = ["{everyone}"]
enforcement_points = ["{everyone}"]
subscribers = ["{everyone}"]
{people}
[observe]
address = "127.0.0.1:{http}"

[history]
files = [{past:?}]
format = "istio_json"

{judgement}

[lease]
quarantined = "{lease}"

[enforce]
mode = "{mode}"
max_share = {max_share}

[alerts]
file = {alerts:?}

[state]
directory = "state"
snapshot_every = "{snapshot_every}"

{more}
"#,
        grpc = wiring.ports.xds,
        certificate = svid.certificate,
        key = svid.key,
        bundle = svid.bundle,
        http = wiring.http,
        people = super::operator::lists(),
        past = wiring.past,
        judgement = wiring.settings.judgement,
        lease = wiring.settings.lease,
        mode = wiring.settings.mode,
        max_share = wiring.settings.max_share,
        alerts = wiring.alerts,
        snapshot_every = wiring.settings.snapshot_every,
        more = wiring.settings.more,
    )
    .expect("memory");
    String::from_utf8(config).expect("paths of tests are UTF-8")
}

/// Budgets of a test: three wrongful quarantines a day are borne, so that a deviation is denied after seconds. With the
/// default budgets this one is limited at once and *restricted* after two and a half minutes; *quarantined* takes longer
/// than a test should.
pub(crate) const JUDGEMENT: &str = "[budget]
quarantined_per_month = 100";
