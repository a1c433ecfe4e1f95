//! The commands as a person types them: their help, what they say about a wrong configuration, and what `check`,
//! `explain` and `reload` answer. The real binary, its real files.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use qualm_model::{
    detector::Question,
    evidence::Pace,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    journal::{Journal, JournalLimits, Kind},
    table::{Object, Subject},
    verdict::{Cause, Reason, Verdict},
};
use support::{ports, qualm::Qualm};
use tempfile::TempDir;

const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
const CART_BATCH: &str = "spiffe://mesh.test/ns/shop/sa/cart-batch";
const LINE: &str = r#"{"start_time":"2026-11-22T02:02:24.122Z","duration":2,"method":"GET","path":"/v1/orders/42","protocol":"HTTP/1.1","response_code":200,"bytes_received":0,"bytes_sent":3,"downstream_remote_address":"10.0.0.7:32830","downstream_local_address":"10.0.0.9:8080","downstream_peer_uri_san":"spiffe://mesh.test/ns/shop/sa/cart","downstream_local_uri_san":"spiffe://mesh.test/ns/shop/sa/orders"}"#;

/// A folder with a `qualm.toml` in which commands are run.
struct Place(TempDir);

impl Place {
    fn with(config: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path().join("qualm.toml"), config).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        answer(self.path(), arguments)
    }
}

/// What a command answered.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    /// The line of the output that contains `words`.
    fn line(&self, words: &str) -> &str {
        self.out.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("`{words}` is not in {self:#?}"))
    }
}

fn answer(folder: &Path, arguments: &[&str]) -> Answer {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_qualm")).args(arguments).current_dir(folder).output().unwrap();
    Answer { code: status.code(), out: String::from_utf8(stdout).unwrap(), err: String::from_utf8(stderr).unwrap() }
}

#[test]
fn help_says_what_each_command_does_and_what_exit_codes_mean() {
    let place = Place::with("");
    let all = place.run(&["--help"]);
    assert_eq!(all.code, Some(0));
    assert!(all.out.contains("Exit codes: 0 done"), "{all:#?}");
    for (command, words) in [
        ("demo", "--seed"),
        ("generate", "--attacks"),
        ("run", "--config"),
        ("backtest", "--mapping"),
        ("check", "certificates"),
        ("explain", "<IDENTITY>"),
        ("reload", "--config"),
        ("wire", "--remove"),
    ] {
        assert!(all.out.contains(&format!("\n  {command} ")), "{command} is not in {all:#?}");
        let help = place.run(&[command, "--help"]);
        assert_eq!((help.code, help.out.contains(words)), (Some(0), true), "{command}: {help:#?}");
    }
    assert_eq!(place.run(&["chek"]).code, Some(2));
    let refused = place.run(&["wire", "istio", "--namespace", "No!"]);
    assert!(refused.code == Some(2) && refused.err.contains("`No!` is no namespace"), "{refused:#?}");
}

