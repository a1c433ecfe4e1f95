//! Files and standard input, plain or packed, once or followed.
//!
//! A record's position is its row over all files in their order; blank lines, comments and headers are no records.
//! Of a followed file it is the row in the file that is in its place at the time, and above it, how many there were
//! before: so it is known after a restart how much of the present one is read.
//!
//! # Layout
//! - `remaining`: how much is still to be read

mod remaining;

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use qualm_model::{
    event::{Position, Positions},
    time::Clock,
};
use tokio::sync::{mpsc, oneshot};

use self::remaining::Counted;
pub use self::remaining::Remaining;
use crate::{
    counters::SourceCounters,
    gathering::Gathering,
    lines::{Line, Lines, is_packed, unpacked},
    parse::{Origin, Parser, mapped::InvalidHeader},
    source::{Batch, Incoming, Invalid, Source, SourceError},
};

/// Records a batch at most.
const BATCH_RECORDS: usize = 4096;
/// Batches read ahead of who asks.
const READ_AHEAD: usize = 2;
/// Positions that each file of a followed path has for its rows.
const ROWS_OF_A_FILE: i64 = 1 << 40;
/// How often a followed file is looked at again.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// Reads files one after the other, blocking; the plain form of this source, as `backtest` uses it.
#[derive(Debug)]
pub struct FileReader {
    paths: std::vec::IntoIter<PathBuf>,
    open: Option<Open>,
    rows: Rows,
    remaining: Remaining,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    lines: Lines,
}

/// What becomes of lines.
#[derive(Debug)]
struct Rows {
    parser: Parser,
    gathering: Gathering,
    source: u16,
    /// Row of the next record.
    next: i64,
    skip_until: i64,
    clock: Option<Clock>,
}

impl FileReader {
    /// A reader of `paths`, `-` being standard input. All records have the position's source index `source`.
    pub fn new(paths: Vec<PathBuf>, parser: Parser, source: u16) -> Self {
        let rows = Rows { parser, gathering: Gathering::default(), source, next: 0, skip_until: 0, clock: None };
        Self { paths: paths.into_iter(), open: None, rows, remaining: Remaining::default() }
    }

    /// Checks records against the time of their arrival.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.rows.clock = Some(clock);
        self
    }

    /// Steps over the records before `row`.
    pub fn start_at(&mut self, row: i64) {
        self.rows.skip_until = row;
    }

    /// Records read so far, over all files.
    pub fn rows(&self) -> i64 {
        self.rows.next
    }

    /// The next records, `None` when all files have ended. Does not wait for more while it holds some.
    ///
    /// Errors: a file that cannot be opened, read or unpacked; a header that lacks a mapped column.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            let Some(open) = &mut self.open else {
                match self.paths.next() {
                    Some(path) => {
                        let input = open_input(&path, &self.remaining).map_err(|error| unreadable(&path, &error))?;
                        self.begin(path, input);
                    }
                    None => return Ok(self.rows.some_batch()),
                }
                continue;
            };
            if self.rows.take_buffered(open)? {
                return Ok(self.rows.some_batch());
            }
            if !open.refill()? {
                self.finish_file()?;
            }
        }
    }

    fn begin(&mut self, path: PathBuf, input: Box<dyn Read + Send>) {
        self.rows.parser.begin_input();
        self.open = Some(Open { lines: Lines::new(input, self.rows.parser.max_record_bytes()), path });
    }

    /// The last line may lack its end.
    fn finish_file(&mut self) -> Result<(), SourceError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        self.rows.take(&open.path, open.lines.rest())
    }
}

impl Open {
    fn refill(&mut self) -> Result<bool, SourceError> {
        self.lines.refill().map_err(|error| unreadable(&self.path, &error))
    }
}

impl Rows {
    fn some_batch(&mut self) -> Option<Batch> {
        (self.gathering.records() > 0).then(|| self.gathering.finish(None))
    }

    /// Parses what is buffered. Whether there is a batch: it is full, or more would have to be waited for.
    fn take_buffered(&mut self, open: &mut Open) -> Result<bool, SourceError> {
        if let Some(clock) = &self.clock {
            self.parser.arrive(clock.now());
        }
        while self.gathering.records() < BATCH_RECORDS {
            match open.lines.next_buffered() {
                Line::Starved => return Ok(self.gathering.records() > 0),
                line => self.take(&open.path, line)?,
            }
        }
        Ok(true)
    }

