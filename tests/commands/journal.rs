//! `journal verify` and `journal export`.

use std::fs;

use qualm_model::time::Timestamp;
use qualm_scorer::journal::{Journal, JournalLimits, Kind};

use crate::{
    operating::Estate,
    place::{LINE, Place, answer, read},
};

const RECORDS: usize = 200;

/// A journal of its own, in several files.
fn written() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let limits = JournalLimits { segment_bytes: 8 << 10, ..JournalLimits::default() };
    let journal = Journal::open(&folder.path().join("journal"), &limits).unwrap().journal;
    for n in 0..RECORDS {
        let time = Timestamp::from_seconds(1_700_000_000 + n as i64);
        let payload = serde_json::json!({ "identity": format!("spiffe://mesh.test/ns/shop/sa/s{n}"), "n": n });
        journal.append(Kind::Command, time, time, &payload).unwrap();
    }
    folder
}

/// The files of a journal, in order.
fn files(folder: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder.path().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.file_name().is_some_and(|name| name != "LOCK")).collect();
    files.sort();
    files
}

#[test]
fn a_sound_journal_is_told_so_with_its_head() {
    let folder = written();
    let sound = answer(folder.path(), &["journal", "verify", "journal"]);
    assert_eq!(sound.code, Some(0), "{sound:#?}");
    assert!(sound.line("sound: ").contains("200 records, 1 to 200"));
    let head = sound.line("head ").split(' ').nth(1).unwrap().to_owned();
    assert_eq!(answer(folder.path(), &["journal", "verify", "journal", "--head", &head]).code, Some(0));
    // Cut off at its end by whole records, which no chain can show by itself.
    let last = files(&folder).pop().unwrap();
    let text = fs::read_to_string(&last).unwrap();
    let cut = text.trim_end().rfind('\n').unwrap() + 1;
    fs::write(&last, &text[..cut]).unwrap();
    assert_eq!(answer(folder.path(), &["journal", "verify", "journal"]).code, Some(0));
    let found = answer(folder.path(), &["journal", "verify", "journal", "--head", &head]);
    assert_eq!(found.code, Some(3), "{found:#?}");
    assert!(found.out.contains("was cut off"), "{found:#?}");
}

#[test]
fn whatever_was_done_to_a_record_is_found_and_named() {
    type Harm = fn(&mut Vec<String>);
    let harms: [(&str, Harm); 4] = [
        ("the record was changed", |lines| lines[5] = lines[5].replacen("\"n\":", "\"N\":", 1)),
        ("a record was changed, removed or moved", |lines| {
            lines.remove(5);
        }),
        ("a record was changed, removed or moved", |lines| lines.swap(5, 6)),
        ("a record was changed, removed or moved", |lines| lines.insert(6, lines[5].clone())),
    ];
    for (words, harm) in harms {
        let folder = written();
        let [_, second, ..] = &files(&folder)[..] else { panic!("several files") };
        let text = fs::read_to_string(second).unwrap();
        let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
        harm(&mut lines);
        fs::write(second, lines.concat()).unwrap();
        let found = answer(folder.path(), &["journal", "verify", "journal"]);
        assert_eq!(found.code, Some(3), "{found:#?}");
        let name = second.file_name().unwrap().to_str().unwrap();
        assert!(found.out.contains(words) && found.out.contains(name) && found.out.contains("line "), "{found:#?}");
        let exported = answer(folder.path(), &["journal", "export", "journal"]);
        assert_eq!(exported.code, Some(2), "what is damaged is not handed on as sound");
        assert!(exported.out.lines().count() < RECORDS && exported.err.contains(name), "{}", exported.err);
    }
}

#[test]
fn one_flipped_bit_anywhere_is_found() {
    let folder = written();
    let all = files(&folder);
    for n in 0..60_usize {
        let file = &all[n % all.len()];
        let sound = fs::read(file).unwrap();
        let mut flipped = sound.clone();
        let place = (n * 7919) % sound.len();
        flipped[place] ^= 1 << (n % 8);
        fs::write(file, &flipped).unwrap();
        let found = answer(folder.path(), &["journal", "verify", "journal"]);
        assert_ne!(found.code, Some(0), "byte {place} of {}: {found:#?}", file.display());
        fs::write(file, &sound).unwrap();
    }
}

#[test]
fn one_flipped_bit_among_a_hundred_thousand_records_is_found_and_named_by_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal"), &JournalLimits::default()).unwrap().journal;
    for n in 0..100_000_i64 {
        journal.append(Kind::Command, Timestamp(n), Timestamp(n), &serde_json::json!({ "n": n })).unwrap();
    }
    drop(journal);
    let is_sound = || {
        let told = answer(folder.path(), &["journal", "verify", "journal"]);
        assert!(told.line("sound: ").contains("100000 records, 1 to 100000"), "{told:#?}");
    };
    is_sound();
    let [file] = &files(&folder)[..] else { panic!("one file") };
    let mut bytes = fs::read(file).unwrap();
    for n in 0..8 {
        let (place, bit) = (bytes.len() / 9 * (n + 1), 1_u8 << n);
        bytes[place] ^= bit;
        fs::write(file, &bytes).unwrap();
        let line = bytes[..place].iter().filter(|byte| **byte == b'\n').count() + 1;
        let found = answer(folder.path(), &["journal", "verify", "journal"]);
        assert_eq!(found.code, Some(3), "{found:#?}");
        assert!(found.out.contains(&format!("line {line}")), "byte {place}, bit {bit}: {found:#?}");
        bytes[place] ^= bit;
    }
    fs::write(file, &bytes).unwrap();
    is_sound();
}

