//! The fit: who behaves like whom, and how the windows of peers vary. A pure function of profiles in the order of names.

use std::cmp::Reverse;

use linfa::{
    DatasetBase,
    traits::{Fit, Predict},
};
use linfa_clustering::{KMeans, KMeansInit};
use linfa_linalg::eigh::{EigSort, Eigh};
use ndarray::Array2;
use qualm_model::{
    detector::Unlike,
    peers::{EXPLAINED, FEATURES, Group, LEAST_VARIANCE, Peers, Profile, TRIANGLE, Vector},
};

/// Identities below which nobody has peers.
pub const LEAST_MEMBERS: usize = 8;
/// Groups at most, everybody not counted.
const MOST_GROUPS: usize = 16;
/// A group of fewer identities, or of fewer windows a feature, tells nothing of its own: its members are held against
/// everybody.
const LEAST_IN_GROUP: usize = 3;
const LEAST_WINDOWS_A_FEATURE: f64 = 10.0;
/// Least spread of a feature over identities: where all do the same, a hair's breadth is no difference.
const LEAST_SPREAD: f64 = 0.1;
/// K-means is begun so often, and the best outcome kept; its dice have a fixed seed.
const RUNS: usize = 4;
/// Digits after the point that a fit keeps: what comes behind differs with the processor's way of adding up.
const DIGITS: f64 = 1e6;

/// One identity to fit.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Its name.
    pub identity: String,
    /// Its windows.
    pub profile: Profile,
}

/// Fits peers to identities, whatever their order; `None` where there are too few.
pub fn fit(mut members: Vec<Member>) -> Option<Peers> {
    members.retain(|member| member.profile.windows >= Unlike::LEAST_WINDOWS);
    if members.len() < LEAST_MEMBERS {
        return None;
    }
    members.sort_by(|a, b| a.identity.cmp(&b.identity));
    let means: Vec<Vector> = members.iter().map(|member| member.profile.mean()).collect();
    let (mean, spread) = standard(&means);
    let places: Vec<Vector> = means.iter().map(|of| std::array::from_fn(|f| (of[f] - mean[f]) / spread[f])).collect();
    let mut groups = vec![group(&members.iter().collect::<Vec<_>>(), [0.0; FEATURES])];
    let mut found: Vec<(Vector, Vec<&Member>)> = clusters(&places)
        .into_iter()
        .map(|(centre, of)| (centre, of.into_iter().map(|at| &members[at]).collect()))
        .collect();
    // The greatest first; those of one size in the order of their centres.
    found.sort_by(|a, b| Reverse(a.1.len()).cmp(&Reverse(b.1.len())).then_with(|| order(&a.0, &b.0)));
    for (centre, of) in found {
        let windows: f64 = of.iter().map(|member| member.profile.windows).sum();
        let tells = of.len() >= LEAST_IN_GROUP && windows >= LEAST_WINDOWS_A_FEATURE * FEATURES as f64;
        // Whoever is nearest to it is nobody's peer, and held against everybody.
        let everybody = Group { centre, members: of.len() as u32, ..groups[0].clone() };
        groups.push(if tells { group(&of, centre) } else { everybody });
    }
    let peers = Peers { mean: mean.map(rounded), spread: spread.map(rounded), groups };
    peers.check().is_ok().then_some(peers)
}

fn order(a: &Vector, b: &Vector) -> std::cmp::Ordering {
    a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}

fn rounded(x: f64) -> f64 {
    (x * DIGITS).round() / DIGITS
}

/// Mean and standard deviation over identities.
fn standard(means: &[Vector]) -> (Vector, Vector) {
    let count = means.len() as f64;
    let mean: Vector = std::array::from_fn(|f| means.iter().map(|of| of[f]).sum::<f64>() / count);
    let variance = |f: usize| means.iter().map(|of| (of[f] - mean[f]) * (of[f] - mean[f])).sum::<f64>() / count;
    (mean, std::array::from_fn(|f| libm::sqrt(variance(f)).max(LEAST_SPREAD)))
}

/// Centres, and who is nearest to each. `√(n/2)` groups of `n` identities (the rule of thumb of Mardia, Kent & Bibby,
/// *Multivariate Analysis*, 1979).
fn clusters(places: &[Vector]) -> Vec<(Vector, Vec<usize>)> {
    let count = (libm::sqrt(places.len() as f64 / 2.0).round() as usize).clamp(1, MOST_GROUPS);
    let rows: Vec<f64> = places.iter().flatten().copied().collect();
    let Ok(rows) = Array2::from_shape_vec((places.len(), FEATURES), rows) else { return Vec::new() };
    let data = DatasetBase::from(rows);
    let fitted = KMeans::params(count).init_method(KMeansInit::KMeansPlusPlus).n_runs(RUNS).fit(&data);
    // It found no way to part them: everybody is one group.
    let Ok(fitted) = fitted else { return Vec::new() };
    let nearest = fitted.predict(&data);
    let centre = |group: usize| -> Vector { std::array::from_fn(|f| rounded(fitted.centroids()[(group, f)])) };
    let of = |group: usize| (0..places.len()).filter(|&at| nearest[at] == group).collect::<Vec<_>>();
    (0..count).map(|group| (centre(group), of(group))).filter(|(_, of)| !of.is_empty()).collect()
}