    /// One line, if it is a record.
    fn take(&mut self, path: &Path, line: Line<'_>) -> Result<(), SourceError> {
        let line = match line {
            Line::End | Line::Starved => return Ok(()),
            Line::Whole(line) => Some(line),
            Line::TooLong => None,
        };
        if let Some(line) = line
            && !self.parser.is_record(line).map_err(|error| wrong_header(path, &error))?
        {
            return Ok(());
        }
        let position = Position { source: self.source, partition: 0, offset: self.next };
        self.next += 1;
        if position.offset < self.skip_until {
            return Ok(());
        }
        match line {
            Some(line) => {
                self.gathering.record(&mut self.parser, line, position, &Origin::default());
            }
            None => self.gathering.reject(position, Invalid::TooLong.into()),
        }
        Ok(())
    }
}

fn wrong_header(path: &Path, error: &InvalidHeader) -> SourceError {
    SourceError {
        origin: path.display().to_string(),
        problem: error.to_string(),
        remedy: "correct the mapping, or name the right file".to_owned(),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> SourceError {
    SourceError {
        origin: path.display().to_string(),
        problem: format!("cannot be read: {error}"),
        remedy: match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "make it readable for the user that runs qualm",
            _ => "it may be damaged or cut off; unpack it by hand to see",
        }
        .to_owned(),
    }
}

fn open_input(path: &Path, remaining: &Remaining) -> io::Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return unpacked(Box::new(io::stdin()));
    }
    unpacked(Box::new(Counted { input: File::open(path)?, remaining: remaining.clone() }))
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Lines as they are.
    Plain,
    /// gzip or Zstandard.
    Packed,
    /// No file at all.
    Directory,
}

/// Looks at what is at a path, and whether it can be read. A pipe is taken for plain: its first bytes are for whoever
/// reads it.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn look(path: &Path) -> io::Result<Look> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Ok(Look::Directory);
    }
    if !metadata.is_file() {
        return Ok(Look::Plain);
    }
    let mut first = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut first)?;
    Ok(if is_packed(&first) { Look::Packed } else { Look::Plain })
}

/// A file or standard input as a [`Source`]: read on a thread of its own.
#[derive(Debug)]
pub struct FileSource {
    incoming: mpsc::Receiver<Result<Incoming, SourceError>>,
    remaining: Remaining,
}

impl FileSource {
    /// Starts to read `path` once it was answered where to begin.
    pub fn start(
        path: PathBuf,
        parser: Parser,
        source: u16,
        clock: Clock,
        counters: SourceCounters,
        follow: Follow,
    ) -> Result<Self, SourceError> {
        let (sender, incoming) = mpsc::channel(READ_AHEAD);
        let mut reader = FileReader::new(vec![path.clone()], parser, source).with_clock(clock);
        if let Some(metadata) = std::fs::metadata(&path).ok().filter(Metadata::is_file) {
            reader.remaining = Remaining::of(metadata.len());
        }
        let remaining = reader.remaining.clone();
        let name = format!("file-{source}");
        let spawned = thread::Builder::new().name(name).spawn(move || {
            let outcome = match follow {
                Follow::No => read_once(&mut reader, &sender, &counters),
                Follow::Yes => read_on(&mut reader, &path, &sender, &counters),
            };
            reader.remaining.end();
            // A closed channel means that nobody listens any more.
            let _ = sender.blocking_send(outcome.map(|()| Incoming::End));
        });
        spawned.map_err(|error| SourceError {
            origin: "file source".to_owned(),
            problem: format!("no thread to read it: {error}"),
            remedy: "raise the limit on threads".to_owned(),
        })?;
        Ok(Self { incoming, remaining })
    }

    /// How much of it is still to be read before its end is reached for the first time.
    pub fn remaining(&self) -> Remaining {
        self.remaining.clone()
    }
}

/// What to do at the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It is the end.
    No,
    /// Wait for more; begin again when the file was truncated or another one is in its place.
    Yes,
}

impl Source for FileSource {
    async fn next(&mut self) -> Result<Incoming, SourceError> {
        self.incoming.recv().await.unwrap_or(Ok(Incoming::End))
    }

