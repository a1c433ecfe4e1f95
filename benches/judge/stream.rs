//! Events of a set in the order of their report times, parsed and sorted once and kept.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use qualm_ingest::{
    config::read_mapping,
    file::FileReader,
    parse::{Format, Parser},
};
use qualm_model::event::EventBatch;

use crate::{shared, sort::Sorter};

/// Bytes of events that may be held while they are sorted.
const ROOM: usize = 2 << 30;

/// The events of a generated mesh.
pub(crate) fn of_mesh(folder: &Path) -> impl Iterator<Item = EventBatch> + use<> {
    let kept = folder.join("sorted.arrow");
    if !kept.exists() {
        let is_log = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name == "events.jsonl" || name.starts_with("auth-")
        };
        let mut logs: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        logs.retain(is_log);
        logs.sort();
        assert!(!logs.is_empty(), "{}: no mesh; generate one with benches/judge/meshes", folder.display());
        sort(Parser::for_format(Format::default(), None).unwrap(), logs, &kept);
    }
    read(&kept)
}

/// The events of a public set with its own mapping.
pub(crate) fn of_public(file: &str, mapping: &str) -> impl Iterator<Item = EventBatch> + use<> {
    let place = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
        .join("judge");
    fs::create_dir_all(&place).unwrap();
    let kept = place.join(format!("{}.arrow", file.replace('/', "-")));
    if !kept.exists() {
        let mapping = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/mappings").join(mapping);
        let parser = Parser::for_format(Format::Mapped, Some(read_mapping(&mapping).unwrap())).unwrap();
        sort(parser, vec![shared(file)], &kept);
    }
    read(&kept)
}

/// The last column of each row behind the header.
pub(crate) fn labels(file: &str, header: usize) -> Vec<String> {
    let lines = BufReader::new(zstd::stream::read::Decoder::new(File::open(shared(file)).unwrap()).unwrap()).lines();
    lines.skip(header).map(|line| line.unwrap().rsplit(',').next().unwrap().to_owned()).collect()
}

fn sort(parser: Parser, inputs: Vec<PathBuf>, kept: &Path) {
    let mut reader = FileReader::new(inputs, parser, 0);
    let mut sorter = Sorter::new(kept.parent().unwrap(), ROOM);
    while let Some(batch) = reader.next_batch().unwrap() {
        sorter.push(&batch.events).unwrap();
    }
    let mut sorted = sorter.finish().unwrap();
    let unfinished = kept.with_extension("part");
    let mut writer: Option<StreamWriter<_>> = None;
    while let Some(batch) = sorted.next_batch().unwrap() {
        let batch = batch.as_record_batch();
        let create = || StreamWriter::try_new_buffered(File::create(&unfinished).unwrap(), &batch.schema()).unwrap();
        writer.get_or_insert_with(create).write(batch).unwrap();
    }
    writer.expect("a set has events").finish().unwrap();
    fs::rename(unfinished, kept).unwrap();
}

fn read(kept: &Path) -> impl Iterator<Item = EventBatch> + use<> {
    let reader = StreamReader::try_new_buffered(File::open(kept).unwrap(), None).unwrap();
    reader.map(|batch| EventBatch::try_from(batch.unwrap()).unwrap())
}
