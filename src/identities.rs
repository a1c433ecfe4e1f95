//! Whom a name, or a part of one, means.

use qualm_model::identity::Hierarchy;
use qualm_scorer::notify::plain;

/// So many names are listed where several or none fit.
const LISTED: usize = 10;

/// Whom a part of a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chosen {
    None,
    One(String),
    Several(Vec<String>),
}

/// The whole name, else the one whose service is called so, else the only one that contains it.
pub(crate) fn choose(part: &str, names: &[&String]) -> Chosen {
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

/// The three names that are nearest to what was asked for.
pub(crate) fn nearest<'a>(part: &str, names: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let nearness =
        |name: &String| strsim::jaro_winkler(name, part).max(strsim::jaro_winkler(Hierarchy::of(name).service, part));
    let mut nearest: Vec<(f64, &String)> = names.map(|name| (nearness(name), name)).collect();
    nearest.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    nearest.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Names for people, one a line.
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let mut lines: Vec<String> = names.take(LISTED).map(|name| format!("  {}", plain(name))).collect();
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}
