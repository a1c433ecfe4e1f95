//! Signed checkpoints of the chain: a record of kind `seal` signs the record before it, and with it all before.
//!
//! Whoever can write the files can make a chain of hashes anew; without the key nobody can sign it. What is signed is
//! `"qualm journal seal 1\0"`, the number of the record as eight bytes, little-endian, and its 32 bytes of hash, by
//! Ed25519 (RFC 8032). The latest seal is also in the file [`LATEST`] beside the records, so that what is cut off the end
//! is missed; a copy of it kept elsewhere shows that also to whoever does not trust this machine.

use std::{
    fmt, fs,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use qualm_model::time::Span;
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

use super::record::Head;

/// So many records are followed by a seal: a proof of one of them has at most so many links.
pub const SEAL_EVERY: u64 = 256;
/// A record is followed by a seal within this time, wall time.
pub(super) const SEAL_WITHIN: Span = Span(Span::MINUTE.0);
/// With so many records after the last seal, seals were taken away: four times as many as there can be otherwise.
pub const MOST_UNSIGNED: u64 = 4 * SEAL_EVERY;

/// The file with the latest seal.
pub(super) const LATEST: &str = "SEAL";
/// What it is renamed to at a start that finds less than it says.
pub(super) const CUT: &str = "SEAL.cut";

const DOMAIN: &[u8] = b"qualm journal seal 1\0";
const PREFIX: &str = "ed25519:";
/// A PKCS #8 document of an Ed25519 private key (RFC 8410) is this, and the key.
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// The key that signs. Its file is made at the first start, for this user alone.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// The key that a signature is verified by; written `ed25519:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// An Ed25519 signature; written as 128 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature([u8; 64]);

/// Payload of a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The record before it.
    pub of: Head,
    /// Whose signature it is.
    pub key: PublicKey,
    /// Over the record's number and hash.
    pub signature: Signature,
}

/// A key that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system refused.
    #[error("key {}: {source}; check that its directory exists and is writable by this user", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Others can read it.
    #[error("key {}: everybody can read it (mode {mode:o}); `chmod 600` it, and if others had it, move it away for a new one", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It holds something else.
    #[error("key {}: no Ed25519 private key in PEM (PKCS #8); put it back from a copy, or move it away for a new one", .0.display())]
    NoKey(PathBuf),
}

/// A text that is no key or signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 {0}")]
pub struct Unreadable(&'static str);

impl SigningKey {
    /// The key in `file`; a new one where there is none.
    ///
    /// # Errors
    /// When the file cannot be read or made, holds something else, or everybody can read it.
    pub fn open(file: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: file.to_owned(), source };
        match fs::read_to_string(file) {
            Ok(text) => {
                let mode = fs::metadata(file).map_err(failed)?.permissions().mode() & 0o777;
                if mode & 0o007 != 0 {
                    return Err(KeyError::Open { path: file.to_owned(), mode });
                }
                Self::from_pem(&text).ok_or_else(|| KeyError::NoKey(file.to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(file).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(KeyError::NoKey(file.to_owned())),
            Err(error) => Err(failed(error)),
        }
    }

    /// The key of a seed: 32 bytes that nobody else knows.
    pub fn of_seed(seed: &[u8; 32]) -> Self {
        Self { pair: Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed") }
    }

    fn from_pem(text: &str) -> Option<Self> {
        let document = unarmoured(text, "PRIVATE KEY")?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&document).ok()?;
        Some(Self { pair })
    }

    /// Written whole under another name first: a crash leaves no half of a key.
    fn make(file: &Path) -> io::Result<Self> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| io::Error::other("no random numbers"))?;
        let document = [&PKCS8[..], &seed].concat();
        let new = file.with_extension("new");
        // What is left of a crash.
        let _ = fs::remove_file(&new);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        out.write_all(armoured(&document, "PRIVATE KEY").as_bytes())?;
        out.sync_all()?;
        fs::rename(&new, file)?;
        Ok(Self::of_seed(&seed))
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair.public_key().as_ref();
        PublicKey(bytes.try_into().expect("a public key of Ed25519 has 32 bytes"))
    }

    /// Signs a message, which begins with what it is, so that no signature can be taken for another's.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.pair.sign(message);
        Signature(signature.as_ref().try_into().expect("a signature of Ed25519 has 64 bytes"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

impl PublicKey {
    /// Whether a signature over `message` is of this key.
    pub fn has_signed(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, &signature.0).is_ok()
    }
}

impl Seal {
    /// Signs the record `of`, and with it all before.
    pub fn sign(key: &SigningKey, of: Head) -> Self {
        Self { of, key: key.public(), signature: key.sign(&message(&of)) }
    }

    /// Whether it is signed by the key that it names.
    pub fn is_sound(&self) -> bool {
        self.key.has_signed(&message(&self.of), &self.signature)
    }
}

fn message(of: &Head) -> Vec<u8> {
    [DOMAIN, &of.seq.0.to_le_bytes(), of.hash.bytes()].concat()
}

/// The latest seal that was written to a journal's directory.
pub(super) fn latest(file: &Path) -> io::Result<Option<Seal>> {
    match fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a seal in the place of the latest.
pub(super) fn remember(directory: &Path, seal: &Seal) -> io::Result<()> {
    let new = directory.join("SEAL.new");
    let mut out = fs::File::create(&new)?;
    out.write_all(serde_json::to_string(seal)?.as_bytes())?;
    out.sync_data()?;
    fs::rename(&new, directory.join(LATEST))
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        hex(&self.0, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = Unreadable;

    /// Reads `ed25519:` and 64 hex digits.
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let digits = text.trim().strip_prefix(PREFIX);
        digits.and_then(unhex).map(Self).ok_or(Unreadable("public key: `ed25519:` and 64 hex digits"))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = Unreadable;
    fn try_from(text: String) -> Result<Self, Unreadable> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for Signature {
    type Error = Unreadable;
    fn try_from(text: String) -> Result<Self, Unreadable> {
        unhex(&text).map(Self).ok_or(Unreadable("signature: 128 hex digits"))
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        signature.to_string()
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// One spelling alone: lower-case digits.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

fn armoured(document: &[u8], what: &str) -> String {
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", base64::encode(document))
}

fn unarmoured(text: &str, what: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {what}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {what}-----"))?;
    base64::decode(&body.split_whitespace().collect::<String>())
}

mod base64 {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};

    pub(super) fn encode(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        STANDARD.decode(text).ok()
    }
}
