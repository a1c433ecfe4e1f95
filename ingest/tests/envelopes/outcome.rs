//! What records become, in an envelope and without one.

use std::sync::LazyLock;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::TimestampNanosecondType,
    util::display::{ArrayFormatter, FormatOptions},
};
use qualm_ingest::{
    parse::{Format, Parser},
    source::Rejection,
};
use qualm_model::event::{Event, EventBatch, EventBuilder, Position};

use crate::shippers::Wrap;

pub(crate) const CSV_MAPPING: &str = r#"
    format = "csv"
    time = { column = 0, format = "%Y-%m-%d %H:%M:%S" }
    fields = { source = "{1}", destination = "{2}", operation = "{3}", status = "{4}" }
"#;
pub(crate) const CSV: &str = "2026-11-22 02:02:24,cart,\"orders, the big one\",GET /v1/orders/42?x=1,200,label";

/// A mixed input: the records of every format, one format after the other.
pub(crate) static MIXED: LazyLock<String> =
    LazyLock::new(|| Format::ALL.iter().map(|format| format.sample()).collect());

pub(crate) fn sample(format: Format) -> &'static str {
    match format {
        Format::Mapped => CSV,
        Format::Auto => &MIXED,
        named => named.sample(),
    }
}

pub(crate) fn parser(format: Format) -> Parser {
    let mapping = (format == Format::Mapped).then(|| CSV_MAPPING.parse().unwrap());
    Parser::for_format(format, mapping).unwrap()
}

/// What an envelope tells: the reporter's own end, and what follows from it.
pub(crate) fn is_of_origin(name: &str) -> bool {
    ["position", "partition", "offset", "cluster", "instance", "version", "_ip", "reporter_uid"]
        .iter()
        .any(|part| name.contains(part))
}

pub(crate) fn shown(event: Event<'_>, batch: &EventBatch) -> String {
    let columns = batch.as_record_batch();
    let options = FormatOptions::default();
    let fields = columns.schema_ref().fields().iter().zip(columns.columns());
    let kept = fields.filter(|(field, column)| !is_of_origin(field.name()) && !column.is_null(event.row));
    let value = |column: &ArrayRef| match column.as_primitive_opt::<TimestampNanosecondType>() {
        Some(times) => jiff::Timestamp::from_nanosecond(times.value(event.row).into()).unwrap().to_string(),
        None => ArrayFormatter::try_new(column, &options).unwrap().value(event.row).to_string(),
    };
    kept.map(|(field, column)| format!("{}={}", field.name(), value(column))).collect::<Vec<_>>().join("; ")
}

/// What a record becomes, origin left out.
pub(crate) fn outcome_of(parser: &mut Parser, record: &[u8]) -> Result<Vec<String>, Rejection> {
    let mut builder = EventBuilder::new();
    let position = Position { source: 2, partition: 5, offset: 9 };
    let outcome = parser.parse(record, position, &mut builder);
    let batch = builder.finish();
    assert!(batch.events().all(|event| event.position() == position));
    outcome?;
    let refused = parser.refused().iter().map(|why| format!("{why:?}"));
    Ok(batch.events().map(|event| shown(event, &batch)).chain(refused).collect())
}

/// What the records of a sample become in an envelope; the pieces before the last of each must be parts.
pub(crate) fn outcomes(parser: &mut Parser, format: Format, wrap: Wrap) -> Vec<Result<Vec<String>, Rejection>> {
    let of = |record: &str, parser: &mut Parser| {
        let pieces = wrap(record);
        let (last, before) = pieces.split_last().unwrap();
        for piece in before {
            assert_eq!(outcome_of(parser, piece), Err(Rejection::Part), "{format}");
        }
        outcome_of(parser, last)
    };
    sample(format).lines().map(|record| of(record, parser)).collect()
}

/// An event without its times, where they are those of the envelope.
pub(crate) fn without_times(event: &str) -> String {
    let is_time = |field: &&str| field.starts_with("start_time=") || field.starts_with("time=");
    event.split("; ").filter(|field| !is_time(field)).collect::<Vec<_>>().join("; ")
}

/// Two events without the name of the reporter's own end, where it has none but what the envelope says of the pod.
pub(crate) fn without_own_name(found: &str, expected: &str) -> (String, String) {
    let is_issuers = ["dst_endpoint_uid=spire-server", "dst_endpoint_uid=kube-apiserver"]
        .iter()
        .any(|issuer| expected.contains(issuer));
    let fields = found.split("; ").zip(expected.split("; ")).filter(|(found, expected)| {
        let is_named = found.ends_with("=orders-5d4f.shop");
        let was_address = expected.split_once('=').is_some_and(|(_, value)| value.parse::<std::net::IpAddr>().is_ok());
        let is_disowned = *found == "src_endpoint_provenance=4" && *expected == "src_endpoint_provenance=0";
        !(is_named && was_address || is_disowned && is_issuers)
    });
    let (found, expected): (Vec<_>, Vec<_>) = fields.unzip();
    (found.join("; "), expected.join("; "))
}

/// Whether an outcome is that of the same record without an envelope.
pub(crate) fn is_same(
    found: &Result<Vec<String>, Rejection>,
    expected: &Result<Vec<String>, Rejection>,
    format: Format,
) -> bool {
    match (found, expected) {
        // Times without a zone or a year are made whole by the envelope, which knows when the line was written.
        (Ok(found), Ok(expected)) => {
            let same = |(found, expected): (&String, &String)| {
                let is_dated = found.starts_with("start_time=2026-11-22T02:02:25")
                    && (UNDATED.contains(&format) || format == Format::Auto);
                let (found, expected) = without_own_name(found, expected);
                found == expected || is_dated && without_times(&found) == without_times(&expected)
            };
            found.len() == expected.len() && found.iter().zip(expected).all(same)
        }
        // Of all formats some other may have more to say of what is none of its records.
        (Err(found), Err(expected)) if format == Format::Auto => {
            (*found == Rejection::Part) == (*expected == Rejection::Part)
        }
        _ => found == expected,
    }
}

pub(crate) const UNDATED: [Format; 3] = [Format::KeycloakText, Format::KafkaAuthorizer, Format::Sshd];

/// The reporter's own end of the only event of a record: cluster, instance, version, address.
pub(crate) fn own_end(record: &[u8]) -> [String; 4] {
    let mut builder = EventBuilder::new();
    parser(Format::IstioJson).parse(record, Position::default(), &mut builder).unwrap();
    let batch = builder.finish();
    let end = batch.event(0).destination();
    [end.cluster(), end.instance(), end.version(), end.ip()].map(str::to_owned)
}

/// A record that names its reporter as the called side, and neither pod nor address.
pub(crate) fn inbound() -> String {
    r#"{"start_time":"2026-11-22T02:02:24Z","duration":1,"method":"GET","path":"/x","response_code":200,"upstream_cluster":"inbound|80||","downstream_remote_address":"10.0.0.7:1","downstream_peer_uri_san":"spiffe://mesh.test/ns/shop/sa/cart","downstream_local_uri_san":"spiffe://mesh.test/ns/shop/sa/orders"}"#.to_owned()
}
