//! Signed checkpoints and evidence packs: what nobody without the key can make.
#![allow(clippy::unwrap_used)] // Tests, and what only they call.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use qualm_model::time::{Span, Timestamp};
use qualm_scorer::journal::{
    About, Head, Journal, JournalError, JournalLimits, KeyError, Kind, MOST_UNSIGNED, Opened, PackWriter, PublicKey,
    Seal, Seq, SigningKey, read_from, verify, verify_pack, verify_signed,
};
use serde_json::json;
use tempfile::TempDir;

/// The file with the latest seal, and what it is renamed to where the chain does not reach to it.
const LATEST: &str = "SEAL";
const CUT: &str = "SEAL.cut";

/// The key of all tests.
fn key() -> SigningKey {
    SigningKey::of_seed(&[7; 32])
}

fn signed(directory: &Path) -> Opened {
    Journal::open_signed(directory, &JournalLimits::default(), key()).expect("a journal that opens")
}

fn append(journal: &Journal, n: u64) -> Seq {
    let seq = journal.append(Kind::Decision, Timestamp(n as i64), Timestamp(n as i64 + 1), &json!({ "n": n })).unwrap();
    journal.wait_durable(seq).unwrap();
    seq
}

/// The files with records, in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|of| of == "jsonl")).collect();
    files.sort();
    files
}

/// A journal of so many records under seals, the last one included.
fn sealed(count: u64, segment_bytes: u64) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let limits = JournalLimits { segment_bytes, ..JournalLimits::default() };
    let Opened { journal, .. } = Journal::open_signed(directory.path(), &limits, key()).unwrap();
    let payload = |n: u64| json!({ "n": n, "identity": format!("s{}", n % 50), "bits": 31.6 + n as f64 });
    let mut last = Seq(0);
    for n in 1..=count {
        last = journal.append(Kind::Decision, Timestamp(n as i64), Timestamp(n as i64), &payload(n)).unwrap();
    }
    journal.wait_durable(last).unwrap();
    directory
}

#[test]
fn every_record_is_under_a_signature_within_so_many_records_or_a_minute_or_at_the_end() {
    let directory = sealed(600, 64 << 20);
    let verified = verify_signed(directory.path(), &key().public()).unwrap();
    assert_eq!((verified.seals, verified.unsigned), (3, 0), "two in 600 records, and one at the end");
    assert_eq!(verified.signers, [key().public()]);
    let opened = signed(directory.path());
    append(&opened.journal, 1);
    let minute = Timestamp(2) + Span::MINUTE;
    opened.journal.seal_if_due(Timestamp(3));
    assert_eq!(opened.journal.status().appended, Seq(604), "not yet");
    opened.journal.seal_if_due(minute);
    opened.journal.seal_if_due(minute + Span::HOUR);
    opened.journal.wait_durable(Seq(605)).unwrap();
    assert_eq!(opened.journal.status().appended, Seq(605), "once");
    assert_eq!(verify(directory.path()).unwrap().seals, 4);
}

#[test]
fn one_flipped_bit_in_100_000_records_is_found() {
    let directory = sealed(100_000, 4 << 20);
    let public = key().public();
    assert_eq!(verify_signed(directory.path(), &public).unwrap().seals, 391);
    let paths = files(directory.path());
    for n in 0..8_usize {
        let path = &paths[n * 7 % paths.len()];
        let mut bytes = fs::read(path).unwrap();
        let bit = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, &bytes).unwrap();
        assert!(verify_signed(directory.path(), &public).is_err(), "bit {bit} of {}", path.display());
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, &bytes).unwrap();
    }
    verify_signed(directory.path(), &public).unwrap();
}

/// The chain of these payloads made anew, as whoever can write the files can, with seals of `by`.
fn forged(directory: &Path, by: Option<SigningKey>, count: u64) {
    files(directory).into_iter().for_each(|path| fs::remove_file(path).unwrap());
    let limits = JournalLimits::default();
    let kept = fs::read(directory.join(LATEST)).unwrap();
    fs::remove_file(directory.join(LATEST)).unwrap();
    let opened = match by {
        Some(by) => Journal::open_signed(directory, &limits, by).unwrap(),
        None => Journal::open(directory, &limits).unwrap(),
    };
    for n in 0..count {
        opened.journal.append(Kind::Decision, Timestamp(1), Timestamp(1), &n).unwrap();
    }
    drop(opened);
    fs::write(directory.join(LATEST), kept).unwrap();
}

#[test]
fn a_chain_made_anew_without_the_key_is_found_whoever_signed_it() {
    let public = key().public();
    for by in [None, Some(SigningKey::of_seed(&[9; 32]))] {
        let directory = sealed(300, 64 << 20);
        forged(directory.path(), by, 400);
        assert!(verify_signed(directory.path(), &public).is_err());
        // Also where the latest seal was taken away with the rest.
        fs::remove_file(directory.path().join(LATEST)).unwrap();
        let count = 2 * MOST_UNSIGNED;
        let other = sealed(1, 64 << 20);
        forged(other.path(), None, count);
        fs::remove_file(other.path().join(LATEST)).unwrap();
        let error = verify_signed(other.path(), &public).unwrap_err();
        assert!(matches!(error, JournalError::Unsigned { .. }), "{error}");
    }
    // A seal of the right key taken from elsewhere signs something else.
    let directory = sealed(10, 64 << 20);
    let path = &files(directory.path())[0];
    let text = fs::read_to_string(path).unwrap();
    let seal: Seal = read_from(directory.path(), Seq(11)).unwrap().next().unwrap().unwrap().payload().unwrap();
    let stolen = Seal { of: Head { seq: seal.of.seq, ..Head::default() }, ..seal };
    assert!(!stolen.is_sound());
    fs::write(path, text.replace("\"n\":3", "\"n\":4")).unwrap();
    assert!(verify_signed(directory.path(), &public).is_err());
}

