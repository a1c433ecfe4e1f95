//! Evidence against one identity, and where it stands on the ladder because of it.

mod other;

use qualm_model::{
    detector::Question,
    evidence::{Climb, Clock, Pace, SLOW_CEILING},
    level::Level,
    stats::log2,
    time::{Span, Timestamp},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::other::{Ended, Kind, Other};
use crate::{
    mesh::{Mesh, Threshold, Thresholds, threshold_of},
    table::{Object, Subject, TrustEntry},
    verdict::Verdict,
};

/// An entry is kept past its lease while the evidence is above this share of what led to it.
const HYSTERESIS: f64 = 0.5;

/// Causes remembered for one identity.
const CAUSES: usize = 8;
/// How much less each further minute of the same cause adds to the slow clock. What goes on unchanged (a new edge of
/// an honest release, until it is recognised) is one piece of evidence, not one a minute: all its minutes together
/// count twice the first. Behaviour that keeps finding new ways to be odd adds up in full.
const REPEATED: f64 = 0.5;

/// Questions that a release before took for more of the same, whatever edge or operation they were about.
const MORE_OF_THE_SAME: [Question; 8] = [
    Question::Rate1m,
    Question::Rate10m,
    Question::Rate1h,
    Question::EdgeRate,
    Question::DestinationRate,
    Question::Bigger,
    Question::Oversized,
    Question::Longer,
];

/// What the strongest event of a minute was odd in: a question about a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cause {
    pub(crate) question: u8,
    pub(crate) destination: u32,
}

/// The running minute and both clocks of one identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    minute: i64,
    best: Option<f64>,
    cause: Cause,
    /// The latest causes and how many minutes each has led.
    led: [(Cause, u16); CAUSES],
    fast: Clock,
    slow: Clock,
    #[serde(skip)]
    told: Told,
}

/// The reading that was worked out last, and all that it follows from besides the clocks.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    of: Option<(Timestamp, Timestamp, f64, Cause)>,
    reading: Reading,
    shown_bits: f64,
    /// What the clocks show without the running minute, and when.
    before: Option<(Timestamp, Reading)>,
}

impl PartialEq for Told {
    /// What was told follows from the evidence.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Whether a reading is the one of the event before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Moved,
    /// Nothing that it follows from has changed: not even the time.
    Same,
}

/// What the clocks show with the running minute in them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Reading {
    pub(crate) fast: f64,
    pub(crate) slow: f64,
}

impl Evidence {
    /// Takes in an event's bits. Returns the reading where it changed: a new minute, or a new best of this one.
    #[inline]
    pub(crate) fn add(
        &mut self,
        mesh: &Mesh,
        now: Timestamp,
        bits: f64,
        cause: Cause,
        ended: &mut impl FnMut(Ended),
    ) -> Option<(Reading, News)> {
        let minute = now.window(Span::MINUTE);
        if minute > self.minute {
            self.end_minute(mesh, ended);
            self.minute = minute;
            self.told = Told::default();
        } else if self.is_unmoved_by(now, bits) {
            return None;
        }
        let best = self.best.map_or(bits, |best| best.max(bits));
        self.best = Some(best);
        self.cause = cause;
        // Many a new best weighs no more than the one before.
        let of = Some((mesh.closed(), now, mesh.e_of_minute(best), cause));
        if self.told.of == of {
            return Some((self.told.reading, News::Same));
        }
        let before = self.before(now);
        let reading = self.with(before, mesh.z(best));
        self.told = Told { of, reading, shown_bits: 0.0, before: Some((now, before)) };
        Some((reading, News::Moved))
    }

    /// What the clocks show without the running minute.
    #[inline]
    fn before(&self, now: Timestamp) -> Reading {
        match self.told.before {
            Some((at, before)) if at == now => before,
            _ => Reading { fast: self.fast.at(Pace::Fast, now), slow: self.slow.at(Pace::Slow, now) },
        }
    }

    /// What the clocks show with the `z` bits of the running minute.
    #[inline]
    fn with(&self, before: Reading, z: f64) -> Reading {
        Reading { fast: Pace::Fast.advance(before.fast, z), slow: Pace::Slow.advance(before.slow, self.discounted(z)) }
    }

    /// The bits shown for the reading worked out last.
    pub(crate) fn shown_bits(&mut self) -> &mut f64 {
        &mut self.told.shown_bits
    }

    /// Whether an event with so many bits changes nothing: its minute has seen as odd a one.
    #[inline]
    pub(crate) fn is_unmoved_by(&self, now: Timestamp, bits: f64) -> bool {
        now.window(Span::MINUTE) <= self.minute && self.best.is_some_and(|best| bits <= best)
    }

