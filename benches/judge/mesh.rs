//! What was found of a generated mesh: each attack, and whom honest identities stand in its way.

use std::{collections::HashMap, fs, path::Path};

use qualm_model::{
    detector::Question,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{scorer::Observed, verdict::Verdict};
use serde_json::Value;

use crate::{
    kinds::truly,
    replay::{self, Ran, levels},
    stream,
};

/// An entry so long after the end of an attack still finds it, as in `qualm backtest`.
const GRACE: Span = Span(5 * Span::MINUTE.0);
/// What did not happen is found when the issuer's log, or the window, has passed it: counted as found, and as late.
const ABSENCE: Span = Span(2 * Span::HOUR.0);
/// Late, but soon enough for whoever holds the records of a quarter of an hour in hand.
const LATE: Span = Span(15 * Span::MINUTE.0);
const OF_ABSENCE: [Question; 5] =
    [Question::NeverIssued, Question::BeforeIssuance, Question::Unwitnessed, Question::Silence, Question::Lull];
/// Nodes' clocks may go ahead of the label's by so much.
const SKEW: Span = Span::SECOND;
/// Nor does the evidence of an attack count as honest before it has decayed.
const AFTERMATH: Span = Span(60 * Span::MINUTE.0);

/// A labelled stretch of somebody's time.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    start: Timestamp,
    end: Timestamp,
    pub(crate) kind: String,
    identities: Vec<String>,
}

/// One attack and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Attack {
    pub(crate) label: Label,
    /// First entry into each level.
    pub(crate) entered: [Option<Timestamp>; 4],
    /// Reasons of the first entry.
    reasons: Vec<(&'static str, f64)>,
    /// The most bits of an event, and what led it; the most of the identity.
    best: (f64, Option<Question>),
    pub(crate) identity_bits: f64,
}

/// An entry outside of all labels.
#[derive(Debug, Clone)]
pub(crate) struct Wrongful {
    at: Timestamp,
    identity: String,
    pub(crate) level: Level,
    /// The honest change that it followed, or `nothing`.
    pub(crate) amid: String,
    reasons: Vec<(&'static str, f64)>,
}

/// A mesh evaluated.
#[derive(Debug)]
pub(crate) struct Evaluated {
    name: String,
    pub(crate) ran: Ran,
    pub(crate) attacks: Vec<Attack>,
    pub(crate) wrongful: Vec<Wrongful>,
    /// The most `identity_bits` of each honest identity and day, highest first, the first day aside.
    honest: Vec<Honest>,
}

/// An identity's worst honest moment of a day.
#[derive(Debug, Clone)]
struct Honest {
    bits: f64,
    identity: String,
    at: Timestamp,
    leading: Option<Question>,
}

impl Attack {
    pub(crate) fn is_named(&self) -> bool {
        self.reasons.first().is_some_and(|(reason, _)| truly(&self.label.kind).contains(reason))
    }

    /// Whether the first entry into this level, or a higher one, came late: when the label had ended for five minutes, and
    /// for fifteen.
    pub(crate) fn is_late(&self, level: usize) -> [bool; 2] {
        let after = self.entered[level].map(|at| at - self.label.end);
        [GRACE, LATE].map(|grace| after.is_some_and(|after| after > grace))
    }

    /// Seconds from the start to the first entry.
    pub(crate) fn delay(&self) -> Option<f64> {
        self.entered[0].map(|at| (at - self.label.start).as_seconds())
    }
}

fn labels(path: &Path) -> Vec<Label> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            let time = |key: &str| {
                let time: jiff::Timestamp = value[key].as_str().unwrap().parse().unwrap();
                Timestamp(i64::try_from(time.as_nanosecond()).unwrap())
            };
            Label {
                start: time("start"),
                end: time("end"),
                kind: value["kind"].as_str().unwrap().to_owned(),
                identities: value["identities"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|of| of.as_str().unwrap().to_owned())
                    .collect(),
            }
        })
        .collect()
}

