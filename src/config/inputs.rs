//! What the inputs and addresses of a configuration say that cannot be meant.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use qualm_ingest::parse::Format;
use qualm_model::{event::Filter, level::Level};
use qualm_scorer::enforce::istio::IstioConfig;

use super::Config;

/// Asks all of it; the first that cannot be meant, with section, key and remedy.
pub(super) fn check(config: &Config) -> Result<(), String> {
    topics(config)?;
    files(config)?;
    clusters(config)?;
    twins(config)?;
    config.announcements.check()?;
    if config.history.format == Format::Mapped {
        return Err(
            "[history] format: archives cannot be `mapped`, there is no key for a mapping; name another format, \
                    or read them in a [[file]] section with its `mapping`"
                .to_owned(),
        );
    }
    if config.state.directory.as_os_str().is_empty() {
        return Err("[state] directory: \"\" is no directory; name one, or leave it out for \"qualm-state\"".to_owned());
    }
    if config.enforce.protected.iter().any(String::is_empty) {
        return Err("[enforce] protected: \"\" protects nobody; write a principal, or take it out".to_owned());
    }
    match config.listen.address {
        Some(address) if address == config.observe.address && address.port() != 0 => Err(format!(
            "[observe] address: {address} is also the address of [listen]; give one of the two another port"
        )),
        _ => Ok(()),
    }
}

fn topics(config: &Config) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for kafka in &config.kafka {
        bounded("kafka", kafka.max_record_bytes)?;
        kafka.registry.check().map_err(|error| error.to_string())?;
        for topic in &kafka.topics {
            attainable(&format!("[[kafka]] topic {}", topic.name), topic.max_level)?;
            sampled(&format!("[[kafka]] topic {}", topic.name), topic.filter, topic.sampled_share)?;
            if !seen.insert((&kafka.brokers, &kafka.group, &topic.name)) {
                return Err(format!(
                    "[[kafka]] topics: {} stands twice for group {} on {}; keep one of the two",
                    topic.name, kafka.group, kafka.brokers
                ));
            }
        }
    }
    Ok(())
}

/// A share of the calls, of what is a sample of them.
fn sampled(origin: &str, filter: Filter, share: f64) -> Result<(), String> {
    if !(share > 0.0 && share <= 1.0) {
        return Err(format!(
            "{origin}: sampled_share: {share} is no part of the calls; write 0.1 where a tenth is logged"
        ));
    }
    if share < 1.0 && filter != Filter::Sampled {
        return Err(format!(
            "{origin}: sampled_share: nothing says that it is a sample; add filter = \"sampled\", or take it out"
        ));
    }
    Ok(())
}

fn files(config: &Config) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for file in &config.file {
        bounded("file", file.max_record_bytes)?;
        attainable(&format!("[[file]] {}", file.path.display()), file.max_level)?;
        sampled(&format!("[[file]] {}", file.path.display()), file.filter, file.sampled_share)?;
        if !seen.insert(plain(&file.path)) {
            return Err(format!("[[file]] path = \"{}\": stands twice; keep one of the two", file.path.display()));
        }
    }
    for path in &config.history.files {
        if !seen.insert(plain(path)) {
            return Err(format!(
                "[history] files: {} stands twice, here or as a [[file]]; keep one of the two",
                path.display()
            ));
        }
    }
    Ok(())
}

fn clusters(config: &Config) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    if let Some(section) = config.kubernetes.iter().find(|of| !matches!(of.announce_rollouts_s, 0 | 60..=21_600)) {
        return Err(format!(
            "[[kubernetes]] announce_rollouts_s: {} seconds; from 60 to 21600, or 0 to announce none",
            section.announce_rollouts_s
        ));
    }
    match config.kubernetes.iter().find(|section| !seen.insert(&section.cluster)) {
        Some(section) => Err(format!(
            "[[kubernetes]] cluster = \"{}\": stands twice; give each cluster its name, as its records have it",
            section.cluster
        )),
        None => Ok(()),
    }
}

