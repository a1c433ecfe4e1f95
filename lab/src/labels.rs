//! Known attacks, by identity and time: JSON lines `start end kind identities`, as `qualm backtest --labels` takes them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use qualm_model::time::{Span, Timestamp};
use serde::Deserialize;

/// An entry so long after the end of an attack still finds it.
pub(crate) const GRACE: Span = Span(5 * Span::MINUTE.0);

/// One attack.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Label {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) kind: String,
    pub(crate) identities: Vec<String>,
}

/// All of them, by whom they are about.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    pub(crate) all: Vec<Label>,
    by_identity: BTreeMap<String, Vec<usize>>,
}

#[derive(Deserialize)]
struct Line {
    start: String,
    end: String,
    kind: String,
    identities: Vec<String>,
}

impl Labels {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, or a line is no label; the message names file and line.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("{}: labels cannot be read; check the path given to --labels", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let labels: Result<Vec<Label>> =
            lines.map(|(number, line)| label(line).with_context(|| format!("line {}", number + 1))).collect();
        Ok(Self::new(labels?))
    }

    /// Of these attacks.
    pub(crate) fn new(all: Vec<Label>) -> Self {
        let mut by_identity: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, label) in all.iter().enumerate() {
            for identity in &label.identities {
                by_identity.entry(identity.clone()).or_default().push(place);
            }
        }
        Self { all, by_identity }
    }

    /// Leaves out the attacks of these kinds.
    pub(crate) fn without(self, kinds: &[String]) -> Self {
        Self::new(self.all.into_iter().filter(|label| !kinds.contains(&label.kind)).collect())
    }

    /// Places of the labels of an identity, of its principal, or of all who share it, that are about this time or end at
    /// most `grace` before it.
    pub(crate) fn about(&self, identity: &str, at: Timestamp, grace: Span) -> impl Iterator<Item = usize> + '_ {
        let whole = identity.split_once('#').map_or(identity, |(whole, _)| whole);
        let principal = whole.rsplit_once('@').map_or(whole, |(principal, _)| principal);
        let mut names = vec![identity, whole, principal];
        names.dedup();
        let mut places: Vec<usize> =
            names.into_iter().filter_map(|name| self.by_identity.get(name)).flatten().copied().collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter(move |&place| {
            let label = &self.all[place];
            at >= label.start && at <= label.end + grace
        })
    }
}

fn label(line: &str) -> Result<Label> {
    let line: Line = serde_json::from_str(line)
        .context("no label: it is a JSON object with the texts `start`, `end`, `kind` and the list `identities`")?;
    let (start, end) = (time(&line.start).context("`start`")?, time(&line.end).context("`end`")?);
    ensure!(end >= start, "`end` lies before `start`");
    if line.identities.is_empty() {
        bail!("`identities` must be a list of at least one name");
    }
    Ok(Label { start, end, kind: line.kind, identities: line.identities })
}

/// An RFC 3339 time.
///
/// # Errors
/// It is none, or not within the years 1678 to 2262.
pub(crate) fn time(text: &str) -> Result<Timestamp> {
    let wrong = || format!("`{text}` is not a time; write 2026-01-05T08:30:00Z");
    let time: jiff::Timestamp = text.parse().with_context(wrong)?;
    i64::try_from(time.as_nanosecond()).map(Timestamp).with_context(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        r#"{"start":"2026-01-05T00:00:00Z","end":"2026-01-05T00:01:00Z","kind":"scan","identities":["a"],"pace":1}"#;

    #[test]
    fn a_label_is_about_all_names_of_its_identity_for_its_time() {
        let labels = Labels::new(vec![label(LINE).unwrap()]);
        let at = |text| time(text).unwrap();
        for name in ["a", "a@east", "a#cart", "a@east#cart"] {
            assert_eq!(labels.about(name, at("2026-01-05T00:00:30Z"), Span(0)).count(), 1, "{name}");
        }
        assert_eq!(labels.about("b", at("2026-01-05T00:00:30Z"), Span(0)).count(), 0);
        assert_eq!(labels.about("a", at("2026-01-05T00:03:00Z"), Span(0)).count(), 0);
        assert_eq!(labels.about("a", at("2026-01-05T00:03:00Z"), GRACE).count(), 1);
    }

    #[test]
    fn a_line_that_is_no_label_is_named() {
        for (from, to, said) in
            [("00:01:00Z", "soon", "`end`"), ("[\"a\"]", "[]", "identities"), ("\"kind\"", "\"kin\"", "`kind`")]
        {
            let error = format!("{:#}", Labels::parse(&format!("{LINE}\n\n{}\n", LINE.replace(from, to))).unwrap_err());
            assert!(error.contains("line 3") && error.contains(said), "{error}");
        }
    }
}