#[test]
fn a_wrong_configuration_is_refused_at_start_with_file_key_and_remedy() {
    for (config, words) in [
        ("[budget]\nwatchd_per_day = 3\n", &["qualm.toml", "line 2", "`watched_per_day`"][..]),
        ("[lease]\nquarantined = \"1 fortnight\"\n", &["qualm.toml", "line 2", "\"15m\""]),
        ("[budget]\nthrottled_per_day = -1\n", &["qualm.toml", "[budget] throttled", "above 0"]),
        ("[enforce]\nmode = \"enforced\"\n", &["line 2", "did you mean `enforce`"]),
        ("[[file]]\nformat = \"istio_jsn\"\n", &["line 2", "did you mean `istio_json`"]),
        ("[memory]\nbaselines_mib = \"1 GiB\"\n", &["line 2", "`baselines_mib`", "a whole number without unit"]),
        ("[enforce]\nmax_age = 2\n", &["line 2", "`max_age`", "\"30s\""]),
        ("[enforce]\nmax_age = \"0s\"\n", &["[enforce] max_age", "at least \"1s\""]),
        ("[lease]\nwatched = \"0s\"\n", &["[lease] watched", "at least \"1s\""]),
        ("[log]\nlevel = \"lowd\"\n", &["[log] level", "`lowd` is no level", "write error, warn"]),
        ("[log]\nformat = \"text\"\nformat = \"json\"\n", &["line 3", "`format`", "keep one of the two"]),
        ("[[file]]\npath = \"none.log\"\n", &["[[file]] path = \"none.log\"", "No such file", "correct the path"]),
        ("[[file]]\npath = \".\"\n", &["[[file]] path = \".\"", "is a directory"]),
        ("[[file]]\nfollow = true\n", &["[[file]] path = \"-\"", "standard input cannot be followed"]),
        ("[[file]]\npath = \"log.gz\"\nfollow = true\n", &["\"log.gz\"", "only plain files can be followed"]),
        (
            "[[file]]\npath = \"access.log\"\n[alerts]\nfile = \"none/alerts.jsonl\"\n",
            &["[alerts] file = \"none/alerts.jsonl\"", "its directory", "make it"],
        ),
        ("", &["nothing to read", "[[kafka]]"]),
        ("[[file]]\n[[file]]\n", &["[[file]] path = \"-\"", "stands twice", "keep one"]),
        ("[[kafka]]\ntopics = [{ name = \"a\" }, { name = \"a\" }]\n", &["a stands twice for group qualm"]),
        ("[[file]]\npath = \"access.log\"\nmax_record_bytes = 0\n", &["max_record_bytes", "every record is too long"]),
        ("[[file]]\npath = \"access.log\"\n[state]\ndirectory = \"\"\n", &["[state] directory", "name one"]),
        ("[[file]]\npath = \"access.log\"\n[enforce]\nprotected = [\"\"]\n", &["[enforce] protected", "take it out"]),
        ("[[file]]\npath = \"access.log\"\nmax_level = \"revoked\"\n", &["max_level", "at most \"quarantined\""]),
        (
            "[[file]]\npath = \"access.log\"\n[history]\nfiles = [\"none.zst\"]\n",
            &["[history] files: none.zst", "correct the path"],
        ),
        (
            "[[file]]\npath = \"access.log\"\n[history]\nformat = \"mapped\"\n",
            &["[history] format", "no key for a mapping"],
        ),
        (
            "[listen]\naddress = \"127.0.0.1:9465\"\nplaintext_loopback = true\n[observe]\naddress = \"127.0.0.1:9465\"\n",
            &["[observe] address", "another port"],
        ),
        ("[[file]]\npath = \"access.log\"\nmapping = \"none.toml\"\nformat = \"mapped\"\n", &["none.toml"]),
        ("[[file]]\npath = \"access.log\"\nformat = \"mapped\"\n", &["access.log", "needs a mapping file"]),
        (
            "[listen]\naddress = \"127.0.0.1:0\"\ncertificate = \"none.crt\"\nkey = \"k\"\nclient_roots = \"r\"\n",
            &["listen.certificate", "none.crt", "name a PEM file"],
        ),
        ("[listen]\naddress = \"0.0.0.0:0\"\nplaintext_loopback = true\n", &["plaintext_loopback", "127.0.0.1"]),
    ] {
        let place = Place::with(config);
        fs::write(place.path().join("access.log"), LINE).unwrap();
        fs::write(place.path().join("log.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
        let refused = place.run(&["run"]);
        assert_eq!(refused.code, Some(2), "{config}: {refused:#?}");
        let missing: Vec<_> = words.iter().filter(|word| !refused.err.contains(**word)).collect();
        assert!(missing.is_empty(), "{config}: no {missing:?} in {refused:#?}");
        assert!(
            !place.path().join("qualm-state").exists(),
            "{config}: nothing is made before the configuration is sound"
        );
    }
    let nowhere = Place::with("").run(&["run", "--config", "none.toml"]);
    assert!(nowhere.code == Some(2) && nowhere.err.contains("none.toml: cannot be read"), "{nowhere:#?}");
}

/// A wall time that is still to come, so that leases stand.
fn tomorrow() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(now.as_nanos()).unwrap()) + Span::DAY
}