/// Which labels are about whom.
fn by_identity(labels: &[Label]) -> HashMap<&str, Vec<usize>> {
    let mut by: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, label) in labels.iter().enumerate() {
        label.identities.iter().for_each(|identity| by.entry(identity).or_default().push(place));
    }
    by
}

fn reasons(verdict: &Verdict) -> Vec<(&'static str, f64)> {
    verdict.reasons.iter().take(4).map(|reason| (reason.detector.name(), reason.bits)).collect()
}

/// Runs a mesh.
pub(crate) fn evaluate(folder: &Path, without: &[Question]) -> Evaluated {
    let known = labels(&folder.join("labels.jsonl"));
    let changes = labels(&folder.join("changes.jsonl"));
    let by = by_identity(&known);
    let of = |name: &str, at: Timestamp, after: Span| -> Vec<usize> {
        let places = by.get(name).map(Vec::as_slice).unwrap_or_default();
        let is_about = |&place: &usize| at >= known[place].start - SKEW && at <= known[place].end + after;
        places.iter().copied().filter(is_about).collect()
    };
    let blank = |label: &Label| Attack {
        label: label.clone(),
        entered: [None; 4],
        reasons: Vec::new(),
        best: (0.0, None),
        identity_bits: 0.0,
    };
    let mut attacks: Vec<Attack> = known.iter().map(blank).collect();
    let mut worst: HashMap<(String, i64), Honest> = HashMap::new();
    let (mut entries, mut first) = (Vec::new(), None);
    let ran = replay::run(
        stream::of_mesh(folder),
        without,
        |_| true,
        |event, observed| {
            let Observed::Scored { bits, identity_bits, leading } = observed else { return };
            let (now, name) = (event.report(), event.source().principal());
            let settled = *first.get_or_insert(now) + Span::DAY;
            for place in of(name, now, GRACE) {
                let attack = &mut attacks[place];
                attack.identity_bits = attack.identity_bits.max(identity_bits);
                if bits > attack.best.0 {
                    attack.best = (bits, leading);
                }
            }
            if identity_bits > 0.0 && now > settled && of(name, now, AFTERMATH).is_empty() {
                let honest = || Honest { bits: f64::MIN, identity: name.to_owned(), at: now, leading };
                let day = worst.entry((name.to_owned(), now.window(Span::DAY))).or_insert_with(honest);
                if identity_bits > day.bits {
                    *day = Honest { bits: identity_bits, at: now, leading, ..honest() };
                }
            }
        },
        |verdict| entries.push(verdict.clone()),
    );
    let mut wrongful = Vec::new();
    for verdict in entries {
        let at = verdict.decided;
        let is_absence = verdict.reasons.first().is_some_and(|reason| OF_ABSENCE.contains(&reason.detector));
        let grace = if is_absence { ABSENCE } else { GRACE };
        let mut places = of(&verdict.identity, at, grace);
        places.extend(of(&verdict.subject.principal, at, grace));
        for &place in &places {
            let attack = &mut attacks[place];
            attack.entered[..levels(&verdict)].iter_mut().for_each(|first| _ = first.get_or_insert(at));
            if attack.reasons.is_empty() {
                attack.reasons = reasons(&verdict);
            }
        }
        if places.is_empty() {
            let amid = amid(&changes, &known, &verdict);
            let identity = verdict.identity.clone();
            wrongful.push(Wrongful { at, identity, level: verdict.level, amid, reasons: reasons(&verdict) });
        }
    }
    let mut honest: Vec<Honest> = worst.into_values().collect();
    honest.sort_by(|a, b| b.bits.total_cmp(&a.bits).then(a.at.cmp(&b.at)));
    Evaluated { name: folder.display().to_string(), ran, attacks, wrongful, honest }
}

