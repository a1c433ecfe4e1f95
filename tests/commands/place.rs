//! A folder in which commands are run, and what they answer.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

pub(crate) const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
pub(crate) const CART_BATCH: &str = "spiffe://mesh.test/ns/shop/sa/cart-batch";
pub(crate) const LINE: &str = r#"{"start_time":"2026-11-22T02:02:24.122Z","duration":2,"method":"GET","path":"/v1/orders/42","protocol":"HTTP/1.1","response_code":200,"bytes_received":0,"bytes_sent":3,"downstream_remote_address":"10.0.0.7:32830","downstream_local_address":"10.0.0.9:8080","downstream_peer_uri_san":"spiffe://mesh.test/ns/shop/sa/cart","downstream_local_uri_san":"spiffe://mesh.test/ns/shop/sa/orders"}"#;

/// A folder with a `qualm.toml` in which commands are run.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn with(config: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path().join("qualm.toml"), config).unwrap();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        answer(self.path(), arguments)
    }
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    /// The line of the output that contains `words`.
    pub(crate) fn line(&self, words: &str) -> &str {
        self.out.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("`{words}` is not in {self:#?}"))
    }
}

pub(crate) fn answer(folder: &Path, arguments: &[&str]) -> Answer {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_qualm")).args(arguments).current_dir(folder).output().unwrap();
    Answer { code: status.code(), out: String::from_utf8(stdout).unwrap(), err: String::from_utf8(stderr).unwrap() }
}

/// A place in which `qualm run` has read these lines and ended.
pub(crate) fn read(lines: &str) -> Place {
    let place = Place::with("[[file]]\npath = \"access.log\"\n[observe]\naddress = \"127.0.0.1:0\"\n");
    fs::write(place.path().join("access.log"), lines).unwrap();
    let run = place.run(&["run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    place
}
