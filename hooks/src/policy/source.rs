//! Where a policy is read from, and the last one that was good: kept beside the outbox, so that a file that was broken
//! before a restart changes nothing.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Name of the kept one in the state directory.
pub const FILE: &str = "response-policy.json";
/// Bytes of a policy or its data.
const LONGEST: u64 = 1 << 20;

/// `[response]`: the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseConfig {
    /// A file in Rego, of package `qualm.response`; without it each hook acts from its own `from` on.
    pub policy: Option<PathBuf>,
    /// A JSON file that is `data` to it.
    pub data: Option<PathBuf>,
}

impl ResponseConfig {
    /// Whether it can be meant; no file is read.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(&self) -> Result<(), String> {
        match (&self.policy, &self.data) {
            (None, Some(_)) => Err("[response] data: is nothing without `policy`; name one, or remove it".to_owned()),
            _ => Ok(()),
        }
    }

    /// The texts that it names; `None` where it names none.
    ///
    /// # Errors
    /// A file cannot be read, or is too long.
    pub fn read(&self) -> Result<Option<Source>, String> {
        let Some(policy) = &self.policy else { return Ok(None) };
        let data = self.data.as_deref().map(|file| Ok::<_, String>((shown(file), read(file)?))).transpose()?;
        Ok(Some(Source { policy_file: shown(policy), policy: read(policy)?, data }))
    }
}

/// A policy as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file it came from.
    pub policy_file: String,
    /// Rego.
    pub policy: String,
    /// The file of its data, and JSON.
    pub data: Option<(String, String)>,
}

impl Source {
    /// Hash of both texts, by which the journal names it: 16 hex digits.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for text in [Some(&self.policy), self.data.as_ref().map(|(_, text)| text)].into_iter().flatten() {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        const_hex::encode(&hash.finalize()[..8])
    }

    /// The last good one.
    pub fn kept(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(directory.join(FILE)).ok()?).ok()
    }

    /// Keeps it as the last good one, whole and on disk; `None` forgets.
    ///
    /// # Errors
    /// The disk refuses it.
    pub fn keep(kept: Option<&Self>, directory: &Path) -> std::io::Result<()> {
        let file = directory.join(FILE);
        let Some(kept) = kept else {
            return match fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let new = directory.join(format!("{FILE}.new"));
        let mut writing = File::create(&new)?;
        writing.write_all(&serde_json::to_vec(kept)?)?;
        writing.sync_all()?;
        fs::rename(new, file)?;
        File::open(directory)?.sync_all()
    }
}

fn read(file: &Path) -> Result<String, String> {
    let wrong = |problem: String| format!("{}: {problem}", file.display());
    let length = fs::metadata(file).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
    if length > LONGEST {
        return Err(wrong(format!("{length} bytes are too many; at most {LONGEST}")));
    }
    fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}
