use std::{io::Write, time::Duration};

use qualm_model::{event::Positions, time::Timestamp};

use super::{following::ROWS_OF_A_FILE, *};
use crate::{
    counters::IngestCounters,
    parse::Format,
    source::{Incoming, Source},
};

const LINE: &str = r#"{"start_time":"2026-11-22T02:02:24Z","method":"GET","path":"/PATH","response_code":200,"downstream_remote_address":"10.0.0.7:1"}"#;

fn line(path: &str) -> String {
    LINE.replace("PATH", path)
        + "
"
}

fn parser() -> Parser {
    Parser::for_format(Format::IstioJson, None).expect("needs no mapping").with_max_record_bytes(1000)
}

fn operations(batch: &Batch) -> Vec<(i64, String)> {
    batch.events.events().map(|event| (event.position().offset, event.operation().to_owned())).collect()
}

type Events = Vec<(i64, String)>;
type Rejections = Vec<(i64, &'static str)>;

fn read_all(paths: Vec<PathBuf>) -> (Events, Rejections) {
    let mut reader = FileReader::new(paths, parser(), 3);
    let (mut events, mut rejected) = (Vec::new(), Vec::new());
    while let Some(batch) = reader.next_batch().expect("readable") {
        events.extend(operations(&batch));
        rejected.extend(batch.rejected.iter().map(|r| (r.position.offset, crate::counters::reason(r.why))));
    }
    (events, rejected)
}

#[test]
fn rows_are_counted_over_all_files_packed_or_plain() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let text = format!("{}\n\n{}{}", line("a").trim_end(), "x".repeat(2000) + "\n", line("b"));
    std::fs::write(path("plain"), &text).expect("written");
    let mut gz = flate2::write::GzEncoder::new(File::create(path("x.gz")).expect("made"), Default::default());
    gz.write_all(line("c").as_bytes()).and_then(|()| gz.try_finish()).expect("written");
    let mut packed = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("an encoder");
    packed.window_log(27).and_then(|()| packed.long_distance_matching(true)).expect("parameters");
    packed.write_all(line("d").trim_end().as_bytes()).expect("packed");
    std::fs::write(path("x.zst"), packed.finish().expect("packed")).expect("written");
    std::fs::write(path("empty"), "").expect("written");
    let (events, rejected) = read_all(["plain", "empty", "x.gz", "x.zst"].map(path).to_vec());
    let expected = [(0, "GET /a"), (2, "GET /b"), (3, "GET /c"), (4, "GET /d")];
    assert_eq!(events, expected.map(|(row, operation)| (row, operation.to_owned())));
    assert_eq!(rejected, [(1, "too_long")]);
}

#[test]
fn a_missing_or_damaged_file_is_one_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing");
    let error = FileReader::new(vec![missing], parser(), 0).next_batch().expect_err("missing").to_string();
    assert!(error.contains("missing: cannot be read") && error.contains("check the path"), "{error}");
    let damaged = folder.path().join("damaged.zst");
    std::fs::write(&damaged, [0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3]).expect("written");
    let error = FileReader::new(vec![damaged], parser(), 0).next_batch().expect_err("damaged").to_string();
    assert!(error.contains("damaged or cut off"), "{error}");
}

async fn next_operations(source: &mut FileSource) -> Vec<(i64, String)> {
    let next = tokio::time::timeout(Duration::from_secs(20), source.next()).await.expect("something happens");
    match next.expect("readable") {
        Incoming::Batch(batch) => operations(&batch),
        other => panic!("{other:?}"),
    }
}

async fn start(path: &Path, follow: Follow, at: i64) -> FileSource {
    let counters = IngestCounters::register(&prometheus::Registry::new()).expect("fresh").of("file");
    let clock = Clock::new(|| Timestamp::from_seconds(1_800_000_000));
    let mut source = FileSource::start(path.to_owned(), parser(), 3, clock, counters, follow).expect("started");
    match source.next().await.expect("assigned") {
        Incoming::Assigned(partitions, answer) => {
            assert_eq!(partitions, [(3, 0)]);
            answer.send(Positions::from([((3, 0), at)])).expect("listened to");
        }
        other => panic!("{other:?}"),
    }
    source
}

