//! `lab fit`: peers, and how far windows lie from what is usual, as one model file for `qualm run --model`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use qualm_model::{
    detector::Unlike,
    peers::{NAMES, Peers, Profile, Vector},
    stats::{Bins, trust},
};
use qualm_peers::{LEAST_MEMBERS, Member, Model, fit};

use crate::{
    cli::FitArgs,
    features::{self, Row},
    table::table,
};

/// It is fitted again so often without what the fit before found odd: what an attack did is nobody's usual window.
const ROUNDS: usize = 2;
/// Members of a group that are named.
const NAMED: usize = 4;

/// Runs the command, and says what to print.
///
/// # Errors
/// The table is not one of `lab features`, has too few identities, or the file cannot be written.
pub(crate) fn run(args: &FitArgs) -> Result<String> {
    let rows = features::read(&args.features)?;
    let windows = windows(&rows);
    let Some(mut peers) = fit(members(&windows, None)) else {
        bail!(
            "{}: peers need {LEAST_MEMBERS} identities with {} windows each; give `lab features` a longer history",
            args.features.display(),
            Unlike::LEAST_WINDOWS
        );
    };
    for _ in 1..ROUNDS {
        peers = fit(members(&windows, Some(&peers))).context("too few windows are left that are not odd")?;
    }
    let members = members(&windows, Some(&peers));
    let prior = prior(&windows, &members, &peers);
    let told = told(&members, &peers);
    let model = Model::new(peers, (members.len() as u64, rows.len() as u64), prior);
    model.write(&args.out).with_context(|| format!("{}: cannot be written", args.out.display()))?;
    Ok(format!("{told}\n\n{}: {}", args.out.display(), model.hash()))
}

/// The windows of each identity.
fn windows(rows: &[Row]) -> BTreeMap<&str, Vec<Vector>> {
    let mut windows: BTreeMap<&str, Vec<Vector>> = BTreeMap::new();
    for row in rows {
        windows.entry(&row.identity).or_default().push(row.sums.vector(1.0));
    }
    windows
}

/// Profiles, in the order of names. Beside a fit, what is odd by it is learned as little as the product learns it.
fn members(windows: &BTreeMap<&str, Vec<Vector>>, peers: Option<&Peers>) -> Vec<Member> {
    windows
        .iter()
        .map(|(identity, windows)| {
            let mut whole = Profile::default();
            windows.iter().for_each(|window| whole.learn(window, 1.0));
            let mut profile = Profile::default();
            for window in windows {
                let odd = peers.and_then(|peers| surprise(window, &whole, peers));
                profile.learn(window, odd.map_or(1.0, trust));
            }
            Member { identity: (*identity).to_owned(), profile }
        })
        .collect()
}

/// Of a window beside the whole of its identity's, in nats.
fn surprise(window: &Vector, profile: &Profile, peers: &Peers) -> Option<f64> {
    let mean = profile.mean();
    (profile.windows >= Unlike::LEAST_WINDOWS)
        .then(|| peers.group_of(&mean).map(|group| group.distance(window, &mean) / 2.0))
        .flatten()
}

/// How many windows fell into each bin of the question's histogram.
fn prior(windows: &BTreeMap<&str, Vec<Vector>>, members: &[Member], peers: &Peers) -> Vec<(u16, u32)> {
    let mut bins: BTreeMap<u16, u32> = BTreeMap::new();
    for member in members {
        let of = windows.get(member.identity.as_str()).into_iter().flatten();
        for odd in of.filter_map(|window| surprise(window, &member.profile, peers)) {
            *bins.entry(Bins::locate(1.0 + odd).0 as u16).or_default() += 1;
        }
    }
    bins.into_iter().collect()
}

/// The groups, and what is usual in each.
fn told(members: &[Member], peers: &Peers) -> String {
    let mut of_group: BTreeMap<usize, Vec<&Member>> = BTreeMap::new();
    for member in members.iter().filter(|member| member.profile.windows >= Unlike::LEAST_WINDOWS) {
        let group = peers.group_of(&member.profile.mean());
        let place = group.and_then(|group| peers.groups.iter().position(|other| std::ptr::eq(other, group)));
        of_group.entry(place.unwrap_or(0)).or_default().push(member);
    }
    let line = |(place, of): (&usize, &Vec<&Member>)| {
        let mean =
            |feature: usize| of.iter().map(|member| member.profile.mean()[feature]).sum::<f64>() / of.len() as f64;
        let mut line = vec![format!("group {place}"), of.len().to_string()];
        line.extend((0..NAMES.len()).map(|feature| format!("{:.2}", mean(feature))));
        let names: Vec<&str> = of.iter().take(NAMED).map(|member| member.identity.as_str()).collect();
        line.push(format!("{}{}", names.join(", "), if of.len() > NAMED { ", …" } else { "" }));
        line
    };
    let lines: Vec<Vec<String>> = of_group.iter().map(line).collect();
    let heading: Vec<&str> = ["", "members"].into_iter().chain(NAMES).chain(["who"]).collect();
    format!("{}\n(means of ln(1 + count), of asin √share, of ln(1 + bytes) and ln(1 + ms))", table(&heading, &lines))
}