fn verdict(identity: &str, previous: Level, level: Level, cause: Cause) -> Verdict {
    let time = Timestamp::from_seconds(1_767_225_600);
    let reason = Reason {
        detector: Question::RarePeer,
        bits: 12.5,
        observed: 0.0,
        expected: 0.0,
        n: 421.0,
        destination: "spiffe://mesh.test/ns/bank/sa/payments".to_owned(),
        operation: None,
    };
    Verdict {
        time,
        decided: time,
        identity: identity.to_owned(),
        namespace: Some("shop".to_owned()),
        subject: Subject { principal: identity.to_owned(), cluster: None, instance: Some("10.0.0.7".to_owned()) },
        object: Object::Any,
        level,
        previous,
        cause,
        pace: (cause == Cause::Evidence).then_some(Pace::Fast),
        evidence_bits: 21.5,
        threshold_bits: 15.25,
        per_day: 0.001,
        m: 9.0,
        threshold: 8.0,
        lease: (level > Level::Trusted).then_some(Span::HOUR),
        expires: (level > Level::Trusted).then(tomorrow),
        decision: format!("d-{level}"),
        episode: time,
        historic: false,
        enforce: true,
        held: None,
        instances: vec!["10.0.0.7".to_owned(), "10.0.0.8".to_owned()],
        reasons: if cause == Cause::Evidence { vec![reason] } else { Vec::new() },
    }
}

/// A state directory in which these were decided.
fn decided(verdicts: &[Verdict]) -> Place {
    let place = Place::with("");
    let opened = Journal::open(&place.path().join("qualm-state/journal"), &JournalLimits::default()).unwrap();
    for verdict in verdicts {
        let seq = opened.journal.append(Kind::Decision, verdict.time, verdict.decided, verdict).unwrap();
        opened.journal.wait_durable(seq).unwrap();
    }
    place
}

