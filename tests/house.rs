//! The house rules that a compiler does not hold: who may depend on whom, and what stays out of the tree.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

/// A crate of ours, and those of ours it may know. Whoever is not listed has not been thought about.
const MAY_KNOW: [(&str, &[&str]); 9] = [
    ("qualm-model", &[]),
    ("qualm-proto", &[]),
    ("qualm-datasets", &["qualm-model"]),
    ("qualm-hooks", &["qualm-model", "qualm-proto"]),
    ("qualm-ingest", &["qualm-model", "qualm-proto"]),
    ("qualm-peers", &["qualm-model"]),
    ("qualm-scorer", &["qualm-model", "qualm-peers", "qualm-proto"]),
    ("qualm-lab", &["qualm-model", "qualm-peers"]),
    ("qualm", &["qualm-datasets", "qualm-hooks", "qualm-ingest", "qualm-model", "qualm-proto", "qualm-scorer"]),
];

/// What a pure crate cannot be built on: sockets, a runtime, and randomness it was not given. (`getrandom` is no sign:
/// Arrow's hash tables ask it for a seed.)
const IMPURE: [&str; 9] = ["async-std", "hyper", "mio", "rand", "rdkafka", "reqwest", "tokio", "tonic", "ureq"];

/// Normal (not dev, not build) dependencies, as Cargo resolves them for this machine.
struct Tree {
    /// Package id → name.
    names: BTreeMap<String, String>,
    /// Package id → ids of its normal dependencies.
    normal: BTreeMap<String, Vec<String>>,
    /// Ids of our own packages.
    ours: Vec<String>,
}

impl Tree {
    fn read() -> Self {
        let rustc = output("rustc", &["-vV"]);
        let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
        let metadata = output(env!("CARGO"), &["metadata", "--format-version", "1", "--filter-platform", host]);
        let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata is JSON");
        let names = list(&metadata["packages"]).map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let normal = list(&metadata["resolve"]["nodes"])
            .map(|node| {
                let normal = list(&node["deps"])
                    .filter(|dep| list(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()))
                    .map(|dep| text(&dep["pkg"]));
                (text(&node["id"]), normal.collect())
            })
            .collect();
        let ours = list(&metadata["workspace_members"]).map(text).collect();
        Self { names, normal, ours }
    }

    fn name(&self, id: &str) -> &str {
        &self.names[id]
    }

    /// Names of everything `id` is built on, itself left out.
    fn beneath(&self, id: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            open.extend(self.normal[next].iter().map(String::as_str).filter(|dep| seen.insert(*dep)));
        }
        seen.into_iter().map(|id| self.name(id)).collect()
    }

    fn id_of(&self, name: &str) -> &str {
        self.ours.iter().find(|id| self.name(id) == name).unwrap_or_else(|| panic!("{name} is a crate of ours"))
    }
}

#[test]
fn every_crate_knows_only_those_below_it() {
    let tree = Tree::read();
    let ours: BTreeSet<_> = tree.ours.iter().map(|id| tree.name(id)).collect();
    for id in &tree.ours {
        let name = tree.name(id);
        let (_, allowed) = MAY_KNOW
            .iter()
            .find(|(listed, _)| *listed == name)
            .unwrap_or_else(|| panic!("{name} is new: say in MAY_KNOW whom it may know"));
        let known: BTreeSet<_> =
            tree.normal[id].iter().map(|dep| tree.name(dep)).filter(|dep| ours.contains(dep)).collect();
        let allowed: BTreeSet<_> = allowed.iter().copied().collect();
        let forbidden: Vec<_> = known.difference(&allowed).collect();
        assert!(forbidden.is_empty(), "{name} must not know {forbidden:?}");
    }
}

#[test]
fn the_model_is_built_on_nothing_that_does_io_or_rolls_dice() {
    let tree = Tree::read();
    let beneath = tree.beneath(tree.id_of("qualm-model"));
    let impure: Vec<_> = IMPURE.iter().filter(|name| beneath.contains(**name)).collect();
    assert!(impure.is_empty(), "qualm-model is pure, but is built on {impure:?}");
}

