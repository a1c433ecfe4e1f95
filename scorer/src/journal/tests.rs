use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/journal-v1.jsonl");
const GOLDEN_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/journal-v2.jsonl");

fn open(directory: &Path) -> Opened {
    Journal::open(directory, &JournalLimits::default()).expect("a journal that opens")
}

/// The key of all tests.
fn key() -> SigningKey {
    SigningKey::of_seed(&[7; 32])
}

fn signed(directory: &Path) -> Opened {
    Journal::open_signed(directory, &JournalLimits::default(), key()).expect("a journal that opens")
}

fn append(journal: &Journal, n: u64) -> Seq {
    let seq = journal
        .append(Kind::Decision, Timestamp(n as i64), Timestamp(n as i64 + 1), &json!({"n": n, "bits": 31.6 + n as f64}))
        .unwrap();
    journal.wait_durable(seq).unwrap();
    seq
}

/// A journal of `count` records, one file of at most `segment_bytes` each.
fn written(count: u64, segment_bytes: u64) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let limits = JournalLimits { segment_bytes, ..JournalLimits::default() };
    let Opened { journal, .. } = Journal::open(directory.path(), &limits).unwrap();
    (1..=count).for_each(|n| assert_eq!(append(&journal, n), Seq(n)));
    directory
}

fn files(directory: &Path) -> Vec<PathBuf> {
    Segment::list(directory).unwrap().into_iter().map(|segment| segment.path).collect()
}

fn numbers(directory: &Path, from: u64) -> Vec<u64> {
    read_from(directory, Seq(from)).unwrap().map(|record| record.unwrap().seq.0).collect()
}

#[test]
fn what_was_appended_is_read_back_in_order_from_any_number() {
    let directory = written(20, 1500);
    assert!(files(directory.path()).len() > 3, "several files");
    assert_eq!(numbers(directory.path(), 0), (1..=20).collect::<Vec<_>>());
    for from in 1..=21 {
        assert_eq!(numbers(directory.path(), from), (from..=20).collect::<Vec<_>>());
    }
    let record = read_from(directory.path(), Seq(7)).unwrap().next().unwrap().unwrap();
    assert_eq!(record.payload::<Value>().unwrap(), json!({"n": 7, "bits": 38.6}));
    assert_eq!((record.kind, record.event, record.wall), (Kind::Decision, Timestamp(7), Timestamp(8)));
}

#[test]
fn a_journal_that_is_opened_again_goes_on_with_its_chain() {
    let directory = written(3, 64 << 20);
    let before = verify(directory.path()).unwrap();
    let opened = open(directory.path());
    assert_eq!(opened.head, before.head);
    assert_eq!(append(&opened.journal, 4), Seq(4));
    drop(opened);
    let after = verify(directory.path()).unwrap();
    assert_eq!((after.records, after.first, after.segments), (4, Some(Seq(1)), 1));
}

#[test]
fn numbers_come_back_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { journal, .. } = open(directory.path());
    proptest!(|(bits in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL)| {
        let seq = journal.append(Kind::Decision, Timestamp(0), Timestamp(0), &bits).unwrap();
        journal.wait_durable(seq).unwrap();
        let record = read_from(directory.path(), seq).unwrap().next().unwrap().unwrap();
        prop_assert_eq!(record.payload::<f64>().unwrap().to_bits(), bits.to_bits());
    });
}

#[test]
fn a_tail_torn_at_any_byte_costs_only_the_record_that_was_being_written() {
    let whole = written(3, 64 << 20);
    let path = &files(whole.path())[0];
    let bytes = fs::read(path).unwrap();
    let ends: Vec<_> = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    for length in 0..bytes.len() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(path.file_name().unwrap()), &bytes[..length]).unwrap();
        let survivors = ends.iter().filter(|end| **end <= length).count() as u64;
        let opened = open(directory.path());
        assert_eq!(opened.head.seq, Seq(survivors), "cut at {length}");
        let on_a_boundary = length == 0 || ends.contains(&length);
        assert_eq!(opened.torn.is_none(), on_a_boundary, "cut at {length}");
        assert_eq!(append(&opened.journal, 9), Seq(survivors + 1));
        drop(opened);
        assert_eq!(verify(directory.path()).unwrap().records, survivors + 1);
    }
}