    fn end_minute(&mut self, mesh: &Mesh, ended: &mut impl FnMut(Ended)) {
        let Some(best) = self.best.take() else { return };
        let end = Timestamp((self.minute + 1) * Span::MINUTE.0 - 1);
        let z = mesh.z(best);
        let before = self.slow.at(Pace::Slow, end);
        self.fast.commit(Pace::Fast, end, z);
        self.slow.commit(Pace::Slow, end, self.discounted(z));
        if z > 0.0 {
            self.note_cause();
        }
        ended(Ended { best, before, after: self.slow.at(Pace::Slow, end) });
    }

    /// `z` as far as its cause has not been counted before.
    fn discounted(&self, z: f64) -> f64 {
        let minutes = self.led.iter().find(|(cause, _)| *cause == self.cause).map_or(0, |(_, minutes)| *minutes);
        if z <= 0.0 || minutes == 0 { z } else { z.min(SLOW_CEILING) * repeated(minutes) }
    }

    /// Whether anything but more of the same was odd, as a release before saw it: in any of the latest causes, however
    /// long ago. Only what it decided is recomputed by this.
    pub(crate) fn showed_another_kind(&self) -> bool {
        let led = self.led.iter().filter(|(_, minutes)| *minutes > 0).map(|(cause, _)| cause.question);
        led.chain([self.cause.question]).any(|question| !MORE_OF_THE_SAME.iter().any(|&more| more as u8 == question))
    }

    /// Counts the minute for its cause; the cause longest unheard of makes room for a new one.
    fn note_cause(&mut self) {
        let known = self.led.iter().position(|(cause, minutes)| *cause == self.cause && *minutes > 0);
        let place = known.unwrap_or(CAUSES - 1);
        let minutes = known.map_or(0, |place| self.led[place].1);
        self.led.copy_within(..place, 1);
        self.led[0] = (self.cause, minutes.saturating_add(1));
    }

    /// The slow clock at `now` without the running minute.
    pub(crate) fn slow_before(&self, now: Timestamp) -> f64 {
        self.before(now).slow
    }

    /// Both clocks at `now`, the running minute included.
    pub(crate) fn reading(&self, mesh: &Mesh, now: Timestamp) -> Reading {
        self.reading_by(now, |best| mesh.e_of_minute(best))
    }

    /// Both clocks at `now`, where the e-value of a minute is told by `e` from its best bits.
    pub(crate) fn reading_by(&self, now: Timestamp, e: impl Fn(f64) -> f64) -> Reading {
        let Some(best) = self.best else { return self.before(now) };
        // A minute that has ended without a later event still counts, and decays from its end.
        let (end, z) = (Timestamp((self.minute + 1) * Span::MINUTE.0 - 1), log2(e(best)));
        if now <= end {
            return self.with(self.before(now), z);
        }
        let (mut fast, mut slow) = (self.fast, self.slow);
        fast.commit(Pace::Fast, end, z);
        slow.commit(Pace::Slow, end, self.discounted(z));
        Reading { fast: fast.at(Pace::Fast, now), slow: slow.at(Pace::Slow, now) }
    }

    /// The bits of the running minute's best event.
    pub(crate) fn best(&self) -> Option<f64> {
        self.best
    }

    /// The same with destinations numbered in the order in which they lead: which is which is all that matters, and
    /// the ids of names are another run's.
    pub(crate) fn with_ordinals(&self) -> Self {
        let mut known = Vec::with_capacity(CAUSES + 1);
        let mut numbered = |cause: &mut Cause| {
            if cause.destination == u32::MAX {
                return;
            }
            let place = known.iter().position(|of| *of == cause.destination).unwrap_or_else(|| {
                known.push(cause.destination);
                known.len() - 1
            });
            cause.destination = place as u32;
        };
        let mut of = Self { told: Told::default(), ..*self };
        numbered(&mut of.cause);
        of.led.iter_mut().filter(|(_, minutes)| *minutes > 0).for_each(|(cause, _)| numbered(cause));
        of
    }

    /// Follows the episodes of both clocks, for the curve.
    pub(crate) fn follow(&mut self, now: Timestamp, reading: Reading, climbed: &mut impl FnMut(Pace, Climb)) {
        let before = self.before(now);
        if let Some(climb) = self.fast.follow(now, before.fast, reading.fast) {
            climbed(Pace::Fast, climb);
        }
        if let Some(climb) = self.slow.follow(now, before.slow, reading.slow) {
            climbed(Pace::Slow, climb);
        }
    }

