//! The scorer, driven by events in their order, with event time as wall time.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use qualm_model::{
    event::EventBatch,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    notify::DetectionFinding,
    scorer::{Observed, Scorer},
    table::Subject,
    verdict::Verdict,
};

use super::{
    chronicle::Chronicle,
    incidents::Incidents,
    labels::Labels,
    outcomes::{Outcome, Outcomes},
    page::Window,
    report::{Entries, Top, count},
    spill::unwritable,
    trust::Transition,
    word::Word,
};
use crate::finding::{Findings, Setting};

/// Minutes without events of which each one is a tick; of longer silence only the last ones.
const MOST_SILENT_MINUTES: i64 = 2 * 24 * 60;

/// A scorer that is shown the past.
pub(super) struct Replay {
    scorer: Scorer,
    verdicts: Vec<Verdict>,
    minute: Option<i64>,
    findings: Findings,
    trust: BufWriter<File>,
    alerts: BufWriter<File>,
    /// How many of the verdicts the chronicle has.
    told: usize,
    chronicle: Chronicle,
    pub(super) seen: Seen,
}

/// What it came to.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) scored: u64,
    /// Events that were not scored, by reason.
    pub(super) unscored: BTreeMap<&'static str, u64>,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    pub(super) armed: BTreeMap<Level, Timestamp>,
    pub(super) entries: Entries,
    pub(super) namespaces: BTreeMap<String, Entries>,
    pub(super) top: Top,
    pub(super) labels: Option<Labels>,
    pub(super) incidents: Incidents,
}

impl Replay {
    /// Ready for the first event; what it decides goes to files in `out`.
    pub(super) fn new(scorer: Scorer, labels: Option<Labels>, out: &Path) -> Result<Self> {
        let create = |name: &str| File::create(out.join(name)).map(BufWriter::new).with_context(|| unwritable(out));
        Ok(Self {
            scorer,
            verdicts: Vec::new(),
            minute: None,
            findings: Findings::new(Setting::Backtest),
            trust: create("trust.jsonl")?,
            alerts: create("alerts.jsonl")?,
            told: 0,
            chronicle: Chronicle::default(),
            seen: Seen { labels, ..Seen::default() },
        })
    }

    /// Shows a batch to the scorer.
    pub(super) fn observe(&mut self, batch: &EventBatch, outcomes: Option<&mut Outcomes>) -> Result<()> {
        let mut outcomes = outcomes;
        self.scorer.open(batch);
        for event in batch.events() {
            let time = event.report();
            self.advance(time);
            let observed = self.scorer.observe(event, time, &mut self.verdicts);
            if let Observed::Scored { bits, leading, identity_bits } = observed {
                self.seen.top.see(event, bits, leading);
                let labels = self.seen.labels.as_ref();
                let is_true =
                    |identity: &str, subject: &Subject| labels.is_some_and(|of| of.cover(identity, subject, time));
                self.chronicle.see(event, identity_bits, is_true);
            }
            self.chronicle_decisions();
            let outcome = self.seen.count(observed);
            if let Some(outcomes) = &mut outcomes {
                outcomes.note(usize::try_from(event.position().offset)?, outcome)?;
            }
        }
        if let (Some(first), Some(last)) = (batch.events().next(), batch.events().next_back()) {
            self.seen.first.get_or_insert(first.report());
            self.seen.last = Some(last.report());
        }
        // Nobody saves them.
        self.scorer.forget_changes();
        self.tell()
    }

    /// Lets time go on until every lease has had its end.
    pub(super) fn finish(&mut self) -> Result<()> {
        let lease = &self.scorer.config().lease;
        let longest = Level::BY_BEHAVIOUR.into_iter().map(|level| lease.of(level)).max().unwrap_or_default();
        if let Some(last) = self.seen.last {
            self.advance(last + longest + Span::MINUTE);
        }
        self.tell()?;
        self.trust.flush().context("trust.jsonl; is the disk full?")?;
        self.alerts.flush().context("alerts.jsonl; is the disk full?")
    }

    /// The scorer.
    pub(super) fn scorer(&self) -> &Scorer {
        &self.scorer
    }

    /// Ticks once a minute, as `run` does by the clock.
    #[inline]
    fn advance(&mut self, now: Timestamp) {
        let minute = now.window(Span::MINUTE);
        if self.minute == Some(minute) {
            return;
        }
        let next = self.minute.map_or(minute, |last| (last + 1).max(minute - MOST_SILENT_MINUTES));
        for passed in next..=minute {
            self.scorer.tick(Timestamp(passed * Span::MINUTE.0), &mut self.verdicts);
        }
        self.minute = Some(minute);
        if self.seen.armed.len() < Level::BY_BEHAVIOUR.len() {
            for level in self.scorer.armed() {
                self.seen.armed.entry(level).or_insert(now);
            }
        }
    }

    /// What the page is made of, and the time that it spans.
    pub(super) fn take_chronicle(&mut self) -> (Chronicle, Option<Window>) {
        let window = self.seen.first.zip(self.seen.last).map(|(from, until)| Window { from, until });
        (std::mem::take(&mut self.chronicle), window)
    }

    /// Tells the chronicle what was decided since the last time.
    #[inline]
    fn chronicle_decisions(&mut self) {
        for verdict in &self.verdicts[self.told..] {
            let labels = self.seen.labels.as_ref();
            let is_true = labels.map(|of| of.cover(&verdict.identity, &verdict.subject, verdict.decided));
            self.chronicle.decide(verdict, is_true);
        }
        self.told = self.verdicts.len();
    }

    /// Writes down what was decided.
    fn tell(&mut self) -> Result<()> {
        self.chronicle_decisions();
        self.told = 0;
        for verdict in self.verdicts.drain(..) {
            if let Some(transition) = Transition::of(&verdict) {
                serde_json::to_writer(&mut self.trust, &transition)?;
                self.trust.write_all(b"\n")?;
            }
            if let Some(finding) = self.findings.tell(&verdict) {
                serde_json::to_writer(&mut self.alerts, &DetectionFinding::from(&finding))?;
                self.alerts.write_all(b"\n")?;
            }
            self.seen.incidents.note(&verdict);
            if verdict.level > verdict.previous {
                self.seen.enter(&verdict);
            }
        }
        Ok(())
    }
}

impl Seen {
    fn count(&mut self, observed: Observed) -> Outcome {
        let (bits, identity_bits, said) = match observed {
            Observed::Scored { bits, identity_bits, leading } => (bits, identity_bits, Word::Scored(leading)),
            Observed::OwnAction => (0.0, 0.0, Word::OwnAction),
            Observed::Duplicate => (0.0, 0.0, Word::Duplicate),
            Observed::Part => (0.0, 0.0, Word::Part),
            Observed::NoSource => (0.0, 0.0, Word::NoSource),
        };
        let reason = match said {
            Word::Scored(_) | Word::Rejected(_) => None,
            Word::OwnAction => Some("own_action"),
            Word::Duplicate => Some("duplicate"),
            Word::Part => Some("part"),
            Word::NoSource => Some("missing_identity"),
        };
        match reason {
            None => self.scored += 1,
            Some(reason) => *self.unscored.entry(reason).or_default() += 1,
        }
        Outcome { bits, identity_bits, code: said.code() }
    }

    fn enter(&mut self, verdict: &Verdict) {
        count(&mut self.entries, verdict);
        let namespace = verdict.namespace.clone().unwrap_or_else(|| "-".to_owned());
        count(self.namespaces.entry(namespace).or_default(), verdict);
        if let Some(labels) = &mut self.labels {
            labels.enter(verdict);
        }
    }
}
