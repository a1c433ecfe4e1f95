//! The scorer over a stream, with event time as wall time, as `qualm backtest` has it.

use qualm_model::{
    detector::Question,
    event::{Event, EventBatch},
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer, Tally},
    verdict::Verdict,
};

/// Minutes of a silence that are ticked, as there.
const MOST_SILENT: i64 = 2 * 24 * 60;

/// What a run came to, besides what was told meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// Entries into each level, or a higher one.
    pub(crate) entries: [u64; 4],
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    pub(crate) held: Tally,
    /// What inputs were taken to leave out, at the end.
    pub(crate) left_out: Vec<String>,
}

impl Ran {
    pub(crate) fn days(&self) -> f64 {
        self.first.zip(self.last).map_or(0.0, |(first, last)| (last - first).as_seconds() / 86_400.0)
    }

    /// Entries of each level against the default budget.
    pub(crate) fn against_budget(&self) -> String {
        let budget = ScorerConfig::default().budget;
        let levels = Level::BY_BEHAVIOUR.iter().zip(self.entries);
        let told = levels.map(|(&level, entries)| {
            let ratio = entries as f64 / (self.days() * budget.per_day(level));
            format!("{level} {entries} ({ratio:.2})")
        });
        format!("{:.1} days, entries (÷ budget): {}", self.days(), told.collect::<Vec<_>>().join(", "))
    }
}

/// How many levels a verdict leads into: its own, and all below.
pub(crate) fn levels(verdict: &Verdict) -> usize {
    Level::BY_BEHAVIOUR.iter().take_while(|&&level| level <= verdict.level).count()
}

/// Runs the events for which `wanted` holds; `seen` hears of every event, `entered` of every step up.
pub(crate) fn run(
    batches: impl Iterator<Item = EventBatch>,
    without: &[Question],
    wanted: impl Fn(&Event<'_>) -> bool,
    mut seen: impl FnMut(&Event<'_>, Observed),
    mut entered: impl FnMut(&Verdict),
) -> Ran {
    let mut scorer = Scorer::new(ScorerConfig::default());
    scorer.limit_sources(vec![Level::Quarantined]);
    scorer.leave_aside(without.iter().copied());
    let (mut ran, mut verdicts, mut minute) = (Ran::default(), Vec::new(), None);
    let mut tell = |verdicts: &mut Vec<Verdict>, entries: &mut [u64; 4]| {
        for verdict in verdicts.drain(..).filter(|verdict| verdict.level > verdict.previous) {
            entries[..levels(&verdict)].iter_mut().for_each(|count| *count += 1);
            entered(&verdict);
        }
    };
    for batch in batches {
        scorer.open(&batch);
        for event in batch.events().filter(&wanted) {
            let (now, this) = (event.report(), event.report().window(Span::MINUTE));
            if minute != Some(this) {
                let next = minute.map_or(this, |last: i64| (last + 1).max(this - MOST_SILENT));
                (next..=this).for_each(|passed| scorer.tick(Timestamp(passed * Span::MINUTE.0), &mut verdicts));
                minute = Some(this);
            }
            let observed = scorer.observe(event, now, &mut verdicts);
            seen(&event, observed);
            tell(&mut verdicts, &mut ran.entries);
            ran.first.get_or_insert(now);
            ran.last = Some(now);
        }
        scorer.forget_changes();
    }
    ran.held = scorer.tally();
    ran.left_out = scorer.left_out().iter().map(|of| format!("{:?} since {:?}", of.filter, of.since)).collect();
    ran
}
