//! Somebody who operates a running Qualm at the command line.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::authority::{Authority, SvidFiles, spiffe_id};

/// What the configuration of a test says of people: one of each, by account in namespace `soc`.
pub(crate) fn lists() -> String {
    let list = |key: &str, account: &str| format!("{key} = [\"{}\"]\n", spiffe_id("soc", account));
    [("viewers", "vera"), ("operators", "otto"), ("approvers", "paul"), ("admins", "ada")]
        .map(|(key, account)| list(key, account))
        .concat()
}

/// A person with a certificate, beside the configuration of the instance.
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) svid: SvidFiles,
    /// Where the instance's configuration is.
    folder: PathBuf,
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Person {
    /// `account` of namespace `soc`, with a certificate by `authority`.
    pub(crate) fn new(authority: &Authority, account: &str, folder: &Path) -> Self {
        Self::with_id(authority, &spiffe_id("soc", account), folder)
    }

    pub(crate) fn with_id(authority: &Authority, id: &str, folder: &Path) -> Self {
        let place = folder.join(format!("people-{}", id.rsplit('/').next().unwrap_or(id)));
        let svid = authority.write_svid(id, &place);
        Self { id: id.to_owned(), svid, folder: folder.to_owned() }
    }

    /// Runs a command of the interface.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qualm"));
        command.args(arguments).arg("--cert").arg(&self.svid.certificate).arg("--key").arg(&self.svid.key);
        said(command.args(["--config", "qualm.toml"]).current_dir(&self.folder))
    }

    /// Runs one that must be done; its JSON.
    pub(crate) fn done(&self, arguments: &[&str]) -> Value {
        let said = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:#?}");
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:#?}"))
    }

    /// Runs one that must be refused with exit code 2; what it says.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:#?}");
        said.err
    }
}

/// What the journal beside the configuration under `folder` says about an identity, record by record.
pub(crate) fn journalled(folder: &Path, identity: &str) -> Vec<Value> {
    of_journal(folder, &["--identity", identity])
}

/// The whole journal beside the configuration under `folder`, record by record.
pub(crate) fn exported(folder: &Path) -> Vec<Value> {
    of_journal(folder, &[])
}

fn of_journal(folder: &Path, filter: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qualm"));
    let said = said(command.args(["journal", "export"]).args(filter).current_dir(folder));
    assert_eq!(said.code, Some(0), "{said:#?}");
    said.out.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

fn said(command: &mut Command) -> Said {
    let output = command.output().expect("the product can be started");
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
