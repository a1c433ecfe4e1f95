//! Whom a part of a name means.

use std::{collections::BTreeSet, path::Path};

use qualm_model::identity::Hierarchy;
use qualm_scorer::{notify::plain, snapshot::Glance};

/// So many names are listed where several or none fit.
const LISTED: usize = 10;

/// Whom a part of a name means.
pub(super) enum Chosen {
    None,
    One(String),
    Several(Vec<String>),
}

/// The whole name, else the one whose service is called so, else the only one that contains it.
pub(super) fn choose(part: &str, names: &[&String]) -> Chosen {
    let is_whole = |name: &&&String| name.as_str() == part;
    let is_service = |name: &&&String| {
        let workload = name.rsplit_once('#').is_some_and(|(_, workload)| workload == part);
        workload || Hierarchy::of(name.split('@').next().unwrap_or(name)).service == part
    };
    if let Some(name) = names.iter().find(is_whole) {
        return Chosen::One((**name).clone());
    }
    let services: Vec<_> = names.iter().filter(is_service).collect();
    match (services.as_slice(), names) {
        ([one], _) => Chosen::One((**one).to_owned()),
        (_, [one]) => Chosen::One((*one).clone()),
        (_, []) => Chosen::None,
        (_, several) => Chosen::Several(several.iter().map(|name| (*name).clone()).collect()),
    }
}

/// That nobody is called so, and who is called nearly so.
pub(super) fn nobody(part: &str, decided: &BTreeSet<String>, glance: Option<&Glance>, directory: &Path) -> String {
    let mut names: BTreeSet<&String> = decided.iter().collect();
    names.extend(glance.into_iter().flat_map(|glance| &glance.names));
    let head = format!(
        "`{}` is not known: of {} in journal and snapshot of {} none is called so; it has made no call that was read \
         (the last snapshot may be some seconds old), or it has another name",
        plain(part),
        match names.len() {
            1 => "1 identity".to_owned(),
            many => format!("{many} identities"),
        },
        directory.display()
    );
    let mut nearest: Vec<(f64, &String)> = names
        .into_iter()
        .map(|name| {
            (strsim::jaro_winkler(name, part).max(strsim::jaro_winkler(Hierarchy::of(name).service, part)), name)
        })
        .collect();
    nearest.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    if nearest.is_empty() {
        return head;
    }
    format!("{head}; the nearest:\n{}", listed(nearest.iter().map(|(_, name)| *name).take(3)))
}

pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let mut lines: Vec<String> = names.take(LISTED).map(|name| format!("  {}", plain(name))).collect();
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}
