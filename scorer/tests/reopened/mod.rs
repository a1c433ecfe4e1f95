//! A snapshot that was just let go of, opened again.

use std::{path::Path, thread, time::Duration};

use qualm_scorer::{
    config::ScorerConfig,
    snapshot::{Loaded, SnapshotError, Snapshots},
};

/// The writing thread lets go of the file a moment after its handle is dropped.
pub(crate) fn reopened(directory: &Path, config: &ScorerConfig) -> (Snapshots, Option<Loaded>) {
    for _ in 0..2000 {
        match Snapshots::open(directory, config.clone()) {
            Err(SnapshotError::Unwritable { .. }) => thread::sleep(Duration::from_millis(5)),
            opened => return opened.expect("the snapshot can be read"),
        }
    }
    panic!("the file is still held");
}
