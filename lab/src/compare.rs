//! `lab compare`: two runs side by side.

use std::{collections::BTreeSet, path::Path};

use anyhow::Result;
use qualm_model::level::Level;

use crate::{
    cli::CompareArgs,
    evaluate::{Entries, Evaluation, Ranking, entries},
    ranking::{Figures, RATES},
    table::table,
};

/// So many decisions of one run alone are named.
const NAMED: usize = 20;

/// One figure of both runs.
struct Figure {
    name: String,
    before: Option<f64>,
    after: Option<f64>,
    decimals: usize,
}

/// Runs the command, and says what to print.
///
/// # Errors
/// A run was not evaluated, or cannot be read.
pub(crate) fn run(args: &CompareArgs) -> Result<String> {
    let (before, after) = (Evaluation::read(&args.before)?, Evaluation::read(&args.after)?);
    let mut parts = vec![told(&figures(&before, &after))];
    if (before.per, before.window_s, &before.without) != (after.per, after.window_s, &after.without) {
        parts.push(
            "not the same question: --per, --window or --without differ, and with them what the figures mean"
                .to_owned(),
        );
    }
    let decided = |out: &Path| -> Result<BTreeSet<(String, Level)>> {
        let entries = entries::read(&out.join("trust.jsonl"))?;
        Ok(entries.into_iter().map(|entry| (entry.identity, entry.level)).collect())
    };
    let (of_before, of_after) = (decided(&args.before)?, decided(&args.after)?);
    for (words, of, others) in [("before alone", &of_before, &of_after), ("after alone", &of_after, &of_before)] {
        let alone: Vec<String> =
            of.difference(others).map(|(identity, level)| format!("  {identity}: {level}")).collect();
        let more = alone.len().saturating_sub(NAMED);
        let mut lines = vec![format!("{} decisions of {words}", alone.len())];
        lines.extend(alone.into_iter().take(NAMED));
        if more > 0 {
            lines.push(format!("  and {more} more"));
        }
        parts.push(lines.join("\n"));
    }
    Ok(parts.join("\n\n"))
}

fn figures(before: &Evaluation, after: &Evaluation) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, of_before, of_after) in
        [("event", &before.events, &after.events), ("collapsed", &before.collapsed, &after.collapsed)]
    {
        of_ranking(name, of_before, of_after, &mut figures);
    }
    of_entries(&before.entries, &after.entries, &mut figures);
    for (of_before, of_after) in before.calibration.budget.iter().zip(&after.calibration.budget) {
        figures.push(Figure {
            name: format!("{}: entries a day outside of labels", of_before.level),
            before: Some(of_before.entries_per_day),
            after: Some(of_after.entries_per_day),
            decimals: 3,
        });
    }
    figures
}

fn of_ranking(name: &str, before: &Ranking, after: &Ranking, figures: &mut Vec<Figure>) {
    let mut add = |what: String, of: fn(&Figures) -> Option<f64>, pair: (Option<&Figures>, Option<&Figures>)| {
        let (before, after) = (pair.0.and_then(of), pair.1.and_then(of));
        figures.push(Figure { name: format!("{name} {what}"), before, after, decimals: 4 });
    };
    let all = (Some(&before.all), Some(&after.all));
    add("AUC".to_owned(), |of| of.auc, all);
    add(format!("TPR at {}", RATES[0].0), |of| of.tpr[0], all);
    add(format!("TPR at {}", RATES[1].0), |of| of.tpr[1], all);
    add(format!("TPR at {}", RATES[2].0), |of| of.tpr[2], all);
    add("average precision".to_owned(), |of| of.average_precision, all);
    let kinds: BTreeSet<&String> = before.by_kind.keys().chain(after.by_kind.keys()).collect();
    for kind in kinds {
        add(format!("AUC of {kind}"), |of| of.auc, (before.by_kind.get(kind), after.by_kind.get(kind)));
    }
}

fn of_entries(before: &Entries, after: &Entries, figures: &mut Vec<Figure>) {
    let count = |of: &Entries, level: Level| of.found.get(&level).map(|&found| found as f64);
    for level in Level::BY_BEHAVIOUR {
        figures.push(Figure {
            name: format!("{level}: labels found of {}", after.labels),
            before: count(before, level),
            after: count(after, level),
            decimals: 0,
        });
    }
}

fn told(figures: &[Figure]) -> String {
    let line = |of: &Figure| {
        let decimals = of.decimals;
        let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"));
        let difference = of.before.zip(of.after).map(|(before, after)| after - before);
        let difference = difference.map_or_else(|| "–".to_owned(), |value| format!("{value:+.decimals$}"));
        vec![of.name.clone(), number(of.before), number(of.after), difference]
    };
    let lines: Vec<Vec<String>> = figures.iter().map(line).collect();
    table(&["", "before", "after", "difference"], &lines)
}
