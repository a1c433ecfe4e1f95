//! The figures of public sets, whose labels are read here and nowhere else.

use std::collections::{BTreeMap, HashMap, HashSet};

use qualm_model::{detector::Question, time::Span};
use qualm_scorer::scorer::Observed;

use crate::{
    figures::{auc, collapsed, tpr},
    replay, stream,
};

const DARPA: (&str, &str) = ("darpa-edges/darpa_original.csv.zst", "darpa-edges.toml");
const QUIET: [&str; 6] = ["portsweep", "nmap", "dict", "warezclient", "guest", "httptunnel"];
const MINUTE: i64 = Span::MINUTE.0;

/// The class of a label: phases of an attack are marked behind a hyphen. What is harmless is called `-`.
fn class(label: &str) -> &str {
    label.split('-').next().filter(|class| !class.is_empty()).unwrap_or("-")
}

fn row(event: &qualm_model::event::Event<'_>) -> usize {
    usize::try_from(event.position().offset).unwrap()
}

/// Harmless rows above a share of the attacks, by edge and leading question: how many, the most bits, all bits.
type Harmless = HashMap<(String, String, Option<Question>), (u64, f64, Vec<f64>)>;

/// Ranking of darpa-edges, and which harmless rows stand above a share of the attacks.
pub(crate) fn darpa(without: &[Question]) -> String {
    let labels = stream::labels(DARPA.0, 0);
    let mut scores = vec![f64::MIN; labels.len()];
    let mut edges: HashMap<(i64, String, String), (f64, bool)> = HashMap::new();
    let mut harmless = Harmless::new();
    let ran = replay::run(
        stream::of_public(DARPA.0, DARPA.1),
        without,
        |_| true,
        |event, observed| {
            let Observed::Scored { bits, leading, .. } = observed else { return };
            let odd = labels[row(event)] != "-";
            scores[row(event)] = bits;
            let (from, to) = (event.source().principal().to_owned(), event.destination().principal().to_owned());
            if !odd && bits > 1.0 {
                let of = harmless.entry((from.clone(), to.clone(), leading)).or_default();
                of.0 += 1;
                of.1 = of.1.max(bits);
                of.2.push(bits);
            }
            let item = edges.entry((event.report().window(Span::MINUTE), from, to)).or_insert((bits, odd));
            *item = (item.0.max(bits), item.1 | odd);
        },
        |_| (),
    );
    let items: Vec<(f64, bool)> = scores.iter().zip(&labels).map(|(&score, label)| (score, label != "-")).collect();
    let usual: Vec<(f64, bool)> = items.iter().copied().filter(|item| !item.1).collect();
    let of_class = |wanted: &str| {
        let odd = scores.iter().zip(&labels).filter(|(_, label)| class(label) == wanted);
        auc(usual.iter().copied().chain(odd.map(|(&score, _)| (score, true))))
    };
    let quiet = QUIET.map(|class| (class, of_class(class)));
    let mean = quiet.iter().map(|(_, auc)| auc).sum::<f64>() / quiet.len() as f64;
    let loud = ["snmpgetattack", "ipsweep", "smurf", "neptune"].map(|class| (class, of_class(class)));
    let mut odd: Vec<f64> = items.iter().filter(|item| item.1).map(|item| item.0).collect();
    odd.sort_by(|a, b| b.total_cmp(a));
    let at_083 = odd[(0.83 * odd.len() as f64) as usize];
    let above = usual.iter().filter(|item| item.0 > at_083).count();
    let mut text = format!(
        "darpa: event AUC {:.4}, collapsed {:.4}, TPR at 0.1 % {:.3}, quiet {mean:.3} {quiet:.3?} {loud:.3?}\n  {}\n  at a TPR \
         of 0.83 (above {at_083:.2} bits) {above} harmless rows where {} may be; {} identities, {} edges, {:.1} MB",
        auc(items.iter().copied()),
        auc(edges.into_values()),
        tpr(&items, 0.001),
        ran.against_budget(),
        usual.len() / 1000,
        ran.held.identities,
        ran.held.edges,
        ran.held.bytes as f64 / 1e6,
    );
    let mut harmless: Vec<_> = harmless.into_iter().collect();
    let count = |bits: &[f64]| bits.iter().filter(|&&bits| bits > at_083).count();
    harmless.sort_by_key(|(_, of)| std::cmp::Reverse(count(&of.2)));
    for ((from, to, leading), (_, most, bits)) in harmless.into_iter().take(8) {
        let leading = leading.map_or("-", Question::name);
        text += &format!("\n    {from} → {to} by {leading}: {} rows, at most {most:.1} bits", count(&bits));
    }
    text
}

/// Entries of the harmless rows of darpa-edges against the budget.
pub(crate) fn darpa_benign(without: &[Question]) -> String {
    let labels = stream::labels(DARPA.0, 0);
    let ran =
        replay::run(stream::of_public(DARPA.0, DARPA.1), without, |event| labels[row(event)] == "-", |_, _| (), |_| ());
    format!("darpa, harmless rows: {}", ran.against_budget())
}

/// Ranking of the four AIT testbeds by host and five minutes, windows of `dnsteal` aside; entries before any attack.
pub(crate) fn ait(without: &[Question]) -> String {
    let mut text = String::new();
    let mut means: BTreeMap<&str, f64> = BTreeMap::new();
    for bed in ["fox", "russellmitchell", "shaw", "wardbeck"] {
        let file = format!("ait-alerts/{bed}_alerts.csv.zst");
        let labels = stream::labels(&file, 1);
        let (mut rows, mut begins) = (Vec::new(), i64::MAX);
        replay::run(
            stream::of_public(&file, "ait-alerts.toml"),
            without,
            |_| true,
            |event, observed| {
                let bits = if let Observed::Scored { bits, .. } = observed { bits } else { f64::MIN };
                if labels[row(event)] != "-" {
                    begins = begins.min(event.report().0);
                }
                let window = (event.source().principal().to_owned(), event.report().0.div_euclid(5 * MINUTE));
                rows.push((window, bits, row(event)));
            },
            |_| (),
        );
        let aside: HashSet<_> = rows.iter().filter(|of| labels[of.2] == "dnsteal").map(|of| of.0.clone()).collect();
        let kept = rows.into_iter().filter(|of| !aside.contains(&of.0));
        let windows = collapsed(kept.map(|(window, bits, row)| (window, bits, labels[row] != "-")));
        let (area, found) = (auc(windows.iter().copied()), tpr(&windows, 0.01));
        *means.entry("AUC").or_default() += area / 4.0;
        *means.entry("TPR at 1 %").or_default() += found / 4.0;
        let before = replay::run(
            stream::of_public(&file, "ait-alerts.toml"),
            without,
            |event| event.report().0 < begins,
            |_, _| (),
            |_| (),
        );
        text += &format!("ait {bed}: AUC {area:.4}, TPR {found:.3}; before: {}\n", before.against_budget());
    }
    text + &format!("ait mean {means:.4?}")
}