#[test]
fn a_torn_first_line_of_a_new_file_leads_back_to_the_file_before() {
    let directory = written(6, 700);
    let paths = files(directory.path());
    let last = paths.last().unwrap();
    let lost = fs::read_to_string(last).unwrap().lines().count() as u64;
    fs::write(last, "{\"v\":2,\"seq\":").unwrap();
    let opened = open(directory.path());
    assert_eq!(opened.head.seq, Seq(6 - lost));
    assert_eq!(opened.torn.as_ref().map(|torn| &torn.path), Some(last));
    append(&opened.journal, 9);
    drop(opened);
    assert_eq!(verify(directory.path()).unwrap().records, 7 - lost);
}

#[test]
fn every_flipped_bit_is_found() {
    let directory = written(4, 800);
    for path in files(directory.path()) {
        let sound = fs::read(&path).unwrap();
        for bit in 0..sound.len() * 8 {
            let mut changed = sound.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &changed).unwrap();
            assert!(verify(directory.path()).is_err(), "bit {bit} of {}", path.display());
        }
        fs::write(&path, &sound).unwrap();
    }
    assert_eq!(verify(directory.path()).unwrap().records, 4);
}

#[test]
fn a_changed_record_is_named_by_file_and_line() {
    let directory = written(5, 64 << 20);
    let path = &files(directory.path())[0];
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replace("\"n\":3", "\"n\":4")).unwrap();
    let error = verify(directory.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("{} line 3: its hash does not fit", path.display())), "{error}");
    let error = Journal::open(directory.path(), &JournalLimits::default()).unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("move the whole directory aside"), "{error}");
}

#[test]
fn exchanged_missing_and_repeated_records_are_found() {
    let sound = written(5, 64 << 20);
    let path = &files(sound.path())[0];
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let directory = tempfile::tempdir().unwrap();
    for (order, line) in [
        (&[0, 2, 1, 3, 4][..], 2),
        (&[0, 1, 3, 4], 3),
        (&[0, 1, 1, 2, 3, 4], 3),
        (&[1, 2, 3, 4], 1),
        (&[4, 0, 1, 2, 3], 1),
    ] {
        let text: String = order.iter().map(|at| format!("{}\n", lines[*at])).collect();
        fs::write(directory.path().join(path.file_name().unwrap()), text).unwrap();
        let error = verify(directory.path()).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { line: at, .. } if at == line), "{order:?}: {error}");
    }
}

#[test]
fn a_file_missing_in_the_middle_is_found_and_older_ones_may_be_taken_away() {
    let directory = written(12, 800);
    let paths = files(directory.path());
    assert!(paths.len() > 3, "several files");
    fs::rename(&paths[1], directory.path().join("aside")).unwrap();
    assert!(matches!(verify(directory.path()), Err(JournalError::Damaged { flaw: Flaw::Link, line: 1, .. })));
    fs::remove_file(&paths[0]).unwrap();
    let verified = verify(directory.path()).unwrap();
    assert!(verified.first > Some(Seq(1)) && verified.head.seq == Seq(12));
}

#[test]
fn the_oldest_files_go_when_they_are_released_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let limits = JournalLimits { segment_bytes: 800, retain_bytes: 8_000, ..JournalLimits::default() };
    let Opened { journal, .. } = Journal::open(directory.path(), &limits).unwrap();
    let excess = (1..100).find_map(|n| {
        append(&journal, n);
        journal.status().excess
    });
    let excess = excess.expect("there are too many bytes");
    assert_eq!(verify(directory.path()).unwrap().first, Some(Seq(1)), "nothing goes before it is released");
    let listed = read_from(directory.path(), Seq(0)).unwrap();
    journal.release(excess);
    let last = append(&journal, 100);
    let verified = verify(directory.path()).unwrap();
    assert_eq!((verified.first, verified.head.seq), (Some(excess), last));
    let bytes: u64 = files(directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= limits.retain_bytes, "{bytes}");
    // Somebody who had listed the files before reads those that are left.
    let read: Vec<Seq> = listed.map(|record| record.unwrap().seq).collect();
    assert_eq!(read.first(), Some(&excess));
    drop(journal);
    let opened = Journal::open(directory.path(), &limits).unwrap();
    assert_eq!(append(&opened.journal, 101), last.next());
    verify(directory.path()).unwrap();
}

#[test]
fn a_newer_journal_is_refused_with_the_way_on() {
    let directory = written(2, 64 << 20);
    let path = &files(directory.path())[0];
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replace("{\"v\":2,\"seq\":2", "{\"v\":3,\"seq\":2")).unwrap();
    let error = Journal::open(directory.path(), &JournalLimits::default()).unwrap_err();
    assert!(matches!(error, JournalError::Newer { version: 3, line: 2, .. }), "{error}");
    assert!(error.to_string().contains("start the release that wrote it"), "{error}");
}

