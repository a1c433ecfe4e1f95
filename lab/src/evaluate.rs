//! `lab evaluate`: the figures of a run whose attacks are known.

mod calibration;
pub(crate) mod entries;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use qualm_model::time::Span;
use serde::{Deserialize, Serialize};

use self::calibration::Calibration;
pub(crate) use self::entries::{Entries, Entry};
use crate::{
    cli::{EvaluateArgs, Per},
    labels::Labels,
    ranking::{Figures, RATES, Usual},
    rows::{self, Layout},
    scores::{Item, Scores},
    table::{figure, table},
};

/// What `lab evaluate` leaves beside the scores.
pub(crate) const FILE: &str = "evaluation.json";

/// All figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    /// Records, and how many of them were scored.
    pub(crate) records: usize,
    pub(crate) scored: usize,
    /// Kinds of attack that were left out.
    pub(crate) without: Vec<String>,
    /// Every row by itself.
    pub(crate) events: Ranking,
    /// What one item of `collapsed` is about, and in how many seconds.
    pub(crate) per: Per,
    pub(crate) window_s: u32,
    pub(crate) collapsed: Ranking,
    /// Labels found, and entries that belong to none.
    pub(crate) entries: Entries,
    /// Whether the bits mean what they say.
    pub(crate) calibration: Calibration,
}

/// One ranking: all attacks, and each kind by itself against everything harmless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ranking {
    pub(crate) all: Figures,
    pub(crate) by_kind: BTreeMap<String, Figures>,
}

/// Runs the command, and says what to print.
///
/// # Errors
/// The run or its labels cannot be read, or do not fit each other.
pub(crate) fn run(args: &EvaluateArgs) -> Result<String> {
    let evaluation = evaluate(args)?;
    let file = args.out.join(FILE);
    let json = serde_json::to_string_pretty(&evaluation)?;
    fs::write(&file, &json).with_context(|| format!("{}: cannot be written", file.display()))?;
    if args.json {
        return Ok(json);
    }
    Ok(format!("{}\n\n{}", evaluation.told(), file.display()))
}

fn evaluate(args: &EvaluateArgs) -> Result<Evaluation> {
    let path = args.out.join("scores.parquet");
    let (scores, labels) = match &args.labels {
        Some(file) => {
            let labels = Labels::read(file)?;
            (Scores::by_time(&path, &labels)?, Some(labels))
        }
        None => (labelled_rows(args, &path)?, None),
    };
    let scores = scores.without(&args.without)?;
    let labels = match labels {
        Some(labels) => labels.without(&args.without),
        None => Labels::new(scores.attacks()?),
    };
    let items = scores.items()?;
    let (events, usual) = Ranking::of(&items, &scores.kinds);
    let collapsed = scores.collapsed(args.per, Span::seconds(i64::from(args.window)))?;
    let decided = entries::read(&args.out.join("trust.jsonl"))?;
    let calibration = Calibration::of(&scores, &usual, &labels, &args.out, &decided)?;
    Ok(Evaluation {
        records: scores.records,
        scored: scores.len(),
        without: args.without.clone(),
        events,
        per: args.per,
        window_s: args.window,
        collapsed: Ranking::of(&collapsed, &scores.kinds).0,
        entries: Entries::of(&decided, &labels),
        calibration,
    })
}

fn labelled_rows(args: &EvaluateArgs, path: &Path) -> Result<Scores> {
    let delimiter = match args.delimiter.as_str() {
        "\\t" => b'\t',
        other => {
            ensure!(other.len() == 1, "--delimiter `{other}`: one character, or \\t");
            other.as_bytes()[0]
        }
    };
    let comment = args.comment.map(u8::try_from).transpose().context("--comment: one ASCII character")?;
    let column = args.label_column.clone().context("--label-column is missing")?;
    let layout = Layout { column, harmless: args.harmless.clone(), delimiter, comment };
    Scores::by_row(path, |take| rows::read(&args.row_labels, &layout, &mut |label| take(label)))
}

impl Ranking {
    fn of(items: &[Item], kinds: &[String]) -> (Self, Usual) {
        let mut by_kind: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
        for &(score, kind) in items {
            by_kind[kind as usize].push(score);
        }
        let usual = Usual::new(std::mem::take(&mut by_kind[0]));
        let named = kinds.iter().zip(&by_kind).skip(1).filter(|(_, scores)| !scores.is_empty());
        let of_kinds = named.map(|(kind, scores)| (kind.clone(), usual.rank(scores.clone()))).collect();
        let all = usual.rank(by_kind.into_iter().skip(1).flatten().collect());
        (Self { all, by_kind: of_kinds }, usual)
    }

    fn told(&self, items: &str) -> String {
        let line = |name: &str, figures: &Figures| {
            let mut line = vec![name.to_owned(), figures.odd.to_string(), figure(figures.auc, 4)];
            line.extend(figures.tpr.iter().map(|tpr| figure(*tpr, 3)));
            line.push(figure(figures.average_precision, 4));
            line
        };
        let mut lines: Vec<Vec<String>> = self.by_kind.iter().map(|(kind, of)| line(kind, of)).collect();
        lines.push(line("all", &self.all));
        let rates = RATES.map(|(rate, _)| format!("TPR at {rate}"));
        let heading = [items, "odd", "AUC", &rates[0], &rates[1], &rates[2], "avg. precision"];
        format!("{}\nagainst {} harmless ones", table(&heading, &lines), self.all.usual)
    }
}

impl Evaluation {
    fn told(&self) -> String {
        let per = match self.per {
            Per::Edge => "edge",
            Per::Source => "source",
        };
        let collapsed = format!("{per} in {} s", self.window_s);
        let without = if self.without.is_empty() {
            String::new()
        } else {
            format!(", without those of {}", self.without.join(", "))
        };
        [
            format!("{} records, {} scored{without}", self.records, self.scored),
            self.events.told("event"),
            self.collapsed.told(&collapsed),
            self.entries.told(),
            self.calibration.told(),
        ]
        .join("\n\n")
    }

    /// Reads what `lab evaluate` left in a directory.
    ///
    /// # Errors
    /// There is none, or it is another version's.
    pub(crate) fn read(out: &Path) -> Result<Self> {
        let file = out.join(FILE);
        let text = fs::read_to_string(&file).with_context(|| {
            format!("{}: cannot be read; run `lab evaluate {}` first", file.display(), out.display())
        })?;
        serde_json::from_str(&text)
            .with_context(|| format!("{}: of another version; run `lab evaluate` again", file.display()))
    }
}
