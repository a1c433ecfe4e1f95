//! Where the real parts and the data sets are, and what happens when one is missing.
#![allow(clippy::disallowed_methods, reason = "tests are told by the environment what they may leave out")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The versions that `tests/run` installs: the same file.
const VERSIONS: &str = include_str!("../parts/versions");

/// A part that tests start as a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Kafka,
    Apicurio,
    Envoy,
    KubeApiserver,
    Istiod,
    Opa,
    Vault,
    Keycloak,
    Spire,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Apicurio => "apicurio",
            Self::Envoy => "envoy",
            Self::KubeApiserver => "kube-apiserver",
            Self::Istiod => "istiod",
            Self::Opa => "opa",
            Self::Vault => "vault",
            Self::Keycloak => "keycloak",
            Self::Spire => "spire",
        }
    }

    /// Which of it `tests/run` installs.
    pub(crate) fn version(self) -> &'static str {
        VERSIONS
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(name, _)| *name == self.name())
            .map(|(_, version)| version.trim())
            .expect("tests/parts/versions names every part")
    }

    /// Its folder, where it is installed.
    pub(crate) fn folder(self) -> Option<PathBuf> {
        let place = cache()?.join("qualm/parts").join(format!("{}-{}", self.name(), self.version()));
        place.is_dir().then_some(place)
    }
}

/// True when all `parts` are installed. A missing one leaves the test out with a message, or fails it under
/// `QUALM_REQUIRE_PARTS=1`.
pub(crate) fn present(parts: &[Part]) -> bool {
    let missing: Vec<_> =
        parts.iter().filter(|part| part.folder().is_none()).map(|part| (part.name(), part.version())).collect();
    if missing.is_empty() {
        return true;
    }
    let why = format!("not installed: {missing:?}; tests/run installs it");
    assert!(!is_set("QUALM_REQUIRE_PARTS"), "{why}");
    leave_out(&why);
    false
}

/// Prometheus' own checker. Missing it is as a missing [part](present).
pub(crate) fn promtool() -> Option<PathBuf> {
    command("promtool")
}

/// The store of the Kubernetes API server. Missing it is as a missing [part](present).
pub(crate) fn etcd() -> Option<PathBuf> {
    command("etcd")
}

/// A command: on the path, or where `tests/run` unpacks it.
fn command(name: &str) -> Option<PathBuf> {
    let on_the_path = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let unpacked = cache().map(|cache| cache.join("qualm/parts").join(name));
    let found = on_the_path.into_iter().chain(unpacked).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        let why = format!("not installed: {name}; tests/run installs it");
        assert!(!is_set("QUALM_REQUIRE_PARTS"), "{why}");
        leave_out(&why);
    }
    found
}

/// The folder of a public data set beside the repository, or `None` with a message; an error under
/// `QUALM_REQUIRE_DATA=1`.
pub(crate) fn data_set(name: &str) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if place.is_dir() {
        return Some(place);
    }
    let why = format!("data set {name} is not at {}", place.display());
    assert!(!is_set("QUALM_REQUIRE_DATA"), "{why}");
    leave_out(&why);
    None
}

/// True for `tests/run --long`; otherwise the test is left out with a message.
pub(crate) fn long_run() -> bool {
    let wanted = is_long();
    if !wanted {
        leave_out("very long: tests/run --long runs it");
    }
    wanted
}

/// True for `tests/run --long`: what is done a few times otherwise is done often enough for a percentile.
pub(crate) fn is_long() -> bool {
    is_set("QUALM_LONG")
}

/// Says why this test is left out: to the terminal, and in a file of its own for `tests/run` to list.
pub(crate) fn leave_out(why: &str) {
    let line = format!("SKIPPED: {why}");
    eprintln!("{line}");
    if let Some(folder) = env::var_os("QUALM_SKIPPED_DIR") {
        // The test harness names each test's thread after the test.
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("unnamed").replace("::", ".");
        let file = Path::new(&folder).join(format!("{}.{test}", env!("CARGO_CRATE_NAME")));
        fs::write(file, line + "\n").expect("QUALM_SKIPPED_DIR is a folder that can be written to");
    }
}

fn cache() -> Option<PathBuf> {
    env::var_os("XDG_CACHE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
}

fn is_set(variable: &str) -> bool {
    env::var(variable).is_ok_and(|value| value == "1")
}
