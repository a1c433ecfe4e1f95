//! What `check` finds.

use std::{fs, net::TcpListener};

use crate::place::{LINE, Place, read};

#[test]
fn a_followed_file_that_is_away_is_told_by_check_and_refused_by_run_where_it_was_never_read() {
    let place = read(&format!("{LINE}\n"));
    let config = "[[file]]\npath = \"other.log\"\nfollow = true\n[observe]\naddress = \"127.0.0.1:0\"\n";
    fs::write(place.path().join("qualm.toml"), config).unwrap();
    let checked = place.run(&["check"]);
    assert!(checked.line("other.log is not there").starts_with("warn"), "{checked:#?}");
    let refused = place.run(&["run"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.err.contains("\"other.log\": is not there, and was never read before"), "{refused:#?}");
}

#[test]
fn check_finds_nothing_to_mend_where_everything_is_there() {
    let place =
        Place::with("[[file]]\npath = \"access.log\"\n[alerts]\nstdout = true\n[observe]\naddress = \"127.0.0.1:0\"\n");
    fs::write(place.path().join("access.log"), LINE).unwrap();
    let checked = place.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:#?}");
    for words in ["ok    config", "ok    file", "ok    enforce   mode shadow", "ok    observe", "will be made"] {
        checked.line(words);
    }
    checked.line("0 to mend");
    assert!(!place.path().join("qualm-state").exists(), "to check is not to make");
}

#[test]
fn check_warns_where_two_clusters_might_be_taken_for_one() {
    let place = Place::with(
        "[[file]]\npath = \"a.log\"\ncluster = \"north\"\n[[file]]\npath = \"b.log\"\n[alerts]\nstdout = true\n\
         [observe]\naddress = \"127.0.0.1:0\"\n",
    );
    for name in ["a.log", "b.log"] {
        fs::write(place.path().join(name), LINE).unwrap();
    }
    let answer = place.run(&["check"]);
    assert!(answer.out.contains("warn  inputs    file b.log: no `cluster`"), "{answer:?}");
}

#[test]
fn check_tells_what_became_of_the_records_of_a_stopped_instance_and_that_no_cluster_is_named() {
    let wrapped = |container: &str, number: usize| {
        let line = LINE.replace("02:02:24.122Z", &format!("02:{:02}:{:02}.122Z", number / 60, number % 60));
        let pod = format!("\"pod_name\":\"orders-5d4f8b7c9d-x7x2p\",\"container_name\":\"{container}\"");
        let line = line.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{{\"log\":\"{line}\",\"kubernetes\":{{{pod},\"namespace_name\":\"shop\"}}}}\n")
    };
    let mut lines: String = (0..100).map(|number| wrapped("istio-proxy", number)).collect();
    lines.extend((0..40).map(|number| wrapped("shop", number)));
    lines.push_str(&"2026-11-22T02:00:00Z info starting up\n".repeat(300));
    lines.push_str(&"{\n".repeat(30));
    let checked = read(&lines).run(&["check"]);
    checked.line(
        "file access.log: 470 records so far, 140 events: 40 of proxies that are not believed, 300 foreign, 30 invalid",
    );
    for words in
        ["written by container shop", "of the records are no access logs", "of the records cannot be read (syntax 30)"]
    {
        assert!(checked.line(words).starts_with("warn  inputs"), "{checked:#?}");
    }
    assert!(checked.line("no `cluster`").starts_with("warn  inputs"), "{checked:#?}");
}

#[test]
fn check_asks_for_no_cluster_where_the_records_read_so_far_name_it() {
    let lines: String = (0..40)
        .map(|second| {
            let line = LINE.replace("02:02:24.122Z", &format!("02:02:{second:02}.122Z"));
            let line = line.replace('\\', "\\\\").replace('"', "\\\"");
            format!(
                "{{\"log\":\"{line}\",\"kubernetes\":{{\"pod_name\":\"orders-5d4f8b7c9d-x7x2p\",\"namespace_name\":\"shop\",\
                 \"container_name\":\"istio-proxy\",\"cluster_name\":\"north\"}}}}\n"
            )
        })
        .collect();
    let checked = read(&lines).run(&["check"]);
    checked.line("file access.log: 40 records so far, 40 events");
    assert!(!checked.out.contains("no `cluster`"), "{checked:#?}");
}

#[test]
fn check_names_everything_that_must_be_mended_at_once_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::with(&format!(
        r#"
        [[kafka]]
        brokers = "127.0.0.1:1"
        topics = [{{ name = "mesh", format = "istio_json" }}, {{ name = "own", format = "mapped", mapping = "none.toml" }}]
        [[file]]
        path = "none.log"
        [history]
        files = ["none.zst"]
        [listen]
        address = "127.0.0.1:0"
        [observe]
        address = "{}"
        [alerts]
        file = "none/alerts.jsonl"
        "#,
        taken.local_addr().unwrap()
    ));
    let state = place.path().join("qualm-state");
    fs::create_dir_all(state.join("journal")).unwrap();
    fs::write(state.join("snapshot.redb"), [7; 8192]).unwrap();
    fs::write(state.join("journal/00000000000000000001.jsonl"), "{\"v\":1,\"seq\":1}\n").unwrap();
    let checked = place.run(&["check"]);
    assert_eq!(checked.code, Some(3), "{checked:#?}");
    for (section, words) in [
        ("kafka", "127.0.0.1:1: no answer from the brokers"),
        ("kafka", "none.toml: the mapping file cannot be read"),
        ("file", "\"none.log\": No such file"),
        ("history", "none.zst: No such file"),
        ("listen", "listen.certificate: missing; name a PEM file"),
        ("observe", "choose another port"),
        ("alerts", "\"none/alerts.jsonl\": its directory"),
        ("journal", "line 1: not a record"),
        ("state", "the snapshot is damaged"),
    ] {
        let line = checked.line(words);
        assert!(line.starts_with("fail") && line.contains(section), "{line}");
    }
    let unread = Place::with("[budgt]\n").run(&["check"]);
    assert_eq!(unread.code, Some(3), "{unread:#?}");
    assert!(unread.line("fail  config").contains("did you mean `budget`"), "{unread:#?}");
}