#[test]
fn explain_tells_where_an_identity_stands_and_every_step_of_its_latest_episode() {
    use Level::{Quarantined, Trusted, Watched};
    let place = decided(&[
        verdict(CART, Trusted, Level::Throttled, Cause::Evidence),
        verdict(CART, Level::Throttled, Trusted, Cause::Lease),
        verdict(CART, Trusted, Watched, Cause::Evidence),
        verdict(CART, Watched, Watched, Cause::Renewed),
        verdict(CART, Watched, Watched, Cause::Renewed),
        verdict(CART, Watched, Quarantined, Cause::Evidence),
    ]);
    // A part of the name is enough.
    let told = place.run(&["explain", "sa/cart"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(
        told.out.starts_with("instance 10.0.0.7 of cart (namespace shop) called payments for the first time"),
        "{told:#?}"
    );
    told.line("stands at  quarantined, enforced, until 20");
    told.line("its instance 10.0.0.7 alone, not its siblings (2 live: 10.0.0.7, 10.0.0.8)");
    told.line("decision   d-quarantined");
    told.line("trusted -> watched: 21.5 bits, 15.2 are needed, on the fast clock, lease 60 min, decision d-watched");
    told.line("lease of watched renewed 2 times");
    told.line("watched -> quarantined: 21.5 bits");
    told.line("12.5 bits  new-peer: it called payments for the first time (rests on 421)");
    told.line("ask the owner of cart");
    assert!(!told.out.contains("throttled"), "an episode that has ended is not told again: {}", told.out);
}

#[test]
fn explain_lists_whom_a_part_of_a_name_may_mean_and_says_when_it_means_nobody() {
    let place = decided(&[
        verdict(CART, Level::Trusted, Level::Watched, Cause::Evidence),
        verdict(CART_BATCH, Level::Trusted, Level::Watched, Cause::Evidence),
        verdict(CART_BATCH, Level::Watched, Level::Trusted, Cause::Lease),
    ]);
    let several = place.run(&["explain", "car"]);
    assert_eq!(several.code, Some(2), "{several:#?}");
    assert!(several.err.contains(CART) && several.err.contains(CART_BATCH), "{several:#?}");
    let service = place.run(&["explain", "cart"]);
    assert!(
        service.code == Some(0) && service.out.contains("stands at  watched"),
        "a service's own name is one: {service:#?}"
    );
    let ended = place.run(&["explain", "cart-batch"]);
    ended.line("stands at  trusted, since 2026-01-01");
    let nobody = place.run(&["explain", "crat"]);
    assert_eq!((nobody.code, nobody.out.as_str()), (Some(2), ""), "{nobody:#?}");
    assert!(nobody.err.contains("`crat` is not known: of 2 identities") && nobody.err.contains(CART), "{nobody:#?}");
    let nothing = Place::with("").run(&["explain", "cart"]);
    assert!(nothing.code == Some(2) && nothing.err.contains("nothing is known here yet"), "{nothing:#?}");
}

#[test]
fn explain_tells_of_a_configuration_that_changed_what_an_entry_does() {
    use Level::{Quarantined, Trusted};
    let mut shadow = verdict(CART, Trusted, Quarantined, Cause::Evidence);
    shadow.enforce = false;
    let mut acting = verdict(CART, Quarantined, Quarantined, Cause::Operator);
    acting.expires = shadow.expires;
    let place = decided(std::slice::from_ref(&shadow));
    let told = place.run(&["explain", "cart"]);
    told.line("stands at  quarantined, in shadow only, until 20");
    told.line("`qualm reload` lets it act while its evidence stands");
    let place = decided(&[shadow, acting]);
    let told = place.run(&["explain", "cart"]);
    told.line("stands at  quarantined, enforced, until 20");
    told.line("quarantined stands: the configuration lets it act from now on");
}

/// A place in which `qualm run` has read these lines and ended.
fn read(lines: &str) -> Place {
    let place = Place::with("[[file]]\npath = \"access.log\"\n[observe]\naddress = \"127.0.0.1:0\"\n");
    fs::write(place.path().join("access.log"), lines).unwrap();
    let run = place.run(&["run"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    place
}

#[test]
fn explain_says_of_whom_nothing_was_ever_decided_that_it_is_trusted_and_what_is_known_of_it() {
    let (other, later) = (LINE.replace("sa/orders", "sa/stock"), LINE.replace("02:02:24", "03:04:05"));
    let place = read(&format!("{LINE}\n{other}\n{later}\n"));
    let told = place.run(&["explain", "cart"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(told.out.starts_with(&format!("{CART} is trusted: nothing was ever decided about it.\n")), "{told:#?}");
    told.line("stands at  trusted");
    told.line("known      since 2026-11-22 02:02:24 UTC, last seen 2026-11-22 03:04:05 UTC");
    told.line("calls      2 peers, from 1 instance");
    told.line(
        "levels     none is armed; watched not yet, for want of episodes; throttled not before 2026-11-23 02:02:24",
    );
    told.line("as of      the last snapshot, which has read telemetry up to 2026-11-22 03:04:05");
    told.line("wait: no level is armed yet");
    let nobody = place.run(&["explain", "crat"]);
    assert_eq!((nobody.code, nobody.out.as_str()), (Some(2), ""), "{nobody:#?}");
    assert!(nobody.err.contains("`crat` is not known: of 1 identity in journal and snapshot"), "{nobody:#?}");
    assert!(nobody.err.contains(CART), "{nobody:#?}");
}

#[test]
fn a_byte_order_mark_before_the_first_line_loses_no_record() {
    let place = read(&format!("\u{feff}{LINE}\n"));
    assert_eq!(place.run(&["explain", "cart"]).code, Some(0));
}

#[test]
fn a_log_of_which_no_record_can_be_read_is_a_wrong_input_with_its_first_reason() {
    let place = Place::with("");
    fs::write(place.path().join("log"), "time,source\n1,a\n").unwrap();
    let refused = place.run(&["backtest", "log", "--format", "vault_audit", "--out", "out"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    for words in ["none of the 2 records could be read as vault_audit", "row 0, is `", "--mapping"] {
        assert!(refused.err.contains(words), "{words}: {refused:#?}");
    }
    assert!(place.path().join("out/report.json").exists(), "the report says so too");
    fs::write(place.path().join("log"), format!("broken\n{LINE}\n")).unwrap();
    let read = place.run(&["backtest", "log", "--format", "istio_json", "--out", "out"]);
    assert_eq!(read.code, Some(0), "one that can be read is enough: {read:#?}");
    fs::write(place.path().join("log"), "").unwrap();
    let nothing = place.run(&["backtest", "log", "--format", "istio_json", "--out", "out"]);
    assert_eq!(nothing.code, Some(0), "a quiet day is no mistake: {nothing:#?}");
}

#[test]
fn the_format_of_a_log_is_found_out_where_none_is_named() {
    let place = Place::with("");
    fs::write(place.path().join("log"), format!("{LINE}\n")).unwrap();
    let read = place.run(&["backtest", "log", "--out", "out"]);
    assert_eq!(read.code, Some(0), "{read:#?}");
    let report = fs::read_to_string(place.path().join("out/report.json")).unwrap();
    assert!(report.contains("\"format\": \"auto\"") && report.contains("\"scored\": 1"), "{report}");
    let revoked = place.run(&["backtest", "log", "--out", "out", "--max-level", "revoked"]);
    assert!(revoked.code == Some(2) && revoked.err.contains("no behaviour leads to `revoked`"), "{revoked:#?}");
}

#[test]
fn run_says_what_it_rejects_and_an_input_of_which_nothing_is_understood_is_a_wrong_one() {
    let config = "[[file]]\npath = \"access.log\"\nformat = \"istio_json\"\n[observe]\naddress = \"127.0.0.1:0\"\n";
    let place = Place::with(config);
    let write = |lines: &str| fs::write(place.path().join("access.log"), lines).unwrap();
    write(&"{\"start_time\":\n".repeat(100));
    let refused = place.run(&["run"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    for words in ["none of the 100 records could be read", "row 0 of access.log, is `syntax`", "`qualm formats`"] {
        assert!(refused.err.contains(words), "{words}: {refused:#?}");
    }
    let said = format!("{}{}", refused.out, refused.err);
    assert_eq!(said.matches("a record is rejected").count(), 1, "once, not a hundred times: {refused:#?}");
    assert!(said.contains("nothing in it was understood") && said.contains("syntax 100"), "{refused:#?}");
    // What was not understood was not passed over: it is read again when it can be.
    write(&format!("{{\"start_time\":\n{LINE}\n"));
    let read = place.run(&["run"]);
    assert_eq!(read.code, Some(0), "one that can be read is enough: {read:#?}");
    let said = format!("{}{}", read.out, read.err);
    for words in ["a record is rejected", "has ended", "events=1", "syntax 1"] {
        assert!(said.contains(words), "{words}: {read:#?}");
    }
    let nothing_new = place.run(&["run"]);
    assert_eq!(nothing_new.code, Some(0), "nothing new is no mistake: {nothing_new:#?}");
}

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
        "[[file]]\npath = \"a.log\"\ncluster = \"north\"\n[[file]]\npath = \"b.log\"\n[alerts]\nstdout = true\n",
    );
    for name in ["a.log", "b.log"] {
        fs::write(place.path().join(name), LINE).unwrap();
    }
    let answer = place.run(&["check"]);
    assert!(answer.out.contains("warn  inputs    b.log: no `cluster`"), "{answer:?}");
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