/// What the golden files hold.
fn append_golden(journal: &Journal) {
    let append = |kind, payload: Value| {
        let seq =
            journal.append(kind, Timestamp(1_795_311_927_000_000_000), Timestamp(1_795_311_928_123_456_789), &payload);
        journal.wait_durable(seq.unwrap()).unwrap();
    };
    append(Kind::Decision, json!({"identity": "spiffe://mesh.test/ns/shop/sa/cart", "level": "watched", "p": 1.25e-9}));
    append(Kind::Command, json!({"reload": {"config": "9f8e"}}));
    append(Kind::Alert, json!({"delivered": {"activity": "create", "uid": "01JD7Q9V"}}));
    append(Kind::Gap, json!({"error": "No space left on device (os error 28)", "first": 4, "last": 4}));
}

#[test]
fn version_1_stays_readable_and_its_chain_goes_on_in_version_2() {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(GOLDEN, directory.path().join("00000000000000000001.jsonl")).expect("tests/golden/journal-v1.jsonl");
    let verified = verify(directory.path()).unwrap();
    assert_eq!((verified.records, verified.unwritten, verified.seals), (4, 1, 0));
    let opened = signed(directory.path());
    append(&opened.journal, 5);
    drop(opened);
    let verified = verify_signed(directory.path(), &key().public()).unwrap();
    assert_eq!((verified.records, verified.seals, verified.unsigned), (6, 1, 0));
    let versions: Vec<u32> = read_from(directory.path(), Seq(0)).unwrap().map(|of| of.unwrap().version).collect();
    assert_eq!(versions, [1, 1, 1, 1, 2, 2]);
    // What was written before the key came is under its first signature.
    let path = &files(directory.path())[0];
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replacen("watched", "trusted", 1)).unwrap();
    assert!(verify_signed(directory.path(), &key().public()).is_err());
}

#[test]
fn version_2_is_still_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let opened = signed(directory.path());
    append_golden(&opened.journal);
    drop(opened);
    let golden = fs::read_to_string(GOLDEN_2).expect("tests/golden/journal-v2.jsonl");
    assert_eq!(fs::read_to_string(&files(directory.path())[0]).unwrap(), golden);
}

#[test]
fn a_second_process_is_refused_while_the_first_has_the_journal_open() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let error = Journal::open(directory.path(), &JournalLimits::default()).unwrap_err();
    assert!(matches!(error, JournalError::InUse(_)), "{error}");
    drop(first);
    open(directory.path());
}

#[test]
fn appending_waits_for_room_and_drops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let limits = JournalLimits { queue_bytes: 1, ..JournalLimits::default() };
    let Opened { journal, .. } = Journal::open(directory.path(), &limits).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            let journal = journal.clone();
            scope.spawn(move || {
                for n in 0..100 {
                    journal.append(Kind::Command, Timestamp(n), Timestamp(n), &n).unwrap();
                }
            });
        }
    });
    journal.wait_durable(Seq(400)).unwrap();
    let status = journal.status();
    assert_eq!((status.appended, status.durable.seq, status.unwritten), (Seq(400), Seq(400), 0));
    assert!(status.waits > 0, "{status:?}");
    assert_eq!(verify(directory.path()).unwrap().records, 400);
}

#[test]
fn a_payload_that_is_too_long_or_not_on_one_line_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { journal, .. } = open(directory.path());
    let long = "x".repeat(LONGEST_PAYLOAD);
    let refused = |payload: &dyn erased::Json| payload.append(&journal).unwrap_err();
    assert!(matches!(refused(&long), AppendError::TooLong(_)));
    let raw = serde_json::value::RawValue::from_string("[1,\n2]".to_owned()).unwrap();
    assert!(matches!(refused(&raw), AppendError::NotOneLine));
    assert_eq!(journal.status().appended, Seq(0));
}

/// Payloads of different types in one test.
mod erased {
    use super::*;

    pub(super) trait Json {
        fn append(&self, journal: &Journal) -> Result<Seq, AppendError>;
    }

    impl<T: Serialize> Json for T {
        fn append(&self, journal: &Journal) -> Result<Seq, AppendError> {
            journal.append(Kind::Command, Timestamp(0), Timestamp(0), self)
        }
    }
}

#[tokio::test]
async fn a_synced_append_returns_when_the_record_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let Opened { journal, .. } = open(directory.path());
    for n in 1..=50 {
        let seq = journal.append_synced(Kind::Decision, Timestamp(n), Timestamp(n), &n).await.unwrap();
        assert_eq!(numbers(directory.path(), seq.0), [seq.0]);
    }
}

