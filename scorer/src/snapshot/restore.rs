//! A scorer as a snapshot has it.

use redb::ReadableTable;

use super::{
    Covered, Rest, Whole,
    before::{edge_of, estate_of, source_of},
    store::{AnyError, EDGES, FORGOTTEN, KNOWN, NAMES, RESTS, SOURCES, parse},
};
use crate::{
    config::Budget,
    mesh::Delta,
    scorer::Scorer,
    shard::{Attribute, Seen, Shard},
};

/// Fills a scorer that knows nothing with what a snapshot of this version has; what that covers.
///
/// Errors: it is not what this release, or one before, has written.
pub(super) fn restore(
    read: &redb::ReadTransaction,
    meta: &redb::ReadOnlyTable<&'static str, &'static [u8]>,
    version: u32,
    scorer: &mut Scorer,
) -> Result<Covered, AnyError> {
    let part = |key| meta.get(key)?.ok_or_else(|| AnyError::from(format!("`{key}` is missing")));
    let whole: Whole = parse(part("whole")?.value())?;
    let mut covered: Covered = parse(part("covered")?.value())?;
    if let Some(inputs) = meta.get("inputs")? {
        covered.inputs = parse(inputs.value())?;
    }
    if let Some(intake) = meta.get("intake")? {
        covered.intake = parse(intake.value())?;
    }
    (scorer.mesh, scorer.watermark, scorer.used, scorer.tally) = (whole.mesh, whole.watermark, whole.used, whole.tally);
    scorer.mesh.ask_all();
    scorer.standings = whole.standings.into_iter().collect();
    if let Some(estate) = meta.get("estate")? {
        scorer.estate = estate_of(estate.value(), version)?;
        scorer.estate.restore_waiting();
    }
    if let Some(stood_in) = meta.get("stood_in")? {
        scorer.estate.restore_stood_in(stood_in.value())?;
    }
    if let Some(orders) = meta.get("orders")? {
        scorer.orders = parse(orders.value())?;
    }
    if let Some(incidents) = meta.get("incidents")? {
        scorer.incidents = parse(incidents.value())?;
    }
    if let Some(waiting) = meta.get("waiting")? {
        scorer.waiting = parse(waiting.value())?;
    }
    if let Some(announced) = meta.get("announced")? {
        scorer.announced = parse(announced.value())?;
    }
    if let Some(accepted) = meta.get("accepted")? {
        scorer.accepted = parse(accepted.value())?;
    }
    if let Some(withheld) = meta.get("withheld")? {
        scorer.withheld = parse(withheld.value())?;
    }
    if let Some(tenancies) = meta.get("tenancies")? {
        scorer.tenancies = parse(tenancies.value())?;
    }
    if let Some(workloads) = meta.get("workloads")? {
        scorer.workloads = parse(workloads.value())?;
    }
    let acting = meta.get("acting")?.map(|acting| parse(acting.value())).transpose()?;
    scorer.mesh.restore_acting(acting);
    if let Some(stood) = meta.get("stood_still")? {
        scorer.mesh.pauses.restore(parse(stood.value())?);
    }
    scorer.mesh.pauses.set(&scorer.config.learning);
    if let Some(peers) = meta.get("peers")? {
        scorer.peers = parse(peers.value())?;
    }
    // Only where it is another one: reading the curves out of turn is itself a change.
    if let Some(budget) = meta.get("budget")?
        && parse::<Budget>(budget.value())? != scorer.config.budget
    {
        scorer.mesh.read_curves(&scorer.config.budget);
    }
    for entry in read.open_table(NAMES)?.iter()? {
        let (key, text) = entry?;
        let (index, id) = key.value();
        shard_mut(scorer, index)?.names.restore(id, text.value().into());
    }
    for entry in read.open_table(SOURCES)?.iter()? {
        let (key, value) = entry?;
        let (index, id) = key.value();
        shard_mut(scorer, index)?.sources.insert(id, Box::new(source_of(value.value(), version)?));
    }
    for entry in read.open_table(EDGES)?.iter()? {
        let (key, value) = entry?;
        let (index, from, to) = key.value();
        shard_mut(scorer, index)?.edges.insert((from, to), Box::new(edge_of(value.value(), version)?));
    }
    for entry in read.open_table(KNOWN)?.iter()? {
        let (key, value) = entry?;
        let (index, attribute) = key.value();
        let attribute: Attribute = parse(attribute)?;
        shard_mut(scorer, index)?.known.insert(attribute, parse::<Seen>(value.value())?);
    }
    for entry in read.open_table(FORGOTTEN)?.iter()? {
        let (key, value) = entry?;
        shard_mut(scorer, key.value())?.forgotten = parse(value.value())?;
    }
    for entry in read.open_table(RESTS)?.iter()? {
        let (key, value) = entry?;
        let mut rest: Rest<Delta> = match version {
            ..4 => parse(&[value.value(), &[0]].concat())?,
            _ => parse(value.value())?,
        };
        rest.delta.acting = std::mem::take(&mut rest.acting);
        let index = key.value();
        let (mesh, shards) = (&scorer.mesh, &mut scorer.shards);
        let shard = shards.get_mut(usize::from(index)).ok_or("a shard that does not exist")?;
        shard.restore(rest.delta, rest.touched, rest.unresolved, rest.next_name, mesh);
    }
    scorer.name_workloads();
    if !scorer.announced.is_empty() {
        scorer.tell_sources_what_is_announced();
    }
    Ok(covered)
}

fn shard_mut(scorer: &mut Scorer, index: u8) -> Result<&mut Shard, AnyError> {
    scorer.shards.get_mut(usize::from(index)).ok_or_else(|| AnyError::from("a shard that does not exist"))
}
