//! What the lab is given.

use std::fs::File;

use arrow::{
    array::{Array, AsArray},
    datatypes::{TimestampNanosecondType, UInt64Type},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::{Log, made_up};

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