/// What honestly happened when somebody was entered for it.
fn amid(changes: &[Label], attacks: &[Label], verdict: &Verdict) -> String {
    let at = verdict.decided;
    let lately = |label: &Label, after: Span| at >= label.start && at <= label.end + after;
    let own = changes.iter().filter(|of| of.identities.contains(&verdict.subject.principal) && lately(of, Span::HOUR));
    let own: Vec<&str> = own.map(|of| of.kind.as_str()).collect();
    if !own.is_empty() {
        return own.join("+");
    }
    let after = attacks.iter().find(|of| of.identities.contains(&verdict.subject.principal) && lately(of, Span::DAY));
    if let Some(after) = after {
        return format!("after {}", after.kind);
    }
    const OF_ALL: [&str; 4] = ["campaign_peak", "dependency_outage", "issuer_rotation", "inventory"];
    let shared = changes.iter().find(|of| OF_ALL.contains(&of.kind.as_str()) && lately(of, Span(30 * Span::MINUTE.0)));
    shared.map_or_else(|| "nothing".to_owned(), |of| format!("amid {}", of.kind))
}

impl Evaluated {
    /// How many attacks stand above what so many honest identities reach a day.
    pub(crate) fn passing(&self, a_day: f64) -> usize {
        let place = (a_day * (self.ran.days() - 1.0)) as usize;
        let least = self.honest.get(place).map_or(0.0, |honest| honest.bits);
        self.attacks.iter().filter(|attack| attack.identity_bits > least).count()
    }

    pub(crate) fn reaching(&self, level: usize) -> usize {
        self.attacks.iter().filter(|attack| attack.entered[level].is_some()).count()
    }

    pub(crate) fn wrongful(&self, level: usize) -> usize {
        let levels = |of: &&Wrongful| of.level >= Level::BY_BEHAVIOUR[level];
        self.wrongful.iter().filter(levels).count()
    }

    pub(crate) fn sentence(&self) -> String {
        let days = self.ran.days();
        format!(
            "{}: {days:.1} days, {} attacks, watched {}, throttled {}, named {}; passing at 1·2·3·5 a day {}·{}·{}·{}; \
             wrongful a day: watched {:.1}, throttled {:.2}; restricted {}, quarantined {}; {} identities, {} edges, {:.2} MB, left out {:?}",
            self.name,
            self.attacks.len(),
            self.reaching(0),
            self.reaching(1),
            self.attacks.iter().filter(|attack| attack.is_named()).count(),
            self.passing(1.0),
            self.passing(2.0),
            self.passing(3.0),
            self.passing(5.0),
            self.wrongful(0) as f64 / days,
            self.wrongful(1) as f64 / days,
            self.wrongful(2),
            self.wrongful(3),
            self.ran.held.identities,
            self.ran.held.edges,
            self.ran.held.bytes as f64 / 1e6,
            self.ran.left_out,
        )
    }

    /// Every attack, every wrongful entry, and the honest days that stand highest.
    pub(crate) fn each(&self) -> String {
        let mut text = String::new();
        let told = |reasons: &[(&str, f64)]| {
            reasons.iter().map(|(name, bits)| format!("{name} {bits:.1}")).collect::<Vec<_>>().join(", ")
        };
        for attack in &self.attacks {
            let level = attack.entered.iter().rposition(Option::is_some);
            let level = level.map_or("missed".to_owned(), |place| Level::BY_BEHAVIOUR[place].to_string());
            text += &format!(
                "  {} {:?} {} {level}, delay {:?} s, shown {:.1}, best event {:.1} by {}; {}{}\n",
                self.name,
                attack.label.start,
                attack.label.kind,
                attack.delay(),
                attack.identity_bits,
                attack.best.0,
                attack.best.1.map_or("-", Question::name),
                told(&attack.reasons),
                if attack.is_named() || attack.reasons.is_empty() { "" } else { " (misnamed)" },
            );
        }
        for of in &self.wrongful {
            let name = &of.identity[of.identity.rfind('/').map_or(0, |at| at + 1)..];
            text += &format!("  wrongful {} {:?} {name}: {}; {}\n", of.level, of.at, of.amid, told(&of.reasons));
        }
        let kept = (3.0 * self.ran.days()) as usize;
        for honest in self.honest.iter().take(kept) {
            let leading = honest.leading.map_or("-", Question::name);
            text += &format!("  honest {:.1} {:?} {} by {leading}\n", honest.bits, honest.at, honest.identity);
        }
        text
    }
}