    /// When the running episode began.
    pub(crate) fn episode_since(&self) -> Option<Timestamp> {
        match (self.fast.episode_since(), self.slow.episode_since()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// What is left of a minute whose cause has led so many: [`REPEATED`] to the power of them.
#[inline]
fn repeated(minutes: u16) -> f64 {
    const { assert!(REPEATED == 0.5, "halves are exact: an exponent") };
    const BIAS: u16 = 1023;
    if minutes < BIAS {
        f64::from_bits(u64::from(BIAS - minutes) << 52)
    } else {
        libm::pow(REPEATED, f64::from(minutes))
    }
}

/// A level that the evidence reaches, by which clock and by how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reached {
    pub(crate) level: Level,
    pub(crate) pace: Pace,
    pub(crate) m: f64,
    pub(crate) threshold: f64,
}

/// The highest level up to `most` whose threshold, times `share`, the reading reaches.
pub(crate) fn reached(thresholds: &Thresholds, reading: Reading, most: Level, share: f64) -> Option<Reached> {
    Level::BY_BEHAVIOUR.into_iter().rev().filter(|&level| level <= most).find_map(|level| {
        let Threshold { fast, slow } = threshold_of(thresholds, level);
        let over = |m: f64, pace, threshold: Option<f64>| {
            threshold.filter(|&threshold| m >= share * threshold).map(|threshold| Reached { level, pace, m, threshold })
        };
        over(reading.slow, Pace::Slow, slow).or_else(|| over(reading.fast, Pace::Fast, fast))
    })
}

/// Where an identity stands: above *trusted*, by whose decision, until when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) level: Level,
    pub(crate) decision: String,
    #[serde(with = "without_workload")]
    pub(crate) subject: Subject,
    /// Start of the episode, event time.
    pub(crate) episode: Timestamp,
    /// How many entries this episode has led to.
    pub(crate) ordinal: u32,
    /// When it was decided, wall time.
    pub(crate) decided: Timestamp,
    /// When the lease ends, wall time.
    pub(crate) expires: Timestamp,
    /// Decided on events too old to act on: not in the table, and weighed again by the next event of today.
    pub(crate) historic: bool,
    pub(crate) enforce: bool,
    /// It is to be limited and must not be (protected, blast radius): a shadow.
    pub(crate) held: bool,
    pub(crate) evidence_bits: f64,
    pub(crate) reason: String,
}

/// A subject as snapshots have always had it: its workload is in the name of its source.
mod without_workload {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::table::Subject;

    pub(super) fn serialize<S: Serializer>(subject: &Subject, serializer: S) -> Result<S::Ok, S::Error> {
        (&subject.principal, &subject.cluster, &subject.instance).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Subject, D::Error> {
        let (principal, cluster, instance) = Deserialize::deserialize(deserializer)?;
        Ok(Subject { principal, cluster, workload: None, instance })
    }
}

impl Standing {
    /// Where a verdict leaves its identity; `None` where it leaves it trusted. `ordinal` counts the entries of the
    /// episode.
    pub(crate) fn after(verdict: &Verdict, ordinal: u32) -> Option<Self> {
        Some(Self {
            level: verdict.level,
            decision: verdict.decision.clone(),
            subject: verdict.subject.clone(),
            episode: verdict.episode,
            ordinal,
            decided: verdict.decided,
            expires: verdict.expires?,
            historic: verdict.historic,
            enforce: verdict.enforce || verdict.held.is_some(),
            held: verdict.held.is_some(),
            evidence_bits: verdict.evidence_bits,
            reason: verdict.reasons.first().map_or_else(String::new, |reason| reason.detector.name().to_owned()),
        })
    }

    /// Its line of the trust table; `None` for what is history only.
    pub(crate) fn entry(&self) -> Option<TrustEntry> {
        (!self.historic).then(|| TrustEntry {
            decision: self.decision.clone(),
            subject: self.subject.clone(),
            object: Object::Any,
            level: self.level,
            enforce: self.enforce && !self.held,
            decided: self.decided,
            expires: self.expires,
            evidence_bits: self.evidence_bits,
            co_owners: Vec::new(),
            reason: self.reason.clone(),
            known: None,
        })
    }

    /// Whether enforcement points limit or deny because of it.
    pub(crate) fn limits(&self) -> bool {
        self.level.limits() && self.enforce && !self.held && !self.historic
    }

    /// Whether enforcement points deny because of it.
    pub(crate) fn denies(&self) -> bool {
        self.limits() && self.level.denies()
    }

    /// The level that evidence supports when a lease has ended: what was entered stays while half of what led to
    /// it is still there.
    pub(crate) fn supported(&self, thresholds: &Thresholds, reading: Reading) -> Level {
        reached(thresholds, reading, self.level, HYSTERESIS).map_or(Level::Trusted, |reached| reached.level)
    }
}
