//! The model file: a fit, made offline by `lab fit`, that a scorer begins with.
//!
//! One line says what it is, its version and the SHA-256 of all that follows, which is JSON.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use qualm_model::peers::{NAMES, Peers, WINDOW};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What the first line begins with.
const MARK: &str = "qualm-model";
/// Version of the form.
pub const VERSION: u32 = 1;
/// No file that `lab fit` writes is larger.
const MOST_BYTES: u64 = 16 << 20;

/// A fit, and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The features of a window that it was fitted to, in order.
    pub features: Vec<String>,
    /// Seconds of a window.
    pub window_s: i64,
    /// Identities that it was fitted to.
    pub identities: u64,
    /// Windows of these.
    pub windows: u64,
    /// The fit.
    pub peers: Peers,
    /// How far the windows lay from what is usual: bins of the question's histogram and how many fell into each, so that a
    /// mesh that begins with this file knows at once what is rare.
    pub prior: Vec<(u16, u32)>,
}

/// A model file that cannot be used; names the file and the way on.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It is not there, or may not be read.
    #[error("{file}: the model file cannot be read: {problem}; check path and permissions")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        problem: String,
    },
    /// It is something else.
    #[error("{file}: this is no model file of Qualm; `lab fit` writes one")]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// A newer release wrote it.
    #[error(
        "{file}: the model file has version {found}, this release reads up to {VERSION}; start the release that wrote it, or \
         fit again with this release's `lab fit`"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It is not as it was written.
    #[error("{file}: the model file is damaged ({problem}); copy it again, or fit again with `lab fit`")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        problem: String,
    },
}

impl Model {
    /// A fit of the features that this release knows.
    pub fn new(peers: Peers, (identities, windows): (u64, u64), prior: Vec<(u16, u32)>) -> Self {
        let features = NAMES.iter().map(|&name| name.to_owned()).collect();
        Self { features, window_s: WINDOW.0 / 1_000_000_000, identities, windows, peers, prior }
    }

    /// The SHA-256 of what is in the file, in hex.
    pub fn hash(&self) -> String {
        hash(self.body().as_bytes())
    }

    fn body(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data can always be written")
    }

    /// Writes the file; a reader sees the one before or all of this one.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let body = self.body();
        let beside = path.with_extension("new");
        fs::write(&beside, format!("{MARK} {VERSION} {}\n{body}", hash(body.as_bytes())))?;
        fs::rename(&beside, path)
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// It is missing, foreign, newer or damaged; each names the file and the way on.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let file = || path.to_owned();
        let unreadable = |problem: String| ModelError::Unreadable { file: file(), problem };
        let size = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > MOST_BYTES {
            return Err(ModelError::Foreign { file: file() });
        }
        let bytes = fs::read(path).map_err(|error| unreadable(error.to_string()))?;
        let foreign = || ModelError::Foreign { file: file() };
        let damaged = |problem: String| ModelError::Damaged { file: file(), problem };
        let text = std::str::from_utf8(&bytes).map_err(|_| foreign())?;
        let (first, body) = text.split_once('\n').ok_or_else(foreign)?;
        let mut words = first.split(' ');
        if words.next() != Some(MARK) {
            return Err(foreign());
        }
        let version: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(foreign)?;
        if version > VERSION {
            return Err(ModelError::Newer { file: file(), found: version });
        }
        if words.next() != Some(hash(body.as_bytes()).as_str()) {
            return Err(damaged("its checksum does not fit its content".to_owned()));
        }
        let model: Self = serde_json::from_str(body).map_err(|error| damaged(error.to_string()))?;
        if model.features != NAMES || model.window_s != WINDOW.0 / 1_000_000_000 {
            return Err(damaged("it is about other features or windows than this release's".to_owned()));
        }
        model.peers.check().map_err(damaged)?;
        Ok(model)
    }
}

fn hash(bytes: &[u8]) -> String {
    const_hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use qualm_model::peers::{FEATURES, Group};

    use super::*;

    fn model() -> Model {
        let everybody = Group { centre: [0.0; FEATURES], members: 9, windows: 90.0, axes: Vec::new(), rest: 0.1 };
        let peers = Peers { mean: [1.5; FEATURES], spread: [0.5; FEATURES], groups: vec![everybody] };
        Model::new(peers, (9, 90), vec![(3, 80), (17, 10)])
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.model");
        model().write(&path).unwrap();
        assert_eq!(Model::read(&path).unwrap(), model());
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_file_and_the_way_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.model");
        model().write(&path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let body = whole.split_once('\n').unwrap().1;
        let signed = |body: &str| format!("{MARK} {VERSION} {}\n{body}", hash(body.as_bytes()));
        let cases = [
            (whole.replace("1.5", "1.6"), "damaged"),
            (whole[..whole.len() / 2].to_owned(), "damaged"),
            (whole.replacen("qualm-model 1", "qualm-model 2", 1), "version 2"),
            ("{\"peers\":[]}\n".to_owned(), "no model file"),
            ("\u{1}\u{2}".to_owned(), "no model file"),
            (signed(&body.replace("\"refused\"", "\"rejected\"")), "other features"),
            (signed(&body.replace("\"rest\": 0.1", "\"rest\": -0.1")), "positive variances"),
            (signed("{}"), "damaged"),
        ];
        for (content, said) in cases {
            fs::write(&path, content).unwrap();
            let error = Model::read(&path).expect_err(said).to_string();
            assert!(error.contains(said) && error.contains("peers.model"), "{error}");
        }
        let error = Model::read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("check path"), "{error}");
    }
}
