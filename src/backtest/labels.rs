//! Known attacks, and which of them were found how soon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use qualm_model::{
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{table::Subject, verdict::Verdict};
use serde::Serialize;
use serde_json::{Map, Value};

use super::trust::rfc3339;

/// An entry so long after the end of an attack still finds it.
const GRACE: Span = Span(5 * Span::MINUTE.0);

/// One attack.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Label {
    start: Timestamp,
    end: Timestamp,
    kind: String,
    identities: Vec<String>,
}

/// Labels, and what was found of them so far.
#[derive(Debug)]
pub(super) struct Labels {
    labels: Vec<Label>,
    by_identity: BTreeMap<String, Vec<usize>>,
    /// First entry into each level by behaviour or a higher one, of each label.
    found: Vec<[Option<Timestamp>; 4]>,
    false_entries: [u64; 4],
}

/// The figures in `report.json`.
#[derive(Debug, Serialize)]
pub(super) struct Evaluation {
    pub(super) labels: usize,
    pub(super) found: usize,
    pub(super) missed: usize,
    pub(super) found_by_level: BTreeMap<Level, usize>,
    pub(super) false_entries: BTreeMap<Level, u64>,
    pub(super) by_kind: BTreeMap<String, OfKind>,
    pub(super) each: Vec<Each>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct OfKind {
    pub(super) labels: usize,
    pub(super) found: usize,
    pub(super) missed: usize,
    pub(super) delay_median_s: Option<f64>,
    pub(super) delay_p90_s: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Each {
    pub(super) start: String,
    pub(super) end: String,
    pub(super) kind: String,
    pub(super) identities: Vec<String>,
    pub(super) found: bool,
    /// Highest level entered.
    pub(super) level: Option<Level>,
    /// From the start to the first entry.
    pub(super) delay_s: Option<f64>,
}

impl Labels {
    /// Reads and checks a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{}: labels cannot be read; check the path given to --labels", path.display()))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let labels: Result<Vec<Label>> = lines
            .map(|(number, line)| label(line).with_context(|| format!("{}, line {}", path.display(), number + 1)))
            .collect();
        Ok(Self::new(labels?))
    }

    fn new(labels: Vec<Label>) -> Self {
        let mut by_identity: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, label) in labels.iter().enumerate() {
            for identity in &label.identities {
                by_identity.entry(identity.clone()).or_default().push(place);
            }
        }
        Self { found: vec![[None; 4]; labels.len()], labels, by_identity, false_entries: [0; 4] }
    }

    /// Takes in an entry: a step up the ladder.
    pub(super) fn enter(&mut self, verdict: &Verdict) {
        let at = verdict.decided;
        let levels = Level::BY_BEHAVIOUR.iter().take_while(|&&level| level <= verdict.level).count();
        let places: Vec<usize> = self.places(&verdict.identity, &verdict.subject, at).collect();
        for &place in &places {
            for first in &mut self.found[place][..levels] {
                first.get_or_insert(at);
            }
        }
        if places.is_empty() {
            self.false_entries[..levels].iter_mut().for_each(|count| *count += 1);
        }
    }

    /// Whether a label of an identity is about this time.
    pub(super) fn cover(&self, identity: &str, subject: &Subject, at: Timestamp) -> bool {
        self.places(identity, subject, at).next().is_some()
    }

    /// The labels that are about this time of an identity, of its principal, or of all who share that.
    fn places<'a>(&'a self, identity: &str, subject: &Subject, at: Timestamp) -> impl Iterator<Item = usize> + use<'a> {
        let whole = Subject { workload: None, ..subject.clone() }.identity();
        let mut names = vec![identity, &subject.principal, &whole];
        names.dedup();
        let places = names.into_iter().filter_map(|name| self.by_identity.get(name)).flatten().collect::<BTreeSet<_>>();
        places.into_iter().copied().filter(move |&place| {
            let label = &self.labels[place];
            at >= label.start && at <= label.end + GRACE
        })
    }

    /// The figures.
    pub(super) fn evaluate(&self) -> Evaluation {
        let mut kinds: BTreeMap<&str, (usize, Vec<f64>)> = BTreeMap::new();
        for (label, found) in self.labels.iter().zip(&self.found) {
            let (labels, delays) = kinds.entry(&label.kind).or_default();
            *labels += 1;
            delays.extend(found[0].map(|at| (at - label.start).as_seconds()));
        }
        let by_kind = kinds.into_iter().map(|(kind, (labels, delays))| (kind.to_owned(), of_kind(labels, delays)));
        let found_at = |level: usize| self.found.iter().filter(|found| found[level].is_some()).count();
        let found = found_at(0);
        Evaluation {
            labels: self.labels.len(),
            found,
            missed: self.labels.len() - found,
            found_by_level: Level::BY_BEHAVIOUR
                .into_iter()
                .enumerate()
                .map(|(n, level)| (level, found_at(n)))
                .collect(),
            false_entries: Level::BY_BEHAVIOUR.into_iter().zip(self.false_entries).collect(),
            by_kind: by_kind.collect(),
            each: self.labels.iter().zip(&self.found).map(|(label, found)| each(label, found)).collect(),
        }
    }
}

