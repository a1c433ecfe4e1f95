use super::*;
use crate::event::{EventBuilder, EventDraft, Party};

#[test]
fn what_went_into_the_builder_comes_out_of_the_batch() {
    let mut builder = EventBuilder::new();
    let cart = Party { principal: "spiffe://mesh.test/ns/shop/sa/cart", ip: "10.0.0.1", ..Party::default() };
    let draft = EventDraft { source: cart, operation: "GET /x", record_id: "r-1", ..EventDraft::default() };
    builder.push(&draft);
    builder.push(&EventDraft { status: Some(403), source: cart, ..EventDraft::default() });
    let batch = builder.finish();
    let (first, second) = (batch.event(0), batch.event(1));
    assert_eq!((first.source().service(), first.source().namespace()), ("cart", "shop"));
    assert_eq!((first.operation(), second.operation()), ("GET /x", ""));
    assert_eq!((first.record_id(), second.record_id()), ("r-1", ""));
    assert_eq!((first.status(), second.status()), (None, Some(403)));
    assert_eq!(batch.source.principal.distinct(), 1);
    assert!(builder.is_empty());
}

#[test]
fn a_builder_can_be_used_again_and_starts_with_empty_dictionaries() {
    let mut builder = EventBuilder::new();
    for name in ["a", "b"] {
        builder.push(&EventDraft { source: Party { principal: name, ..Party::default() }, ..EventDraft::default() });
        let batch = builder.finish();
        assert_eq!((batch.len(), batch.event(0).source().principal()), (1, name));
        assert_eq!(batch.source.principal.distinct(), 1);
    }
}

#[test]
fn a_batch_with_another_schema_is_refused() {
    let other = RecordBatch::new_empty(arrow::datatypes::Schema::empty().into());
    assert!(EventBatch::try_from(other).is_err());
}
