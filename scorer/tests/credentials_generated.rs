//! Every kind of attack on credentials of the generated mesh is found by what does not add up, with the issuers' logs
//! joined, and nothing else is.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use qualm_datasets::{
    AccessLog, Attack, AttackKind, AuthLog, AuthTrail, ChangeKind, Millis, Scenario, Traffic,
    calendar::{DAY, HOUR, MINUTE},
    mesh::MeshConfig,
};
use qualm_ingest::{
    parse::{Format, Parser},
    source::Rejection,
};
use qualm_model::{
    detector::Question,
    event::{EventBuilder, Position},
    time::Timestamp,
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
    verdict::Verdict,
};

const MONDAY: Millis = Millis::from_seconds(1_767_571_200);

/// What each attack breaks.
const BREAKS: [(AttackKind, Question); 11] = [
    (AttackKind::ExpiredCertificate, Question::AfterExpiry),
    (AttackKind::PrematureCertificate, Question::BeforeIssuance),
    (AttackKind::ForgedCertificate, Question::NeverIssued),
    (AttackKind::StolenIdentity, Question::NeverIssued),
    (AttackKind::ReplayedCredential, Question::OutsideSharing),
    (AttackKind::PlainText, Question::NoCertificate),
    (AttackKind::ExpiredToken, Question::AfterExpiry),
    (AttackKind::ForgedToken, Question::NeverIssued),
    (AttackKind::RevokedToken, Question::AfterRevocation),
    (AttackKind::StolenToken, Question::OutsideSharing),
    (AttackKind::PasswordSpraying, Question::LoginElsewhere),
];

/// What was found: when, of whom, in which way.
type Found = BTreeSet<(Timestamp, String, Question)>;

/// A scorer that reads the proxies' and the issuers' logs as they are written.
struct Reader {
    scorer: Scorer,
    proxies: Parser,
    issuers: BTreeMap<AuthLog, Parser>,
    builder: EventBuilder,
    offset: i64,
    verdicts: Vec<Verdict>,
    found: Found,
}

impl Reader {
    fn new() -> Self {
        let parser = |format: &str| Parser::for_format(format.parse::<Format>().unwrap(), None).unwrap();
        Self {
            scorer: Scorer::new(ScorerConfig::default()),
            proxies: parser("istio_json"),
            issuers: AuthLog::ALL.into_iter().map(|log| (log, parser(log.format()))).collect(),
            builder: EventBuilder::new(),
            offset: 0,
            verdicts: Vec::new(),
            found: Found::new(),
        }
    }

    fn read(&mut self, log: Option<AuthLog>, lines: &[u8]) {
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let source = log.map_or(0, |log| 1 + log as u16);
            let position = Position { source, offset: self.offset, ..Position::default() };
            self.offset += 1;
            let parser = log.map_or(&mut self.proxies, |log| self.issuers.get_mut(&log).unwrap());
            match parser.parse(line, position, &mut self.builder) {
                Ok(_) | Err(Rejection::Part) => {}
                Err(refused) => panic!("{refused:?}: {}", String::from_utf8_lossy(line)),
            }
        }
        if self.builder.len() >= 2000 {
            self.judge();
        }
    }

    fn judge(&mut self) {
        let batch = self.builder.finish();
        self.scorer.open(&batch);
        for event in batch.events() {
            let observed = self.scorer.observe(event, event.report(), &mut self.verdicts);
            if let Observed::Scored { leading: Some(leading), .. } = observed
                && leading.is_invariant()
            {
                self.found.insert((event.report(), event.source().principal().to_owned(), leading));
            }
        }
        for verdict in self.verdicts.drain(..) {
            for reason in verdict.reasons.iter().filter(|reason| reason.detector.is_invariant()) {
                self.found.insert((verdict.time, verdict.identity.clone(), reason.detector));
            }
        }
    }
}

/// What is found in a scenario; `late` is how long the lines of SPIRE's log are under way.
fn found(scenario: Scenario, late: i64) -> (Arc<Scenario>, Found) {
    let scenario = Arc::new(scenario);
    let mesh = scenario.mesh();
    let log = AccessLog::with_validity(mesh);
    let (mut reader, mut line) = (Reader::new(), Vec::new());
    let mut trail = AuthTrail::new(Arc::clone(&scenario));
    let mut under_way = std::collections::VecDeque::new();
    for call in Traffic::new(Arc::clone(&scenario)) {
        let mut records = Vec::new();
        trail.follow(&call, &mut records);
        for record in records {
            let delay = if record.log == AuthLog::Spire { late } else { 0 };
            if delay > 0 {
                under_way.push_back((record.at + delay, record));
                continue;
            }
            line.clear();
            record.push(mesh, &mut line);
            reader.read(Some(record.log), &line);
        }
        while under_way.front().is_some_and(|(arrives, _)| *arrives <= call.report()) {
            let (_, record) = under_way.pop_front().unwrap();
            line.clear();
            record.push(mesh, &mut line);
            reader.read(Some(record.log), &line);
        }
        line.clear();
        log.push_inbound(&call, &mut line);
        line.push(b'\n');
        reader.read(None, &line);
    }
    reader.judge();
    let found = reader.found;
    (scenario, found)
}

