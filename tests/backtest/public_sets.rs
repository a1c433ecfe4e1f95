//! Floors of the figures on public sets: `../shared/data` beside the repository. Skipped with a message where it is
//! missing; an error under `QUALM_REQUIRE_DATA=1`. The labels are read here, and by no detector.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    figures::{auc, collapsed, tpr},
    output::{Row, Texts, backtest},
};

const MINUTE: i64 = 60_000_000_000;

/// The file of a data set, `None` where the data are not there.
fn data(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(file);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("QUALM_REQUIRE_DATA").is_ok_and(|value| value == "1");
    assert!(!required, "{} is missing and QUALM_REQUIRE_DATA=1", path.display());
    eprintln!("SKIPPED: {} is missing", path.display());
    None
}

/// The scores of a set with its own mapping, row by row with the last column of each.
fn scored(path: &Path, mapping: &str, header: usize) -> Vec<(Row, Arc<str>)> {
    let mapping = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/mappings").join(mapping);
    let backtest = backtest(&[path], &["--mapping", mapping.to_str().unwrap()]);
    eprintln!("{}\n{}", path.display(), backtest.stdout);
    let lines = BufReader::new(zstd::stream::read::Decoder::new(File::open(path).unwrap()).unwrap()).lines();
    let mut texts = Texts::default();
    let labels = lines.skip(header).map(|line| texts.shared(line.unwrap().rsplit(',').next().unwrap()));
    let (scores, labels): (Vec<Row>, Vec<Arc<str>>) = (backtest.scores(), labels.collect());
    assert_eq!(scores.len(), labels.len());
    scores.into_iter().zip(labels).collect()
}

fn score(row: &Row) -> f64 {
    // An attack that cannot be read is not found.
    row.score_bits.unwrap_or(f64::MIN)
}

#[test]
fn data_darpa_edges_are_ranked_above_the_floors() {
    let Some(path) = data("darpa-edges/darpa_original.csv.zst") else { return };
    let rows = scored(&path, "darpa-edges.toml", 0);
    let is_attack = |label: &str| label != "-";
    let unscored = rows.iter().filter(|(row, _)| row.score_bits.is_none()).count();
    assert_eq!(unscored, 10, "only the ten impossible dates have no score");
    let items: Vec<(f64, bool)> = rows.iter().map(|(row, label)| (score(row), is_attack(label))).collect();
    let event = auc(items.iter().copied());
    let found = tpr(&items, 0.001);
    let edges = collapsed(rows.iter().map(|(row, label)| {
        let minute = row.time.map(|time| time.div_euclid(MINUTE));
        ((minute, &row.source, &row.destination), score(row), is_attack(label))
    }));
    let edge = auc(edges);
    let usual: Vec<(f64, bool)> = items.iter().copied().filter(|item| !item.1).collect();
    let quiet = ["portsweep", "nmap", "dict", "warezclient", "guest", "httptunnel"].map(|class| {
        // Phases of an attack are marked behind a hyphen: httptunnel-e.
        let of_class = rows.iter().filter(|(_, label)| label.split('-').next() == Some(class));
        let of_class = of_class.map(|(row, _)| (score(row), true));
        (class, auc(usual.iter().copied().chain(of_class)))
    });
    let mean = quiet.iter().map(|(_, auc)| auc).sum::<f64>() / quiet.len() as f64;
    eprintln!("event AUC {event:.4}, TPR at 0.1 % {found:.3}, collapsed {edge:.4}, quiet {mean:.3} {quiet:.3?}");
    assert!(event >= 0.98, "event AUC {event:.4}");
    assert!(edge >= 0.955, "collapsed AUC {edge:.4}");
    assert!(mean >= 0.68, "mean AUC of the quiet classes {mean:.3}");
}

#[test]
fn data_ait_alerts_are_ranked_above_the_floor_by_host_and_five_minutes() {
    let beds = ["fox", "russellmitchell", "shaw", "wardbeck"];
    let mut aucs = BTreeMap::new();
    for bed in beds {
        let Some(path) = data(&format!("ait-alerts/{bed}_alerts.csv.zst")) else { return };
        // Windows in which dnsteal is at work are neither attack nor benign.
        let rows = scored(&path, "ait-alerts.toml", 1);
        let window = |row: &Row| (row.source.clone(), row.time.map(|time| time.div_euclid(5 * MINUTE)));
        let aside: std::collections::HashSet<_> =
            rows.iter().filter(|(_, label)| &**label == "dnsteal").map(|(row, _)| window(row)).collect();
        let kept = rows.iter().filter(|(row, _)| !aside.contains(&window(row)));
        let windows = collapsed(kept.map(|(row, label)| (window(row), score(row), &**label != "-")));
        eprintln!("{bed}: AUC {:.4}, TPR at 1 % {:.3}", auc(windows.iter().copied()), tpr(&windows, 0.01));
        aucs.insert(bed, auc(windows));
    }
    let mean = aucs.values().sum::<f64>() / beds.len() as f64;
    assert!(mean >= 0.97, "mean AUC {mean:.4}: {aucs:.4?}");
}