#[test]
fn records_are_exported_as_json_lines_by_time_and_by_identity() {
    let folder = written();
    let export = |arguments: &[&str]| {
        let said = answer(folder.path(), &[&["journal", "export", "journal"], arguments].concat());
        assert_eq!(said.code, Some(0), "{said:#?}");
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    assert_eq!(export(&[]).len(), RECORDS);
    let [one] = &export(&["--identity", "sa/s199"])[..] else { panic!("one record") };
    assert_eq!((&one["seq"], &one["payload"]["n"], &one["kind"]), (&200.into(), &199.into(), &"command".into()));
    assert_eq!(export(&["--since", "2023-11-14T22:16:30Z"]).len(), 10);
    assert!(export(&["--since", "1h"]).is_empty());
    let wrong = answer(folder.path(), &["journal", "export", "journal", "--since", "lately"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("write a time as"), "{wrong:#?}");
}

#[test]
fn the_journal_of_the_configuration_is_meant_where_none_is_named() {
    let place = read(&format!("{LINE}\n"));
    assert!(place.run(&["journal", "verify"]).line("sound: ").contains("records, 1 to "));
    let nowhere = Place::with("").run(&["journal", "verify"]);
    assert!(nowhere.code == Some(2) && nowhere.err.contains("is no directory"), "{nowhere:#?}");
}

#[test]
fn what_an_instance_has_decided_is_replayed_verified_by_its_key_and_packed_for_whoever_has_but_that_key() {
    let mut estate = Estate::start("enforce");
    let otto = estate.person("otto");
    otto.done(&["quarantine", "cart", "--for", "1h", "--reason", "incident 7", "--yes"]);
    otto.done(&["watch", "web", "--for", "1h", "--reason", "another matter"]);
    let decision = otto.done(&["show", "cart"])["entries"][0]["decision"].as_str().unwrap().to_owned();
    otto.done(&["lift", "cart", "--reason", "it was us"]);
    let folder = estate.qualm.folder().to_owned();
    estate.qualm.stop();

    let replayed = answer(&folder, &["replay", &decision[..12]]);
    assert_eq!(replayed.code, Some(0), "{replayed:#?}");
    assert!(
        replayed.out.contains("quarantined after trusted: identical")
            && replayed.out.contains("2 identical, 0 different"),
        "{replayed:#?}"
    );
    let unknown = answer(&folder, &["replay", "no-such-decision"]);
    assert!(unknown.code == Some(2) && unknown.err.contains("qualm explain"), "{unknown:#?}");

    let checked = answer(&folder, &["check"]);
    let key = checked.line("the public key is").split("the public key is ").nth(1).unwrap().trim().to_owned();
    let sound = answer(&folder, &["journal", "verify", "--key", &key]);
    assert_eq!(sound.code, Some(0), "{sound:#?}");
    assert!(sound.out.contains(&format!("each signed by {key}")), "{sound:#?}");
    let other = format!("ed25519:{}", "0".repeat(64));
    assert_eq!(answer(&folder, &["journal", "verify", "--key", &other]).code, Some(3));
    assert_eq!(answer(&folder, &["journal", "verify", "--key", "no key"]).code, Some(2));

    let packed = answer(&folder, &["journal", "pack", &decision, "--out", "cart.pack"]);
    assert_eq!(packed.code, Some(0), "{packed:#?}");
    assert_eq!(
        answer(&folder, &["journal", "pack", "cart", "--out", "cart.pack"]).code,
        Some(2),
        "it overwrites nothing"
    );
    let elsewhere = tempfile::tempdir().unwrap();
    fs::copy(folder.join("cart.pack"), elsewhere.path().join("cart.pack")).unwrap();
    let verified = answer(elsewhere.path(), &["journal", "verify", "cart.pack", "--key", &key]);
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    assert!(verified.out.contains("incident 7") && verified.out.contains("it was us"), "{verified:#?}");
    assert!(!verified.out.contains("another matter"), "what is about others is not told: {verified:#?}");
    let text = fs::read_to_string(folder.join("cart.pack")).unwrap();
    assert!(!text.contains("another matter"));
    fs::write(elsewhere.path().join("cart.pack"), text.replace("incident 7", "incident 8")).unwrap();
    let forged = answer(elsewhere.path(), &["journal", "verify", "cart.pack", "--key", &key]);
    assert!(forged.code == Some(3) && forged.out.contains("damaged"), "{forged:#?}");
    assert_eq!(answer(&folder, &["journal", "pack", "nobody-of-this-name", "--out", "x"]).code, Some(2));
}