fn estate(seed: u64) -> Scenario {
    Scenario::estate(MeshConfig { seed, ..MeshConfig::default() }, MONDAY, 1.0).unwrap()
}

fn time(millis: Millis) -> Timestamp {
    Timestamp(millis.0 * 1_000_000)
}

#[test]
fn every_kind_of_attack_on_credentials_is_found_and_nothing_else() {
    let mut scenario = estate(4);
    scenario.churn_of(&ChangeKind::ALL, 10.0, MONDAY, MONDAY + DAY);
    for (number, (kind, _)) in BREAKS.into_iter().enumerate() {
        scenario.attack(Attack::new(kind, MONDAY + 10 * HOUR + number as i64 * HOUR)).unwrap();
    }
    let (scenario, found) = found(scenario, 0);
    let (mut explained, mut missed) = (Found::new(), Vec::new());
    for label in scenario.attacks() {
        let (_, question) =
            BREAKS.into_iter().find(|(kind, _)| AttackKind::from_name(label.kind) == Some(*kind)).unwrap();
        let within = time(label.start)..=time(label.end + 30 * MINUTE);
        let here: Found = found.iter().filter(|(at, ..)| within.contains(at)).cloned().collect();
        if !here.iter().any(|(.., broken)| *broken == question) {
            missed.push((label.kind, here.clone()));
        }
        explained.extend(here);
    }
    assert!(missed.is_empty(), "{missed:?}");
    let others: Vec<_> = found.difference(&explained).take(10).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn an_honest_estate_that_shares_certificates_and_whose_issuer_tells_an_hour_later_breaks_nothing() {
    let mut scenario = estate(5);
    scenario.share_certificates();
    scenario.churn_of(&ChangeKind::ALL, 12.0, MONDAY, MONDAY + DAY);
    let (_, found) = found(scenario, HOUR);
    assert!(found.is_empty(), "{:?}", found.iter().take(10).collect::<Vec<_>>());
}

/// A login, a use, the revocation and a use after that, in the form in which a real Vault 1.21 writes them.
#[test]
fn the_lines_of_a_vault_are_joined_by_the_accessor() {
    let told = |path: &str, second: u32, auth: &str, more: &str| {
        let response = if path.ends_with("login") {
            r#""response":{"auth":{"accessor":"hmac-sha256:d732902dd57c7c89","token_type":"service"}},"#
        } else {
            ""
        };
        format!(
            r#"{{"auth":{auth},"request":{{"id":"{second:08}-0009-433b-1b71-d51f708a7de8",{more}"mount_class":"auth","mount_point":"auth/","mount_type":"approle","namespace":{{"id":"root"}},"operation":"update","path":"{path}","remote_address":"127.0.0.1","remote_port":44748}},{response}"time":"2026-11-22T15:22:{second:02}.659323Z","type":"response"}}"#
        )
    };
    let cart = r#"{"accessor":"hmac-sha256:d732902dd57c7c89","display_name":"approle","entity_id":"fd570d07-439e","token_issue_time":"2026-11-22T15:22:07Z","token_ttl":1200,"token_type":"service"}"#;
    let root = r#"{"accessor":"hmac-sha256:de696b7b862706b4","display_name":"token","token_type":"service"}"#;
    let taken =
        r#""client_token_accessor":"hmac-sha256:de696b7b862706b4","data":{"accessor":"hmac-sha256:d732902dd57c7c89"},"#;
    let mut reader = Reader::new();
    for (line, expected) in [
        (told("auth/approle/login", 7, cart, ""), 0),
        (told("secret/data/cart", 8, cart, ""), 0),
        (told("auth/token/revoke-accessor", 20, root, taken), 0),
        (told("secret/data/cart", 40, cart, ""), 1),
    ] {
        reader.read(Some(AuthLog::Vault), line.as_bytes());
        reader.judge();
        let broken = reader.found.iter().filter(|(.., broken)| *broken == Question::AfterRevocation).count();
        assert_eq!((broken, reader.found.len()), (expected, expected), "{line}");
    }
}