/// Where twins of quarantines are written.
fn twins(config: &Config) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for section in &config.istio {
        let IstioConfig { cluster, namespaces, owner, .. } = section;
        if !config.kubernetes.iter().any(|of| of.cluster == *cluster) {
            return Err(format!(
                "[[istio]] cluster = \"{cluster}\": there is no [[kubernetes]] section of that cluster; add one, which says \
                 how its API is reached"
            ));
        }
        let is_label = |word: &str| {
            let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=63).contains(&word.len())
                && word.bytes().all(is_inner)
                && !word.starts_with('-')
                && !word.ends_with('-')
        };
        if namespaces.is_empty() || !namespaces.iter().chain([owner]).all(|word| is_label(word)) {
            return Err(
                "[[istio]] namespaces and owner: name at least one namespace; each word has 1 to 63 lower-case letters, \
                 digits and `-`, and none of these at its ends"
                    .to_owned(),
            );
        }
        if !seen.insert((cluster, owner)) {
            return Err(format!(
                "[[istio]] owner = \"{owner}\": stands twice for cluster \"{cluster}\", and each would delete the policies \
                 of the other; keep one section, or give them two owners"
            ));
        }
    }
    Ok(())
}

fn bounded(section: &str, max_record_bytes: usize) -> Result<(), String> {
    if max_record_bytes == 0 {
        return Err(format!(
            "[[{section}]] max_record_bytes: with 0 every record is too long; at least 1, or leave it out"
        ));
    }
    Ok(())
}

fn attainable(what: &str, max_level: Option<Level>) -> Result<(), String> {
    if max_level == Some(Level::Revoked) {
        return Err(format!("{what}: max_level: no behaviour leads to `revoked`; at most \"quarantined\""));
    }
    Ok(())
}

/// The path without what changes nothing in it: `./log` and `log` are one file.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_key_and_what_may_be_is_not() {
        for (text, words) in [
            ("[[file]]\n[[file]]\n", "[[file]] path = \"-\": stands twice"),
            ("[[file]]\npath = \"a\"\n[[file]]\npath = \"./a\"\n", "stands twice"),
            ("[[file]]\npath = \"a\"\n[history]\nfiles = [\"a\"]\n", "[history] files: a stands twice"),
            (
                "[[kafka]]\ntopics = [{ name = \"a\" }]\n[[kafka]]\ntopics = [{ name = \"a\" }]\n",
                "a stands twice for group qualm",
            ),
            ("[[kafka]]\nmax_record_bytes = 0\n", "[[kafka]] max_record_bytes"),
            ("[[kubernetes]]\nannounce_rollouts_s = 9\n", "[[kubernetes]] announce_rollouts_s: 9 seconds"),
            ("[[kubernetes]]\n[[kubernetes]]\n", "[[kubernetes]] cluster = \"\": stands twice"),
            ("[[file]]\nmax_record_bytes = 0\n", "[[file]] max_record_bytes"),
            ("[[file]]\nmax_level = \"revoked\"\n", "no behaviour leads to `revoked`"),
            ("[history]\nformat = \"mapped\"\n", "[history] format"),
            ("[state]\ndirectory = \"\"\n", "[state] directory"),
            ("[enforce]\nprotected = [\"\"]\n", "[enforce] protected"),
            ("[listen]\naddress = \"127.0.0.1:9\"\n[observe]\naddress = \"127.0.0.1:9\"\n", "[observe] address"),
        ] {
            let error = Config::parse(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        for text in [
            "[[kafka]]\ntopics = [{ name = \"a\" }]\n[[kafka]]\ngroup = \"other\"\ntopics = [{ name = \"a\" }]\n",
            "[listen]\naddress = \"127.0.0.1:0\"\n[observe]\naddress = \"127.0.0.1:0\"\n",
            "[[file]]\npath = \"a\"\n[[file]]\npath = \"b\"\n[[file]]\n",
        ] {
            assert!(Config::parse(text).is_ok(), "{text}");
        }
    }
}