#[tokio::test]
async fn a_source_starts_at_the_position_it_is_told_and_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    std::fs::write(&path, line("a") + &line("b") + &line("c")).expect("written");
    let mut source = start(&path, Follow::No, 2).await;
    assert_eq!(next_operations(&mut source).await, [(2, "GET /c".to_owned())]);
    assert!(matches!(source.next().await, Ok(Incoming::End)));
}

#[tokio::test]
async fn what_remains_of_a_file_is_told_until_its_end_was_reached() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let lines = line("a") + &line("b");
    std::fs::write(&path, &lines).expect("written");
    for follow in [Follow::No, Follow::Yes] {
        let counters = IngestCounters::register(&prometheus::Registry::new()).expect("fresh").of("file");
        let clock = Clock::new(|| Timestamp::from_seconds(1_800_000_000));
        let mut source = FileSource::start(path.clone(), parser(), 3, clock, counters, follow).expect("started");
        let remaining = source.remaining();
        // It waits to be told where to begin.
        assert_eq!(remaining.bytes(), lines.len() as u64);
        let Ok(Incoming::Assigned(_, answer)) = source.next().await else { panic!("it asks first") };
        answer.send(Positions::new()).expect("listened to");
        assert_eq!(next_operations(&mut source).await.len(), 2);
        let ended = async {
            while remaining.bytes() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("its end is reached");
    }
}

#[tokio::test]
async fn a_followed_file_is_read_through_rotation_and_truncation() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    std::fs::write(&path, line("a") + LINE).expect("written");
    let mut source = start(&path, Follow::Yes, 0).await;
    assert_eq!(next_operations(&mut source).await, [(0, "GET /a".to_owned())]);
    // The half line is completed, then the file is moved away and another one takes its place.
    File::options().append(true).open(&path).and_then(|mut file| file.write_all(b"\n")).expect("written");
    assert_eq!(next_operations(&mut source).await, [(1, "GET /PATH".to_owned())]);
    std::fs::rename(&path, folder.path().join("log.1")).expect("moved");
    std::fs::write(&path, line("b") + &line("c")).expect("written");
    let second = ROWS_OF_A_FILE;
    let expected = [(second, "GET /b".to_owned()), (second + 1, "GET /c".to_owned())];
    assert_eq!(next_operations(&mut source).await, expected);
    File::options().write(true).truncate(true).open(&path).expect("truncated");
    File::options().append(true).open(&path).and_then(|mut f| f.write_all(line("d").as_bytes())).expect("written");
    assert_eq!(next_operations(&mut source).await, [(2 * ROWS_OF_A_FILE, "GET /d".to_owned())]);
}

#[tokio::test]
async fn nothing_is_stepped_over_in_a_followed_file_that_was_rotated_before_or_after_the_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    std::fs::write(&path, line("a") + &line("b") + &line("c")).expect("written");
    let mut source = start(&path, Follow::Yes, 0).await;
    assert_eq!(next_operations(&mut source).await.len(), 3);
    std::fs::rename(&path, folder.path().join("log.1")).expect("moved");
    std::fs::write(&path, line("d")).expect("written");
    let (last, _) = next_operations(&mut source).await.pop().expect("a record");
    drop(source);
    // The file of the last run has grown.
    std::fs::write(&path, line("d") + &line("e") + &line("f")).expect("written");
    let mut source = start(&path, Follow::Yes, last + 1).await;
    let read = next_operations(&mut source).await;
    let second = ROWS_OF_A_FILE;
    assert_eq!(read, [(second + 1, "GET /e".to_owned()), (second + 2, "GET /f".to_owned())]);
    drop(source);
    // Another one has taken its place meanwhile.
    std::fs::write(&path, line("g")).expect("written");
    let mut source = start(&path, Follow::Yes, second + 3).await;
    assert_eq!(next_operations(&mut source).await, [(2 * ROWS_OF_A_FILE, "GET /g".to_owned())]);
}
