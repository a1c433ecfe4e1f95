//! Running `qualm backtest`, and reading what it wrote.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tempfile::TempDir;

/// The files of one run.
pub(crate) struct Backtest {
    pub(crate) out: PathBuf,
    pub(crate) stdout: String,
    _folder: TempDir,
}

/// A row of `scores.parquet`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Nanoseconds since 1970.
    pub(crate) time: Option<i64>,
    pub(crate) source: Option<Arc<str>>,
    pub(crate) destination: Option<Arc<str>>,
    pub(crate) detector: Arc<str>,
    pub(crate) score_bits: Option<f64>,
    pub(crate) identity_bits: Option<f64>,
}

/// Texts of which there are millions, each held once.
#[derive(Default)]
pub(crate) struct Texts(HashSet<Arc<str>>);

impl Texts {
    pub(crate) fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.0.insert(Arc::clone(&new));
        new
    }
}

/// Runs the product's own binary.
pub(crate) fn qualm(arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qualm")).arg("backtest").args(arguments).output().expect("qualm can be started")
}

/// Runs a backtest with scores that must succeed.
pub(crate) fn backtest(inputs: &[&Path], options: &[&str]) -> Backtest {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let mut arguments: Vec<&OsStr> = inputs.iter().map(|path| path.as_os_str()).collect();
    arguments.extend(options.iter().map(OsStr::new));
    arguments.extend([OsStr::new("--scores"), OsStr::new("--out"), out.as_os_str()]);
    let output = qualm(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let left: Vec<String> = fs::read_dir(&out)
        .expect("the directory was made")
        .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
        .filter(|name| {
            !["scores.parquet", "events.parquet", "trust.jsonl", "alerts.jsonl", "report.json", "report.html"]
                .contains(&name.as_str())
        })
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    Backtest { out, stdout: String::from_utf8(output.stdout).expect("text"), _folder: folder }
}

impl Backtest {
    /// A file as it is.
    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.out.join(file)).expect("written")
    }

    /// The lines of a file of JSON lines.
    pub(crate) fn lines(&self, file: &str) -> Vec<Value> {
        self.text(file).lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// `report.json`.
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.text("report.json")).expect("JSON")
    }

    /// Steps up the ladder, from `trust.jsonl`.
    pub(crate) fn entries(&self) -> Vec<Value> {
        let rank = |value: &Value| {
            let levels = ["trusted", "watched", "throttled", "restricted", "quarantined"];
            levels.iter().position(|level| value == level).expect("a level")
        };
        self.lines("trust.jsonl").into_iter().filter(|line| rank(&line["level"]) > rank(&line["previous"])).collect()
    }

    /// `scores.parquet`, whose columns and row numbers must be as promised.
    pub(crate) fn scores(&self) -> Vec<Row> {
        let file = File::open(self.out.join("scores.parquet")).expect("written");
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("parquet");
        let columns: Vec<(String, DataType)> =
            builder.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
        let expected = [
            ("row", DataType::Int64),
            ("time", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
            ("source", DataType::Utf8),
            ("destination", DataType::Utf8),
            ("detector", DataType::Utf8),
            ("score_bits", DataType::Float64),
            ("identity_bits", DataType::Float64),
        ];
        assert_eq!(columns, expected.map(|(name, of)| (name.to_owned(), of)));
        let (mut rows, mut shared) = (Vec::new(), Texts::default());
        for batch in builder.build().expect("readable") {
            let batch = batch.expect("readable");
            let mut text = |column: usize, row: usize| {
                let texts = batch.column(column).as_string::<i32>();
                texts.is_valid(row).then(|| shared.shared(texts.value(row)))
            };
            let number = |column: usize, row: usize| {
                let numbers = batch.column(column).as_primitive::<Float64Type>();
                numbers.is_valid(row).then(|| numbers.value(row))
            };
            let times = batch.column(1).as_primitive::<TimestampNanosecondType>();
            for row in 0..batch.num_rows() {
                assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(row), rows.len() as i64);
                rows.push(Row {
                    time: times.is_valid(row).then(|| times.value(row)),
                    source: text(2, row),
                    destination: text(3, row),
                    detector: text(4, row).expect("every row has a word"),
                    score_bits: number(5, row),
                    identity_bits: number(6, row),
                });
            }
        }
        for row in &rows {
            assert_eq!(row.score_bits.is_some(), row.identity_bits.is_some());
            assert!(row.score_bits.is_none_or(f64::is_finite));
        }
        rows
    }
}
