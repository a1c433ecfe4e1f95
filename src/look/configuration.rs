//! The configuration that `look` ends with: it works as it stands.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use qualm_ingest::{config::RegistryConfig, envelope::Envelope, parse::Format};
use qualm_model::event::Filter;

use super::topic::Where;

/// What was looked at.
pub(super) enum Looked<'a> {
    Topic(Where<'a>),
    Files(&'a [PathBuf]),
}

impl Looked<'_> {
    /// Whether the same can be read once more.
    pub(super) fn can_be_read_again(&self) -> bool {
        match self {
            Self::Topic(_) => true,
            Self::Files(files) => files.iter().all(|file| file.is_file()),
        }
    }
}

/// What is to be said of it.
pub(super) struct Input<'a> {
    pub(super) format: Format,
    pub(super) mapping: Option<&'a Path>,
    pub(super) envelope: Option<&'a Envelope>,
    pub(super) cluster: &'a str,
    /// What seems to be left out.
    pub(super) filter: Filter,
    /// Whether the records say which cluster they are from.
    pub(super) names_cluster: bool,
    /// Containers that are not believed.
    pub(super) strangers: &'a [String],
}

impl Input<'_> {
    /// Its keys with their values.
    fn keys(&self) -> Vec<(&'static str, String)> {
        // What was seen is of now: after an upgrade, or from another node, records may have another format.
        let format = if self.mapping.is_some() { Format::Mapped } else { self.format };
        let mut keys = vec![("format", quoted(format.as_str()))];
        keys.extend(self.mapping.map(|path| ("mapping", quoted(&path.display().to_string()))));
        let envelope = self.envelope.filter(|envelope| **envelope != Envelope::Auto);
        keys.extend(envelope.map(|envelope| ("envelope", quoted(&String::from(envelope.clone())))));
        if !self.cluster.is_empty() {
            keys.push(("cluster", quoted(self.cluster)));
        }
        keys
    }

    /// What is for the operator to decide.
    fn comments(&self) -> String {
        let mut text = String::new();
        if self.filter != Filter::None {
            let word = match self.filter {
                Filter::Errors => "errors",
                Filter::Sampled => "sampled",
                Filter::Slow | Filter::None => "slow",
            };
            let share = match self.filter {
                Filter::Sampled => ", and sampled_share = 0.1 where a tenth of the calls is logged",
                _ => "",
            };
            // A look is too short to switch questions off by it.
            let _ = writeln!(
                text,
                "# It looks as if something were left out of these records: where that is so, add filter = \"{word}\"{share}.\n"
            );
        }
        if !self.strangers.is_empty() {
            let names: Vec<String> = self.strangers.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(
                text,
                "# Certificates in lines of these containers are not believed, since none is known as a proxy's. Where they \
                 are\n# proxies, and applications cannot have containers of these names, add proxies = [{}].\n",
                names.join(", ")
            );
        }
        if self.cluster.is_empty() && !self.names_cluster {
            text.push_str(
                "# With more than one cluster, say which one these records are from: add cluster = \"NAME\". The same \
                 principal in\n# two clusters is two identities.\n\n",
            );
        }
        text
    }
}

/// The text of a configuration for what was looked at.
pub(super) fn text(looked: &Looked<'_>, input: &Input<'_>) -> String {
    let mut text = String::from(
        "# Written by `qualm look`. Every key with its meaning and default is in qualm.toml of the source;\n\
         # `qualm check` tells whether this works, `qualm run` runs it. Nothing is denied in shadow mode.\n\n",
    );
    text.push_str(&input.comments());
    let keys = input.keys();
    let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    match looked {
        Looked::Topic(place) => {
            let _ = writeln!(text, "[[kafka]]\nbrokers = {}", quoted(place.brokers));
            let topic = quoted(place.topic);
            let _ = writeln!(text, "topics = [{{ name = {topic}, {} }}]", pairs.join(", "));
            if !place.properties.is_empty() {
                let pair = |(name, value): (&String, &String)| format!("{} = {}", quoted(name), quoted(value));
                let pairs: Vec<String> = place.properties.iter().map(pair).collect();
                let _ = writeln!(text, "properties = {{ {} }}", pairs.join(", "));
            }
            write_registry(&place.registry, &mut text);
        }
        Looked::Files(files) => {
            for file in *files {
                let _ = writeln!(text, "[[file]]\npath = {}", quoted(&file.display().to_string()));
                let _ = writeln!(text, "{}", pairs.join("\n"));
            }
        }
    }
    text.push_str("\n[enforce]\nmode = \"shadow\"\n\n[alerts]\nstdout = true\n");
    text
}

fn write_registry(registry: &RegistryConfig, text: &mut String) {
    if !registry.is_set() {
        return;
    }
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let keys = [
        ("url", registry.url.clone()),
        ("user", registry.user.clone()),
        ("password_file", file(&registry.password_file)),
        ("token_file", file(&registry.token_file)),
        ("ca_file", file(&registry.ca_file)),
    ];
    let set = keys.iter().filter(|(_, value)| !value.is_empty());
    let set: Vec<String> = set.map(|(key, value)| format!("{key} = {}", quoted(value))).collect();
    let _ = writeln!(text, "registry = {{ {} }}", set.join(", "));
}

/// Writes it, unless the file is there already.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{}: is there already and is left as it is; name another file with --write", path.display())
        }
        file => file.with_context(|| format!("{}: cannot be written", path.display()))?,
    };
    file.write_all(text.as_bytes()).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Writes a mapping that comes with Qualm, unless it is there already.
pub(super) fn write_mapping(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) { Ok(()) } else { write(path, text) }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