impl Evaluation {
    /// For the summary.
    pub(super) fn sentence(&self) -> String {
        let false_watched = self.false_entries.get(&Level::Watched).copied().unwrap_or_default();
        let (found, labels, missed) = (self.found, self.labels, self.missed);
        let mut text =
            format!("{found} of {labels} labels found, {missed} missed; {false_watched} entries outside every label");
        for (kind, of) in &self.by_kind {
            let delay = of.delay_median_s.map_or_else(String::new, |delay| format!(", median delay {delay:.0} s"));
            text.push_str(&format!("\n  {kind}: {} of {} found{delay}", of.found, of.labels));
        }
        text
    }
}

fn each(label: &Label, found: &[Option<Timestamp>; 4]) -> Each {
    let highest = found.iter().rposition(Option::is_some);
    Each {
        start: rfc3339(label.start),
        end: rfc3339(label.end),
        kind: label.kind.clone(),
        identities: label.identities.clone(),
        found: highest.is_some(),
        level: highest.map(|place| Level::BY_BEHAVIOUR[place]),
        delay_s: found[0].map(|at| (at - label.start).as_seconds()),
    }
}

fn of_kind(labels: usize, mut delays: Vec<f64>) -> OfKind {
    delays.sort_by(f64::total_cmp);
    OfKind {
        labels,
        found: delays.len(),
        missed: labels - delays.len(),
        delay_median_s: quantile(&delays, 0.5),
        delay_p90_s: quantile(&delays, 0.9),
    }
}

/// The quantile of sorted values, between two of them by a straight line.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

fn label(line: &str) -> Result<Label> {
    let value: Map<String, Value> = serde_json::from_str(line)
        .context("not a JSON object; a label is {\"start\", \"end\", \"kind\", \"identities\"}")?;
    let text = |field: &str| match value.get(field) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => bail!("`{field}` is {other}, but must be a text"),
        None => bail!("`{field}` is missing; a label has start, end, kind and identities"),
    };
    let time = |field: &str| -> Result<Timestamp> {
        let text = text(field)?;
        let wrong = || format!("`{field}`: `{text}` is not a time; write 2026-01-05T08:30:00Z");
        let time: jiff::Timestamp = text.parse().with_context(wrong)?;
        i64::try_from(time.as_nanosecond()).map(Timestamp).with_context(wrong)
    };
    let (start, end, kind) = (time("start")?, time("end")?, text("kind")?.to_owned());
    if end < start {
        bail!("`end` lies before `start`");
    }
    let identities = match value.get("identities") {
        Some(Value::Array(names)) if !names.is_empty() => names,
        Some(_) => bail!("`identities` must be a list of at least one name"),
        None => bail!("`identities` is missing; a label has start, end, kind and identities"),
    };
    let name = |name: &Value| name.as_str().map(str::to_owned);
    let identities: Option<Vec<String>> = identities.iter().map(name).collect();
    let identities = identities.context("`identities` must be a list of texts")?;
    Ok(Label { start, end, kind, identities })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_does_not_fit_is_refused_by_line_and_field() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("labels.jsonl");
        let good = r#"{"start":"2026-01-05T00:00:00Z","end":"2026-01-05T00:01:00Z","kind":"scan","identities":["a"]}"#;
        for (from, to, field) in [
            ("2026-01-05T00:00:00Z", "yesterday", "`start`"),
            ("\"end\"", "\"ende\"", "`end` is missing"),
            ("00:01:00Z", "00:01:00+01:00", "`end` lies before"),
            ("[\"a\"]", "[]", "`identities`"),
            ("\"scan\"", "7", "`kind` is 7"),
        ] {
            fs::write(&path, format!("{good}\n\n{}\n", good.replace(from, to))).expect("written");
            let error = format!("{:#}", Labels::read(&path).expect_err(field));
            assert!(error.contains("line 3") && error.contains(field), "{error}");
        }
        fs::write(&path, format!("{good}\n")).expect("written");
        assert_eq!(Labels::read(&path).map(|labels| labels.labels.len()).ok(), Some(1));
    }

    #[test]
    fn quantiles_lie_between_the_values() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.9), Some(3.0));
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), Some(3.0));
    }
}
