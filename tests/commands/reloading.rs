//! `reload`, and a running instance.

use std::fs;

use crate::{
    place::{LINE, Place, answer},
    support::{ports, qualm::Qualm},
};

#[test]
fn reload_is_refused_while_the_new_configuration_is_wrong_or_nobody_runs() {
    let wrong = Place::with("[enforce]\nmax_share = 2\n").run(&["reload"]);
    assert_eq!(wrong.code, Some(2), "{wrong:#?}");
    assert!(wrong.err.contains("the old configuration stands") && wrong.err.contains("max_share"), "{wrong:#?}");
    let place = Place::with("");
    fs::create_dir_all(place.path().join("qualm-state")).unwrap();
    // What a killed instance leaves behind: the number may be another process's by now.
    fs::write(place.path().join("qualm-state/qualm.pid"), std::process::id().to_string()).unwrap();
    let nobody = place.run(&["reload"]);
    assert_eq!(nobody.code, Some(2), "{nobody:#?}");
    assert!(nobody.err.contains("no instance is running on qualm-state"), "{nobody:#?}");
}

#[test]
fn a_running_instance_is_seen_by_check_and_reads_its_configuration_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("access.log"), format!("{LINE}\n")).unwrap();
    let http = ports::free();
    let config = |watched: u32| {
        format!(
            "[[file]]\npath = \"../access.log\"\nfollow = true\n[observe]\naddress = \"127.0.0.1:{http}\"\n[budget]\n\
             watched_per_day = {watched}\n[state]\nsnapshot_every = \"1s\"\n"
        )
    };
    let mut running = Qualm::start(folder.path(), &config(10), http);
    let inside = running.folder().to_owned();
    let checked = answer(&inside, &["check"]);
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    checked.line("an instance is running on qualm-state");
    checked.line("/readyz: ready");
    checked.line("watched is not armed yet");

    running.wait_until_next_snapshot();
    let explained = answer(&inside, &["explain", "cart"]);
    assert_eq!(explained.code, Some(0), "also while it runs: {explained:#?}");
    let second = answer(&inside, &["run"]);
    assert_eq!(second.code, Some(2), "{second:#?}");
    for words in ["[state] directory qualm-state", "(process ", "is running on it", "`qualm reload`"] {
        assert!(second.err.contains(words), "{words}: {second:#?}");
    }

    fs::write(inside.join("qualm.toml"), config(5)).unwrap();
    answer(&inside, &["check"]).line("the running instance has read another configuration");
    let told = answer(&inside, &["reload"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    let log = inside.join("qualm.log");
    running.wait_until("has read it again", || fs::read_to_string(&log).is_ok_and(|log| log.contains("reloaded")));
    // The journal's thread writes a moment later.
    running.wait_until("has journalled it", || !answer(&inside, &["check"]).out.contains("another configuration"));
    running.stop();
}
