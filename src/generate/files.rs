//! A directory of logs, labels and what it all is.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use qualm_datasets::{AuthLog, write_labels};

use super::{
    args::GenerateArgs,
    card::{self, Tally},
    feed::Line,
    order::Order,
};

/// Files that are being written, by cluster and log.
pub(super) struct Files {
    out: PathBuf,
    open: BTreeMap<Which, (PathBuf, BufWriter<File>)>,
}

/// Cluster and issuer.
type Which = (Option<&'static str>, Option<AuthLog>);

impl Files {
    /// Writes below `out`.
    pub(super) fn new(out: &Path) -> Result<Self> {
        fs::create_dir_all(out).with_context(|| format!("{}: cannot be made; check --out", out.display()))?;
        Ok(Self { out: out.to_owned(), open: BTreeMap::new() })
    }

    /// Appends a line to its file.
    pub(super) fn write(&mut self, line: &Line<'_>) -> Result<()> {
        let (path, file) = match self.open.entry((line.cluster, line.issuer)) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let path = self.out.join(line.cluster.unwrap_or_default()).join(name(line.issuer));
                let file = create(&path)?;
                place.insert((path, BufWriter::with_capacity(1 << 20, file)))
            }
        };
        file.write_all(line.bytes).with_context(|| format!("{}: cannot be written", path.display()))
    }

    /// Writes what is left, the labels, and the card.
    pub(super) fn finish(self, order: &Order, tally: &Tally, args: &GenerateArgs) -> Result<()> {
        for (path, mut file) in self.open.into_values() {
            file.flush().with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        for cluster in &order.clusters {
            let folder = self.out.join(cluster.name.unwrap_or_default());
            write_labels(cluster.scenario.attacks(), create(&folder.join("labels.jsonl"))?)?;
            write_labels(cluster.scenario.changes(), create(&folder.join("changes.jsonl"))?)?;
        }
        let card = self.out.join("README.md");
        fs::write(&card, card::text(order, tally, args))
            .with_context(|| format!("{}: cannot be written", card.display()))
    }
}

/// The file of a log.
pub(super) fn name(issuer: Option<AuthLog>) -> String {
    match issuer {
        None => "events.jsonl".to_owned(),
        Some(log) => format!("auth-{}.jsonl", log.format()),
    }
}

fn create(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made; check --out", folder.display()))?;
    }
    File::create(path).with_context(|| format!("{}: cannot be made; check --out", path.display()))
}