    async fn commit(&mut self, _positions: &Positions) -> Result<(), SourceError> {
        Ok(())
    }
}

type Sender = mpsc::Sender<Result<Incoming, SourceError>>;

/// Asks where to begin. `None`: nobody listens.
fn ask_start(source: u16, sender: &Sender) -> Option<i64> {
    let (answer, asked) = oneshot::channel();
    sender.blocking_send(Ok(Incoming::Assigned(vec![(source, 0)], answer))).ok()?;
    let positions = asked.blocking_recv().unwrap_or_default();
    Some(positions.get(&(source, 0)).copied().unwrap_or(0))
}

fn send(batch: Batch, sender: &Sender, counters: &SourceCounters) -> bool {
    counters.count(&batch);
    sender.blocking_send(Ok(Incoming::Batch(batch))).is_ok()
}

fn read_once(reader: &mut FileReader, sender: &Sender, counters: &SourceCounters) -> Result<(), SourceError> {
    let Some(row) = ask_start(reader.rows.source, sender) else { return Ok(()) };
    reader.start_at(row);
    while let Some(batch) = reader.next_batch()? {
        if !send(batch, sender, counters) {
            break;
        }
    }
    Ok(())
}

/// Follows one plain file through rotation. After a restart, a file that has fewer records than were read is another
/// one, and is read from its beginning.
fn read_on(
    reader: &mut FileReader,
    path: &Path,
    sender: &Sender,
    counters: &SourceCounters,
) -> Result<(), SourceError> {
    let Some(start) = ask_start(reader.rows.source, sender) else { return Ok(()) };
    reader.start_at(start);
    reader.rows.next = start - start % ROWS_OF_A_FILE;
    let mut followed = None;
    loop {
        if followed.is_none() {
            match File::open(path) {
                Ok(file) => {
                    followed = Some(Inode::of(&file.metadata().map_err(|error| unreadable(path, &error))?));
                    let remaining = reader.remaining.clone();
                    reader.begin(path.to_owned(), Box::new(Counted { input: file, remaining }));
                }
                // Between the two steps of a rotation there is no file.
                Err(error) if error.kind() == io::ErrorKind::NotFound && (reader.rows.next > 0 || start > 0) => {}
                Err(error) => return Err(unreadable(path, &error)),
            }
        }
        let mut replaced = is_replaced(path, followed, reader);
        // What was written before the file was moved away is still read.
        if !read_to_present_end(reader, sender, counters)? {
            return Ok(());
        }
        reader.remaining.end();
        // It was replaced while nobody was looking.
        replaced |= followed.is_some() && reader.rows.next < reader.rows.skip_until;
        if replaced {
            reader.finish_file()?;
            followed = None;
            let files = reader.rows.next / ROWS_OF_A_FILE + 1;
            (reader.rows.next, reader.rows.skip_until) = (files * ROWS_OF_A_FILE, 0);
        } else if !pause(sender) {
            return Ok(());
        }
    }
}

/// `false`: nobody listens.
fn read_to_present_end(
    reader: &mut FileReader,
    sender: &Sender,
    counters: &SourceCounters,
) -> Result<bool, SourceError> {
    loop {
        let Some(open) = &mut reader.open else { return Ok(true) };
        if reader.rows.take_buffered(open)? {
            if !send(reader.rows.gathering.finish(None), sender, counters) {
                return Ok(false);
            }
        } else if !open.refill()? {
            return Ok(true);
        }
    }
}

/// Waits a little. `false`: nobody listens.
fn pause(sender: &Sender) -> bool {
    thread::sleep(FOLLOW_EVERY);
    !sender.is_closed()
}

/// Which file a path led to when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    number: u64,
    device: u64,
}

impl Inode {
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { number: metadata.ino(), device: metadata.dev() }
    }
}

/// Whether the path leads to another file now, or to one that is shorter than what was read of it.
fn is_replaced(path: &Path, followed: Option<Inode>, reader: &FileReader) -> bool {
    let (Ok(metadata), Some(followed), Some(open)) = (std::fs::metadata(path), followed, &reader.open) else {
        return false;
    };
    Inode::of(&metadata) != followed || metadata.len() < open.lines.bytes_read()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use qualm_model::time::Timestamp;

    use super::*;
    use crate::{counters::IngestCounters, parse::Format};

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
}
