//! Log lines on their way into a Kafka topic, as a log shipper of the mesh would bring them.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
    types::RDKafkaErrorCode,
};

use super::{discovery::now, estate::LogLine, kafka::Kafka};

/// How often a shipper looks for new lines.
const PAUSE: Duration = Duration::from_millis(20);

/// Ships until it is dropped.
pub(crate) struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Follows a log file, and looks `every` so often for new lines.
    pub(crate) fn of_file(kafka: &Kafka, topic: &str, key: &str, log: &Path, every: Duration) -> Self {
        let sender = Sender::new(kafka, topic);
        let (key, log) = (key.to_owned(), log.to_owned());
        Self::start(move |stop| {
            let mut log = BufReader::new(File::open(&log).expect("the log is there once its Envoy is live"));
            let mut line = Vec::new();
            while !stop.load(Ordering::Acquire) {
                // A line may come in pieces: what has no end yet is read on.
                log.read_until(b'\n', &mut line).expect("the log can be read");
                if line.pop_if(|last| *last == b'\n').is_some() {
                    sender.send(&key, &line);
                    line.clear();
                } else {
                    thread::sleep(every);
                }
            }
        })
    }

    /// Sends each line at its time; those of the past before this returns.
    pub(crate) fn of_lines(kafka: &Kafka, topic: &str, lines: impl IntoIterator<Item = LogLine>) -> Self {
        let sender = Sender::new(kafka, topic);
        let mut future = Vec::new();
        for line in lines {
            if line.report.0 > now().0 / 1_000_000 {
                future.push(line);
            } else {
                sender.send(&line.key, &line.text);
            }
        }
        sender.flush();
        Self::start(move |stop| each_at_its_time(future, stop, |line| sender.send(&line.key, &line.text)))
    }

    /// Writes the lines of the past into `past`, and from now on each at its time into `rest`, as the sidecars of a
    /// mesh do that write to one file.
    pub(crate) fn into_files(past: &Path, rest: &Path, lines: impl IntoIterator<Item = LogLine>) -> Self {
        let create = |path| File::create(path).expect("the test's folder can be written to");
        let (mut past, mut rest) = (BufWriter::new(create(past)), create(rest));
        let mut future = Vec::new();
        for mut line in lines {
            line.text.push(b'\n');
            if line.report.0 > now().0 / 1_000_000 {
                future.push(line);
            } else {
                past.write_all(&line.text).expect("the test's folder can be written to");
            }
        }
        past.flush().expect("the test's folder can be written to");
        Self::start(move |stop| {
            each_at_its_time(future, stop, |line| {
                rest.write_all(&line.text).expect("the test's folder can be written to");
            });
        })
    }

    fn start(ship: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        Self { stop, thread: Some(thread::spawn(move || ship(&flag))) }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A shipper that failed has said so; the test fails of what did not arrive.
            let _ = thread.join();
        }
    }
}

fn each_at_its_time(lines: Vec<LogLine>, stop: &AtomicBool, mut write: impl FnMut(&LogLine)) {
    for line in lines {
        while line.report.0 > now().0 / 1_000_000 {
            if stop.load(Ordering::Acquire) {
                return;
            }
            thread::sleep(PAUSE);
        }
        write(&line);
    }
}

struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Sender {
    fn new(kafka: &Kafka, topic: &str) -> Self {
        let mut config: ClientConfig = kafka.client();
        // A broker that restarts is waited for, and nothing is sent twice or out of order.
        config.set("enable.idempotence", "true").set("linger.ms", "5");
        Self { producer: config.create().expect("the settings are valid"), topic: topic.to_owned() }
    }

    /// Waits while librdkafka's queue is full.
    fn send(&self, key: &str, line: &[u8]) {
        let mut record = BaseRecord::to(&self.topic).key(key).payload(line);
        while let Err((error, unsent)) = self.producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            record = unsent;
            thread::sleep(PAUSE);
        }
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(120)).expect("the broker takes what is sent");
    }
}
