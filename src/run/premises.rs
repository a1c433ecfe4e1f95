//! What must hold before anything is opened or made: that what the configuration names is there, and that nobody else
//! runs on the state directory. `check` asks the same.

use std::{fs::OpenOptions, io, path::Path};

use anyhow::{Result, bail};
use qualm_ingest::{config::FileConfig, file};

use crate::{
    config::{Config, StateConfig},
    reload,
};

/// Asks all of it.
///
/// # Errors
/// The first that does not hold: section and key, what is wrong, and the remedy.
pub(crate) fn hold(config: &Config) -> Result<()> {
    alone(&config.state)?;
    for section in &config.file {
        input(section, &config.state).map_err(anyhow::Error::msg)?;
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
    fn alerts_go_to_a_file_that_is_there_or_can_be_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| -> PathBuf { folder.path().join(name) };
        assert_eq!(alerts(&file("alerts.jsonl")), Ok(()));
        assert!(!file("alerts.jsonl").exists(), "to ask is not to make");
        assert!(alerts(&file("none/alerts.jsonl")).is_err_and(|error| error.contains("make it")));
        assert!(alerts(folder.path()).is_err_and(|error| error.contains("name a file")));
    }
}