#[test]
fn while_the_disk_refuses_records_are_counted_and_the_chain_goes_on_after() {
    let place = tempfile::tempdir().unwrap();
    let (directory, away) = (place.path().join("journal"), place.path().join("away"));
    let limits = JournalLimits { segment_bytes: 1, ..JournalLimits::default() };
    let Opened { journal, .. } = Journal::open(&directory, &limits).unwrap();
    append(&journal, 1);
    fs::rename(&directory, &away).unwrap();
    for n in 2..=4 {
        let seq = journal.append(Kind::Decision, Timestamp(n), Timestamp(n), &n).unwrap();
        let error = journal.wait_durable(seq).unwrap_err();
        assert!(matches!(&error, AppendError::Unwritten { seq, .. } if seq.0 == n as u64), "{error}");
    }
    let status = journal.status();
    assert_eq!((status.unwritten, status.durable.seq), (3, Seq(1)));
    assert!(status.failing.is_some());
    fs::rename(&away, &directory).unwrap();
    assert_eq!(append(&journal, 5), Seq(5));
    assert_eq!(journal.status().failing, None);
    assert!(journal.wait_durable(Seq(3)).is_err(), "what was refused stays refused");
    let records: Vec<_> = read_from(&directory, Seq(1)).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.iter().map(|record| record.seq.0).collect::<Vec<_>>(), [1, 4, 5]);
    let gap: Gap = records[1].payload().unwrap();
    assert_eq!((records[1].kind, gap.first, gap.last), (Kind::Gap, Seq(2), Seq(4)));
    assert_eq!(verify(&directory).unwrap().unwritten, 3);
}

/// Runs one of the tests below in a process of its own, in `directory`, started by this shell line.
fn child(directory: &Path, shell: &str, test: &str) -> Command {
    let mut command = Command::new("sh");
    command.current_dir(directory).stdout(Stdio::piped()).stderr(Stdio::null());
    command.args(["-c", shell, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", &format!("journal::tests::{test}")]);
    command
}

#[test]
fn a_disk_that_takes_only_part_of_a_record_leaves_a_sound_chain() {
    let directory = tempfile::tempdir().unwrap();
    // A limit on the length of files, its signal ignored, makes writes fail half-way as a full disk does.
    let output = child(directory.path(), "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "child_fills_the_disk").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let verified = verify(directory.path()).unwrap();
    assert_eq!((verified.records, verified.unwritten, verified.torn), (3, 1, None));
}

#[test]
#[ignore = "the child of a_disk_that_takes_only_part_of_a_record_leaves_a_sound_chain"]
fn child_fills_the_disk() {
    let Opened { journal, .. } = open(Path::new("."));
    append(&journal, 1);
    let big = journal.append(Kind::Command, Timestamp(0), Timestamp(0), &"x".repeat(100_000)).unwrap();
    assert!(matches!(journal.wait_durable(big), Err(AppendError::Unwritten { .. })));
    append(&journal, 2);
}

#[test]
fn kill_9_while_writing_loses_nothing_that_was_durable() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut child = child(directory.path(), "exec \"$@\"", "child_appends_for_ever").spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let durable: Vec<u64> =
            stdout.lines().filter_map(|line| line.unwrap().strip_prefix("durable ")?.parse().ok()).take(20).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        let opened = signed(directory.path());
        assert!(opened.head.seq.0 >= *durable.last().unwrap());
        assert_eq!(opened.cut, None, "what was signed is there");
        append(&opened.journal, 1);
        drop(opened);
        let verified = verify_signed(directory.path(), &key().public()).unwrap();
        assert_eq!((verified.records, verified.torn, verified.unsigned), (verified.head.seq.0, None, 0));
    }
}

#[test]
#[ignore = "the child of kill_9_while_writing_loses_nothing_that_was_durable"]
#[expect(clippy::print_stdout, reason = "it tells its parent how far it has come")]
fn child_appends_for_ever() {
    let limits = JournalLimits { segment_bytes: 100_000, ..JournalLimits::default() };
    let Opened { journal, .. } = Journal::open_signed(Path::new("."), &limits, key()).unwrap();
    loop {
        let mut last = Seq(0);
        for n in 0..50 {
            last = journal.append(Kind::Command, Timestamp(n), Timestamp(n), &"x".repeat(500)).unwrap();
        }
        journal.wait_durable(last).unwrap();
        println!("durable {last}");
    }
}