/// How the windows of these identities vary around their own means: the principal axes of their common scatter.
fn group(members: &[&Member], centre: Vector) -> Group {
    let mut scatter = [0.0; TRIANGLE];
    let (mut windows, mut freedom) = (0.0, 0.0);
    for member in members {
        for (sum, of) in scatter.iter_mut().zip(member.profile.scatter()) {
            *sum += of;
        }
        windows += member.profile.windows;
        // Each has its own mean.
        freedom += (member.profile.windows - 1.0).max(0.0);
    }
    let freedom = freedom.max(1.0);
    let mut covariance = Array2::<f64>::zeros((FEATURES, FEATURES));
    let mut at = 0;
    for row in 0..FEATURES {
        for column in 0..=row {
            let of = scatter[at] / freedom;
            (covariance[(row, column)], covariance[(column, row)]) = (of, of);
            at += 1;
        }
    }
    let (axes, rest) = principal(&covariance);
    Group { centre, members: members.len() as u32, windows: rounded(windows), axes, rest }
}

/// Axes that explain most of the variance, and what is left in each other direction.
fn principal(covariance: &Array2<f64>) -> (Vec<(Vector, f64)>, f64) {
    let Ok((variances, vectors)) = covariance.eigh().map(EigSort::sort_eig_desc) else {
        return (Vec::new(), LEAST_VARIANCE);
    };
    let variances: Vec<f64> = variances.iter().map(|of| of.max(0.0)).collect();
    let all: f64 = variances.iter().sum();
    let mut explained = 0.0;
    let kept = variances
        .iter()
        .position(|of| {
            explained += of;
            explained >= EXPLAINED * all
        })
        .map_or(FEATURES, |last| last + 1);
    let axis = |at: usize| -> Vector { std::array::from_fn(|f| vectors[(f, at)]) };
    let axes = (0..kept).map(|at| (one_way(axis(at)).map(rounded), rounded(variances[at].max(LEAST_VARIANCE))));
    let others = &variances[kept..];
    let rest = others.iter().sum::<f64>() / others.len().max(1) as f64;
    (axes.collect(), rounded(rest.max(LEAST_VARIANCE)))
}

/// An axis has two ends; of both the one whose greatest part is positive is written.
fn one_way(axis: Vector) -> Vector {
    let greatest = axis.iter().fold(0.0_f64, |most, x| if x.abs() > most.abs() { *x } else { most });
    if greatest < 0.0 { axis.map(|x| -x) } else { axis }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Identities of two kinds: `busy` ones with many calls, and those that fetch a little; each varies in its own way.
    fn members() -> Vec<Member> {
        (0..20)
            .map(|number| {
                let is_busy = number % 2 == 0;
                let mut profile = Profile::default();
                for window in 0..50 {
                    let swing = f64::from(window % 5) - 2.0;
                    let mut vector = [0.0; FEATURES];
                    vector[0] = if is_busy { 8.0 } else { 1.0 } + 0.3 * swing;
                    vector[5] = if is_busy { 6.0 + 0.3 * swing } else { 9.0 - 0.3 * swing };
                    vector[1] = f64::from(number) * 0.01;
                    profile.learn(&vector, 1.0);
                }
                Member { identity: format!("s{number:02}"), profile }
            })
            .collect()
    }

    #[test]
    fn peers_are_found_by_what_they_do_and_not_by_name() {
        let peers = fit(members()).expect("there are enough");
        let group = |number: usize| peers.group_of(&members()[number].profile.mean()).expect("a group");
        assert!(group(0).centre[0] > 0.0 && group(2).centre[0] > 0.0);
        assert!(group(1).centre[0] < 0.0 && group(3).centre[0] < 0.0);
    }

    #[test]
    fn a_window_in_which_features_go_together_as_with_no_peer_is_farther_than_a_greater_one_of_the_usual_kind() {
        let peers = fit(members()).expect("there are enough");
        let mean = members()[0].profile.mean();
        let group = peers.group_of(&mean).expect("a group");
        let moved = |calls: f64, size: f64| {
            let mut window = mean;
            (window[0], window[5]) = (window[0] + calls, window[5] + size);
            group.distance(&window, &mean)
        };
        // With the busy ones, more calls are larger calls.
        assert!(moved(0.5, -0.5) > 5.0 * moved(0.8, 0.8), "{} {}", moved(0.5, -0.5), moved(0.8, 0.8));
    }

    #[test]
    fn the_order_of_identities_is_nobodys_business() {
        let mut turned = members();
        turned.reverse();
        assert_eq!(fit(turned), fit(members()));
    }

    #[test]
    fn too_few_identities_have_no_peers() {
        let few: Vec<Member> = members().into_iter().take(LEAST_MEMBERS - 1).collect();
        assert_eq!(fit(few), None);
    }

    #[test]
    fn identities_that_are_all_alike_are_one_group_that_can_be_reckoned_with() {
        let alike = (0..12).map(|number| Member { identity: number.to_string(), ..members()[0].clone() }).collect();
        let peers = fit(alike).expect("there are enough");
        assert_eq!(peers.check(), Ok(()));
    }
}
