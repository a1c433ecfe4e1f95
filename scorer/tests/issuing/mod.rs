//! An estate with issuers, for tests of credentials.

use qualm_model::{
    detector::Question,
    event::{EventBuilder, EventDraft, Kind, Outcome, Party, Position, Reporter, certificate_of},
    identity::Provenance,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
    verdict::Verdict,
};

pub(crate) const SERVICES: i64 = 120;
pub(crate) const MINUTE: i64 = 60;
pub(crate) const HOUR: i64 = 3600;
/// Certificates are exchanged after half of their life.
pub(crate) const LIFE: i64 = 12 * HOUR;

/// An estate of 120 services that call one another every ten minutes, each from its pod, with certificates that SPIRE
/// tells of and tokens that Vault tells of.
pub(crate) struct Estate {
    pub(crate) scorer: Scorer,
    pub(crate) builder: EventBuilder,
    pub(crate) offset: i64,
    pub(crate) now: i64,
    pub(crate) found: Vec<(String, Question)>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Seconds by which SPIRE's records arrive late.
    pub(crate) late: i64,
    pub(crate) under_way: Vec<(i64, String, i64)>,
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp(1_700_000_000_000_000_000 + seconds * Span::SECOND.0)
}

pub(crate) fn service(number: i64) -> String {
    format!("spiffe://mesh.test/ns/shop/sa/s{number}")
}

pub(crate) fn pod(number: i64) -> String {
    format!("10.{}.{}.7", number / 200, number % 200)
}

/// A certificate that is shown.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) serial: String,
    pub(crate) begin: i64,
    pub(crate) end: i64,
}

/// The certificate that a service's pod has at a time.
pub(crate) fn svid(number: i64, seconds: i64) -> Shown {
    let generation = (seconds + number * 60).div_euclid(LIFE / 2);
    let begin = generation * (LIFE / 2) - number * 60;
    Shown { serial: format!("c{number}-{generation}"), begin, end: begin + LIFE }
}

impl Estate {
    pub(crate) fn new() -> Self {
        Self {
            scorer: Scorer::new(ScorerConfig::default()),
            builder: EventBuilder::new(),
            offset: 0,
            now: 0,
            found: Vec::new(),
            verdicts: Vec::new(),
            late: 0,
            under_way: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, draft: &EventDraft<'_>, source: u16) {
        self.offset += 1;
        let position = Position { source, offset: self.offset, ..Position::default() };
        self.builder.push(&EventDraft { position, ..*draft });
        let batch = self.builder.finish();
        self.scorer.open(&batch);
        let mut verdicts = Vec::new();
        for event in batch.events() {
            let wall = event.report().max(at(self.now));
            if let Observed::Scored { leading: Some(leading), .. } = self.scorer.observe(event, wall, &mut verdicts)
                && leading.is_invariant()
            {
                self.found.push((event.source().principal().to_owned(), leading));
            }
        }
        for verdict in &verdicts {
            let broken = verdict.reasons.iter().filter(|reason| reason.detector.is_invariant());
            self.found.extend(broken.map(|reason| (verdict.identity.clone(), reason.detector)));
        }
        self.verdicts.extend(verdicts);
    }

    pub(crate) fn call(&mut self, who: &str, address: &str, shown: Option<&Shown>, to: &str) {
        let provenance = if shown.is_some() { Provenance::Certificate } else { Provenance::Name };
        let principal = if shown.is_some() { who } else { address };
        self.push(
            &EventDraft {
                start: at(self.now),
                report: at(self.now),
                source: Party { principal, ip: address, provenance, ..Party::default() },
                destination: Party { principal: to, provenance: Provenance::Certificate, ..Party::default() },
                outcome: Outcome::Success,
                operation: "GET /",
                credential: shown.map_or("", |shown| &shown.serial),
                not_before: shown.map(|shown| at(shown.begin)),
                not_after: shown.map(|shown| at(shown.end)),
                ..EventDraft::default()
            },
            0,
        );
    }

    /// SPIRE gives out a certificate.
    pub(crate) fn issue(&mut self, whose: &str, end: i64) {
        if self.late > 0 {
            self.under_way.push((self.now, whose.to_owned(), end));
            return;
        }
        self.spire_tells(self.now, whose, end);
    }

    pub(crate) fn spire_tells(&mut self, seconds: i64, whose: &str, end: i64) {
        let issued = certificate_of(whose, at(end));
        self.push(
            &EventDraft {
                start: at(seconds),
                report: at(seconds),
                kind: Kind::Authentication,
                reporter: Reporter::Issuer,
                source: Party {
                    principal: "spiffe://mesh.test/spire/agent/n1",
                    provenance: Provenance::Certificate,
                    ..Party::default()
                },
                destination: Party { principal: "spire-server", ..Party::default() },
                operation: "BatchNewX509SVID",
                outcome: Outcome::Success,
                issued: &issued,
                ..EventDraft::default()
            },
            1,
        );
    }

    /// Vault tells of a login, a use or a revocation.
    pub(crate) fn vault(&mut self, who: &str, address: &str, token: &str, [issued, revoked]: [&str; 2]) {
        let kind = if issued.is_empty() { Kind::Request } else { Kind::Authentication };
        let issue = at(self.now - self.now % HOUR);
        self.push(
            &EventDraft {
                start: at(self.now),
                report: at(self.now),
                kind,
                reporter: Reporter::Issuer,
                source: Party { principal: who, ip: address, ..Party::default() },
                destination: Party { principal: "vault", ..Party::default() },
                operation: if issued.is_empty() { "read secret/data/app" } else { "update auth/approle/login" },
                outcome: Outcome::Success,
                credential: token,
                not_before: Some(issue),
                not_after: Some(issue + Span::HOUR),
                issued,
                revoked,
                ..EventDraft::default()
            },
            2,
        );
    }

    pub(crate) fn login(&mut self, account: &str, address: &str, outcome: Outcome) {
        self.push(
            &EventDraft {
                start: at(self.now),
                report: at(self.now),
                kind: Kind::Authentication,
                source: Party { principal: account, ip: address, ..Party::default() },
                destination: Party { principal: "node-1", ..Party::default() },
                operation: "ssh",
                outcome,
                ..EventDraft::default()
            },
            3,
        );
    }

    /// Lives for so many hours; `also` is done beside everything else every ten minutes.
    pub(crate) fn live(&mut self, hours: i64, mut also: impl FnMut(&mut Self)) {
        let end = self.now + hours * HOUR;
        while self.now < end {
            for number in 0..SERVICES {
                let shown = svid(number, self.now);
                if svid(number, self.now - 10 * MINUTE).serial != shown.serial || self.now == 0 {
                    self.issue(&service(number), shown.end);
                }
            }
            let (late, now) = (self.late, self.now);
            while self.under_way.first().is_some_and(|(told, ..)| told + late <= now) {
                let (told, whose, end) = self.under_way.remove(0);
                self.spire_tells(told, &whose, end);
            }
            for number in 0..SERVICES {
                let shown = svid(number, self.now);
                self.call(&service(number), &pod(number), Some(&shown), &service((number + 1) % SERVICES));
            }
            also(self);
            self.now += 10 * MINUTE;
        }
    }

    /// A day and a half of nothing but that.
    pub(crate) fn settled() -> Self {
        let mut estate = Self::new();
        estate.live(36, |_| {});
        assert_eq!(estate.found, [], "nothing is odd yet");
        estate
    }

    pub(crate) fn is_found(&self, who: &str, question: Question) -> bool {
        self.found.iter().any(|(found, broken)| found == who && *broken == question)
    }
}