#[test]
fn what_is_cut_off_the_end_is_missed_also_after_a_start() {
    for keep in [600, 513, 300, 1, 0] {
        let directory = sealed(600, 64 << 20);
        let path = &files(directory.path())[0];
        let text = fs::read_to_string(path).unwrap();
        let kept: String = text.lines().take(keep).map(|line| format!("{line}\n")).collect();
        fs::write(path, kept).unwrap();
        let error = verify(directory.path()).unwrap_err();
        assert!(matches!(error, JournalError::Cut { sealed: Seq(602), .. }), "{error}");
        // Enforcement does not wait for that to be settled, but nobody forgets it.
        let opened = signed(directory.path());
        assert_eq!(opened.cut.map(|seal| seal.of.seq), Some(Seq(602)), "{keep}");
        (0..700).for_each(|n| assert!(append(&opened.journal, n) > Seq(0)));
        drop(opened);
        let error = verify(directory.path()).unwrap_err().to_string();
        assert!(error.contains("SEAL.cut"), "{error}");
        fs::remove_file(directory.path().join(CUT)).unwrap();
        verify_signed(directory.path(), &key().public()).unwrap();
    }
}

#[test]
fn a_signed_tail_torn_at_any_byte_costs_only_the_record_that_was_being_written() {
    let whole = sealed(2, 64 << 20);
    let path = &files(whole.path())[0];
    let bytes = fs::read(path).unwrap();
    for length in 0..bytes.len() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(path.file_name().unwrap()), &bytes[..length]).unwrap();
        let survivors = bytes[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        let opened = signed(directory.path());
        assert_eq!((opened.head.seq, opened.cut), (Seq(survivors), None), "cut at {length}");
        append(&opened.journal, 9);
        drop(opened);
        let verified = verify_signed(directory.path(), &key().public()).unwrap();
        assert_eq!(verified.unsigned, 0, "cut at {length}");
    }
}

#[test]
fn the_key_is_made_once_for_this_user_alone_and_is_a_key_to_others_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal.key");
    let made = SigningKey::open(&file).unwrap().public();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SigningKey::open(&file).unwrap().public(), made);
    assert_eq!(made.to_string().parse::<PublicKey>().unwrap(), made);
    assert!(fs::read_to_string(&file).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let error = SigningKey::open(&file).unwrap_err().to_string();
    assert!(error.contains("mode 644") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "no key").unwrap();
    assert!(matches!(SigningKey::open(&file), Err(KeyError::NoKey(_))));
    for wrong in ["", "ed25519:", "ed25519:zz", &made.to_string().to_uppercase()] {
        assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
    }
}

/// A pack of what is about `s7`, and the text of it.
fn packed(directory: &Path) -> String {
    let mut out = Vec::new();
    let about = About::new("s7", vec!["s7".to_owned()], "2026-11-30T12:00:00Z".to_owned(), key().public());
    let mut pack = PackWriter::begin(&mut out, &about).unwrap();
    for record in read_from(directory, Seq(0)).unwrap() {
        let record = record.unwrap();
        pack.take(&record, record.json().contains("\"s7\"")).unwrap();
    }
    pack.finish(&key()).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_pack_shows_what_it_is_about_hides_the_rest_and_verifies_by_the_public_key_alone() {
    let directory = sealed(600, 64 << 20);
    let text = packed(directory.path());
    let pack = verify_pack(text.as_bytes(), &key().public()).unwrap();
    assert_eq!((pack.records.len(), pack.seals, pack.unsealed), (12, 3, 0));
    assert!(pack.records.iter().all(|record| record.json().contains("\"s7\"")));
    assert!(!text.contains("\"s8\""), "what is about others is not told");
    // The same with records that are not under a seal yet.
    let opened = signed(directory.path());
    opened.journal.append(Kind::Command, Timestamp(700), Timestamp(700), &json!({"identity": "s7"})).unwrap();
    opened.journal.append(Kind::Command, Timestamp(700), Timestamp(700), &json!({"identity": "s8"})).unwrap();
    opened.journal.wait_durable(Seq(605)).unwrap();
    let pack = verify_pack(packed(directory.path()).as_bytes(), &key().public()).unwrap();
    assert_eq!((pack.records.len(), pack.unsealed), (13, 1));
}

#[test]
fn a_pack_that_was_changed_anywhere_is_refused() {
    let directory = sealed(60, 64 << 20);
    let text = packed(directory.path());
    let public = key().public();
    verify_pack(text.as_bytes(), &public).unwrap();
    let mut bytes = text.clone().into_bytes();
    for at in 0..bytes.len() {
        bytes[at] ^= 1 << (at % 8);
        assert!(verify_pack(&bytes[..], &public).is_err(), "byte {at}");
        bytes[at] ^= 1 << (at % 8);
    }
    for length in 0..bytes.len() {
        assert!(verify_pack(&bytes[..length], &public).is_err(), "cut at {length}");
    }
    let lines: Vec<&str> = text.lines().collect();
    for missing in 0..lines.len() {
        let rest: String =
            lines.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, line)| format!("{line}\n")).collect();
        assert!(verify_pack(rest.as_bytes(), &public).is_err(), "without line {missing}");
    }
    let other = SigningKey::of_seed(&[9; 32]).public();
    assert!(verify_pack(text.as_bytes(), &other).unwrap_err().to_string().contains("signed by"));
}