#[test]
fn polars_is_not_in_the_product() {
    let tree = Tree::read();
    let beneath = tree.beneath(tree.id_of("qualm"));
    let found: Vec<_> = beneath.iter().filter(|name| **name == "polars" || name.starts_with("polars-")).collect();
    assert!(found.is_empty(), "{found:?}: it costs as much build time as everything else and belongs in the lab");
}

/// By cargo's own tree: its metadata also has what a feature only could bring.
#[test]
fn the_lab_is_built_without_network() {
    let tree =
        output(env!("CARGO"), &["tree", "-p", "qualm-lab", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    let beneath: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(beneath.contains("polars"), "{tree}");
    for other in ["object_store", "rdkafka", "reqwest", "tonic"] {
        assert!(!beneath.contains(other), "{other}: what the lab reads is on the disk");
    }
}

#[test]
fn only_peers_fits_models_with_linfa() {
    let tree = Tree::read();
    for id in tree.ours.iter().filter(|id| tree.name(id) != "qualm-peers") {
        let direct = tree.normal[id].iter().map(|dep| tree.name(dep));
        let found: Vec<_> = direct.filter(|name| *name == "linfa" || name.starts_with("linfa-")).collect();
        assert!(found.is_empty(), "{} must not depend on {found:?}", tree.name(id));
    }
}

#[test]
fn the_product_has_one_tls_stack() {
    let tree = Tree::read();
    let beneath = tree.beneath(tree.id_of("qualm"));
    // librdkafka's OpenSSL comes through openssl-sys, which nothing else may wrap.
    for other in ["aws-lc-rs", "native-tls", "openssl"] {
        assert!(!beneath.contains(other), "{other}: rustls with ring is the one TLS stack");
    }
}

#[test]
fn no_path_of_one_machine_is_in_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join(".git").exists() {
        // A source archive: there is nothing to ask for what is tracked.
        return;
    }
    let mut found = Vec::new();
    for file in output("git", &["ls-files", "-z"]).split_terminator('\0').filter(|file| *file != "Cargo.lock") {
        // Not UTF-8, or deleted and not yet committed: nothing to read.
        let Ok(content) = std::fs::read_to_string(root.join(file)) else { continue };
        for (number, line) in content.lines().enumerate() {
            if names_a_machine(line, &root.display().to_string()) {
                found.push(format!("{file}:{}: {line}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "paths of one machine:\n{}", found.join("\n"));
}

#[test]
fn every_format_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documented = std::fs::read_to_string(root.join("docs/formats.md")).expect("docs/formats.md");
    let rows: Vec<&str> = documented.lines().filter(|line| line.starts_with("| `")).collect();
    for format in qualm_ingest::parse::Format::ALL {
        let name = format!("`{format}`");
        assert!(rows.iter().any(|row| row.contains(&name)), "{name} has no row in docs/formats.md");
    }
}

/// True for the folder of this checkout, and for absolute paths into folders that only one person's machine has.
fn names_a_machine(line: &str, checkout: &str) -> bool {
    let in_checkout = checkout.len() > 1 && line.contains(&format!("{checkout}/"));
    // Put together here, so that this file is clean itself.
    let elsewhere = ["work", "farm", "root", "home", "Users"].map(|folder| format!("/{folder}/"));
    in_checkout || elsewhere.iter().any(|path| line.match_indices(path.as_str()).any(|(at, _)| is_start(line, at)))
}

/// True where a path begins at `at`, and does not go on from what stands before it.
fn is_start(line: &str, at: usize) -> bool {
    let before = line[..at].chars().next_back();
    before.is_none_or(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '}' | '/')))
}

#[test]
fn a_machine_is_recognised_by_its_path() {
    let path = |folder: &str| format!("see /{folder}/someone/notes");
    assert!(names_a_machine(&path("home"), "/src/qualm"));
    assert!(names_a_machine("built in /src/qualm/target", "/src/qualm"));
    assert!(!names_a_machine("GET https://shop.test/home/cart", "/src/qualm"));
    assert!(!names_a_machine("./work/item", "/src/qualm"));
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("its output is text")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
