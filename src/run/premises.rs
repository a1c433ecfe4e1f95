//! What must hold before anything is opened or made: that what the configuration names is there, and that nobody else
//! runs on the state directory. `check` asks the same.

use std::{collections::BTreeMap, fs::OpenOptions, io, path::Path, thread, time::Duration};

use anyhow::{Result, bail};
use qualm_ingest::{
    config::{self, FileConfig},
    file,
    kafka::{TopicKeys, probe_there},
};
use qualm_model::{
    event::Positions,
    time::{Span, Timestamp},
};

use crate::{
    config::{Config, StateConfig},
    listen::Listener,
    reload,
};

/// How long a broker may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// Asks all of it.
///
/// # Errors
/// The first that does not hold: section and key, what is wrong, and the remedy.
pub(crate) fn hold(config: &Config) -> Result<()> {
    alone(&config.state)?;
    for section in &config.file {
        let name = section.path.display().to_string();
        config::parser(&name, section.format, section.mapping.as_deref(), section.max_record_bytes)?;
        input(section, &config.state).map_err(anyhow::Error::msg)?;
    }
    for kafka in &config.kafka {
        for topic in &kafka.topics {
            config::parser(&topic.name, topic.format, topic.mapping.as_deref(), kafka.max_record_bytes)?;
        }
    }
    // Where there is a snapshot, archives are read no more.
    if !config.state.directory.join("snapshot.redb").exists() {
        for file in &config.history.files {
            archive(file).map_err(anyhow::Error::msg)?;
        }
    }
    if let Some(file) = &config.alerts.file {
        alerts(file).map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// That no other instance runs on the state directory.
fn alone(state: &StateConfig) -> Result<()> {
    let directory = &state.directory;
    if !reload::is_running(directory) {
        return Ok(());
    }
    let process = reload::pid(directory).map_or_else(
        |_| "another instance".to_owned(),
        |pid| format!("another instance (process {})", pid.as_raw_nonzero()),
    );
    bail!(
        "[state] directory {}: {process} is running on it; end that one first, give this one a `directory` of its own, \
         or make the running one read its configuration again with `qualm reload`",
        directory.display()
    )
}

/// That a file of a `[[file]]` section can be read, and followed where it is to be.
pub(crate) fn input(section: &FileConfig, state: &StateConfig) -> Result<(), String> {
    let path = &section.path;
    let wrong = |problem: &str| Err(format!("[[file]] path = \"{}\": {problem}", path.display()));
    if path == Path::new("-") {
        return match section.follow {
            true => wrong("standard input cannot be followed; leave `follow` out: it is read until it ends"),
            false => Ok(()),
        };
    }
    match file::look(path) {
        // A restart may fall between the two steps of a rotation.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && section.follow
                && state.directory.join("snapshot.redb").exists() =>
        {
            Ok(())
        }
        Err(error) => wrong(&format!("{error}; correct the path or its permissions")),
        Ok(file::Look::Directory) => wrong("is a directory; name a file in it, with a [[file]] section for each"),
        Ok(file::Look::Packed) if section.follow => {
            wrong("is packed, and only plain files can be followed; leave `follow` out, or name the plain file")
        }
        Ok(file::Look::Packed | file::Look::Plain) => Ok(()),
    }
}

/// Whether a followed file is not there at present. It may have been rotated away, if it was read before.
pub(crate) fn is_away(section: &FileConfig) -> bool {
    section.follow
        && section.path != Path::new("-")
        && file::look(&section.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// That a followed file which is not there was read before, by what the state knows.
///
/// # Errors
/// The first that was not.
pub(crate) fn known(config: &Config, positions: &Positions) -> Result<()> {
    let topics: usize = config.kafka.iter().map(|kafka| kafka.topics.len()).sum();
    for (number, section) in config.file.iter().enumerate().filter(|(_, section)| is_away(section)) {
        let path = section.path.display();
        let source = u16::try_from(topics + number).unwrap_or(u16::MAX);
        if !positions.contains_key(&(source, 0)) {
            bail!("[[file]] path = \"{path}\": is not there, and was never read before; correct the path");
        }
        tracing::warn!(%path, "is not there at present: it is read when it comes");
    }
    Ok(())
}

/// That an archive can be read.
pub(crate) fn archive(path: &Path) -> Result<(), String> {
    if path == Path::new("-") {
        return Ok(());
    }
    let wrong = |problem: &str| Err(format!("[history] files: {}: {problem}", path.display()));
    match file::look(path) {
        Ok(file::Look::Directory) => wrong("is a directory; name the files in it"),
        Ok(file::Look::Packed | file::Look::Plain) => Ok(()),
        Err(error) => wrong(&format!("{error}; correct the path or its permissions")),
    }
}

/// Says what does not keep anything from starting, and will be missed all the same: an own certificate that nobody
/// accepts, topics that cannot be written to. Brokers are asked on a thread of their own.
pub(crate) fn told(config: &Config, listener: Option<&Listener>, now: Timestamp) {
    if let Some(identity) = listener.and_then(Listener::identity)
        && let Some(expired) = expired(identity.expires(), now)
    {
        tracing::warn!("listen: {expired}");
    }
    let topics: Vec<_> = beside(config)
        .into_iter()
        .map(|of| (of.section, of.brokers.to_owned(), of.properties.clone(), of.topic.to_owned(), of.keys))
        .collect();
    if topics.is_empty() {
        return;
    }
    let ask = move || {
        for (section, brokers, properties, topic, keys) in topics {
            if let Err(error) = probe_there(&brokers, &properties, &topic, keys, PATIENCE) {
                tracing::warn!("{section}: {error}");
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("written-topics".to_owned()).spawn(ask) {
        tracing::warn!(%error, "no thread to ask for the topics that are written to");
    }
}

/// What is wrong with a certificate that has ended.
pub(crate) fn expired(expires: Timestamp, now: Timestamp) -> Option<String> {
    let left = expires - now;
    let hours = -left.as_seconds() / 3600.0;
    (left <= Span(0)).then(|| format!("the certificate expired {hours:.1} h ago; renew it, no peer accepts it"))
}

/// A topic beside those of logs.
#[derive(Debug)]
pub(crate) struct Beside<'a> {
    /// The section it is configured in.
    pub(crate) section: &'static str,
    pub(crate) brokers: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) properties: &'a BTreeMap<String, String>,
    pub(crate) keys: TopicKeys<'static>,
}

/// All topics beside those of logs: dead letters, alerts, announcements.
pub(crate) fn beside(config: &Config) -> Vec<Beside<'_>> {
    let dead_letters = config.kafka.iter().filter(|kafka| !kafka.dead_letter_topic.is_empty()).map(|kafka| Beside {
        section: "kafka",
        brokers: &kafka.brokers,
        topic: &kafka.dead_letter_topic,
        properties: &kafka.properties,
        keys: TopicKeys {
            brokers: "`brokers` in [[kafka]]",
            topic: "`dead_letter_topic` in [[kafka]]",
            properties: "`properties` in [[kafka]]",
            right: "WRITE",
        },
    });
    let alerts = config.alerts.kafka.iter().map(|kafka| Beside {
        section: "alerts",
        brokers: &kafka.brokers,
        topic: &kafka.topic,
        properties: &kafka.settings,
        keys: TopicKeys {
            brokers: "`brokers` in [alerts.kafka]",
            topic: "`topic` in [alerts.kafka]",
            properties: "`settings` in [alerts.kafka]",
            right: "WRITE",
        },
    });
    let announced = Some(&config.announcements).filter(|of| !of.topic.is_empty()).map(|of| Beside {
        section: "announcements",
        brokers: &of.brokers,
        topic: &of.topic,
        properties: &of.properties,
        keys: TopicKeys {
            brokers: "`brokers` in [announcements]",
            topic: "`topic` in [announcements]",
            properties: "`properties` in [announcements]",
            right: "READ",
        },
    });
    dead_letters.chain(alerts).chain(announced).collect()
}

/// That alerts can be written to a file, which need not be there yet.
pub(crate) fn alerts(file: &Path) -> Result<(), String> {
    let wrong = |problem: String| Err(format!("[alerts] file = \"{}\": {problem}", file.display()));
    match OpenOptions::new().append(true).open(file) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return wrong(format!("{error}; name a file that this user may write")),
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match tempfile::tempfile_in(directory) {
        Ok(_) => Ok(()),
        Err(error) => wrong(format!("its directory: {error}; make it, and writable by this user")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    #[test]
    fn a_followed_file_may_be_missing_only_after_it_was_read_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateConfig { directory: folder.path().to_owned(), ..StateConfig::default() };
        let section = |follow| FileConfig { path: folder.path().join("none.log"), follow, ..FileConfig::default() };
        assert!(input(&section(true), &state).is_err_and(|error| error.contains("none.log")));
        fs::write(folder.path().join("snapshot.redb"), "").expect("written");
        assert_eq!(input(&section(true), &state), Ok(()));
        assert!(input(&section(false), &state).is_err());
    }

    #[test]
    fn a_followed_file_that_is_away_must_have_been_read_before() {
        let text = "[[file]]\npath = \"none.log\"\nfollow = true\n";
        let config = Config::parse(text).expect("it is valid");
        let error = known(&config, &Positions::new()).expect_err("never read").to_string();
        assert!(error.contains("none.log") && error.contains("never read before"), "{error}");
        assert!(known(&config, &Positions::from([((0, 0), 7)])).is_ok());
    }

    #[test]
    fn a_certificate_is_told_of_once_it_has_ended() {
        let at = Timestamp::from_seconds;
        assert_eq!(expired(at(7200), at(7199)), None);
        let told = expired(at(7200), at(10_800)).expect("it has ended");
        assert!(told.contains("expired 1.0 h ago; renew it"), "{told}");
    }

    #[test]
    fn topics_of_dead_letters_and_of_alerts_are_written_to() {
        let text = "[[kafka]]\ntopics = [{ name = \"a\" }]\ndead_letter_topic = \"dead\"\n[[kafka]]\n\
                    [alerts.kafka]\nbrokers = \"b:1\"\ntopic = \"alerts\"\n";
        let config = Config::parse(text).expect("it is valid");
        let topics: Vec<_> = beside(&config).iter().map(|of| (of.section, of.topic)).collect();
        assert_eq!(topics, [("kafka", "dead"), ("alerts", "alerts")]);
    }

    #[test]
    fn alerts_go_to_a_file_that_is_there_or_can_be_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| -> PathBuf { folder.path().join(name) };
        assert_eq!(alerts(&file("alerts.jsonl")), Ok(()));
        assert!(!file("alerts.jsonl").exists(), "to ask is not to make");
        assert!(alerts(&file("none/alerts.jsonl")).is_err_and(|error| error.contains("make it")));
        assert!(alerts(folder.path()).is_err_and(|error| error.contains("name a file")));
    }
}
