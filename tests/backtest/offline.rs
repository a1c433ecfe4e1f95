//! What the lab is given, and what it gives back.

use std::{ffi::OsStr, fs, fs::File};

use arrow::{
    array::{Array, AsArray},
    datatypes::{TimestampNanosecondType, UInt64Type},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use qualm_model::peers::{FEATURES, Group, Peers};
use qualm_scorer::peers::Model;

use crate::{Log, made_up, output::qualm};

#[test]
fn what_was_read_is_written_for_the_lab_in_the_order_of_time() {
    let log = Log::new();
    let mut lines = made_up::lines();
    lines.truncate(2_000);
    lines[0] = "not a time,svc-1,svc-2,GET /,1".to_owned();
    lines.reverse();
    let backtest = log.backtest(&[&log.file("log.csv", &lines)], &["--events"]);
    let file = File::open(backtest.out.join("events.parquet")).unwrap();
    let (mut rows, mut last, mut bytes) = (0, i64::MIN, 0);
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        rows += batch.num_rows();
        for time in batch["time"].as_primitive::<TimestampNanosecondType>().values() {
            assert!(*time >= last);
            last = *time;
        }
        bytes += batch["bytes_out"].as_primitive::<UInt64Type>().iter().flatten().sum::<u64>();
        assert_eq!((batch["source"].null_count(), batch["duration_s"].null_count()), (0, batch.num_rows()));
    }
    let told: u64 = lines.iter().filter(|line| !line.starts_with("not")).map(|line| size(line)).sum();
    assert_eq!((rows, bytes), (1_999, told));
}

fn size(line: &str) -> u64 {
    line.rsplit(',').next().and_then(|bytes| bytes.parse().ok()).unwrap()
}

#[test]
fn a_model_file_is_judged_by_and_one_that_cannot_be_used_is_refused_before_anything_is_read() {
    let log = Log::new();
    let input = log.file("log.csv", &made_up::lines());
    let path = log.folder.path().join("peers.model");
    let everybody = Group { centre: [0.0; FEATURES], members: 20, windows: 5_000.0, axes: Vec::new(), rest: 0.2 };
    let peers = Peers { mean: [1.0; FEATURES], spread: [1.0; FEATURES], groups: vec![everybody] };
    Model::new(peers, (20, 5_000), vec![(0, 4_900), (30, 100)]).write(&path).unwrap();
    let given = ["--model", path.to_str().unwrap()];
    let with = log.backtest(&[&input], &given);
    assert!(!with.entries().is_empty(), "{}", with.stdout);

    fs::write(&path, fs::read_to_string(&path).unwrap().replace("0.2", "0.3")).unwrap();
    let mapping = ["--mapping", log.mapping.to_str().unwrap(), "--out", "nowhere"];
    let arguments: Vec<&OsStr> =
        [input.as_os_str()].into_iter().chain(given.iter().chain(&mapping).map(OsStr::new)).collect();
    let refused = qualm(&arguments);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{error}");
    assert!(error.contains("peers.model") && error.contains("checksum") && error.contains("lab fit"), "{error}");
}
