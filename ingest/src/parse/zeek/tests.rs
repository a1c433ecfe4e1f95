//! What lines of Zeek's become.

use qualm_model::event::{EventBatch, EventBuilder, Position};

use super::*;

const CONN: &str = r#"{"ts":1591367999.430166,"uid":"C5bLoe","id.orig_h":"192.168.4.76","id.orig_p":46378,"id.resp_h":"31.3.245.133","id.resp_p":80,"proto":"tcp","service":"http","duration":0.25411510467529297,"orig_bytes":77,"resp_bytes":295,"conn_state":"SF"}"#;
const HTTP: &str = r#"{"ts":1591367999.5,"uid":"C5bLoe","id.orig_h":"192.168.4.76","id.orig_p":46378,"id.resp_h":"31.3.245.133","id.resp_p":80,"trans_depth":12,"method":"GET","host":"testmyids.com","uri":"/a/17?x=1","username":"alice","password":"hunter2","status_code":200,"response_body_len":39}"#;
const TSV: &str = "1591367999.430166\tC5bLoe\t192.168.4.76\t46378\t31.3.245.133\t80\ttcp\thttp\t0.254115\t77\t295\tSF\tT\tF\t0\tShADadFf\t6\t397\t4\t511\t-";

fn json(line: &str) -> Result<EventBatch, Rejection> {
    let mut builder = EventBuilder::new();
    ZeekJson::default().parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
    Ok(builder.finish())
}

fn tsv(zeek: &mut ZeekTsv, line: &str) -> Result<EventBatch, Rejection> {
    let mut builder = EventBuilder::new();
    zeek.parse(line, &mut Row::new(&mut builder, Position::default(), None))?;
    Ok(builder.finish())
}

#[test]
fn both_forms_say_the_same() {
    let (json, tsv) = (json(CONN).expect("an event"), tsv(&mut ZeekTsv::default(), TSV).expect("an event"));
    for batch in [&json, &tsv] {
        let event = batch.event(0);
        let names = (event.source().principal(), event.destination().principal());
        assert_eq!(names, ("192.168.4.76", "external:31.3.245.0/24"));
        assert_eq!(event.destination().ip(), "31.3.245.133");
        assert_eq!((event.kind(), event.outcome(), event.operation()), (Kind::Connection, Outcome::Success, "http"));
        assert_eq!((event.start(), event.record_id()), (Timestamp(1_591_367_999_430_166_000), "C5bLoe"));
        assert_eq!((event.bytes_in(), event.bytes_out()), (Some(77), Some(295)));
        assert_eq!((event.report() - event.start()).0 / 1_000_000, 254);
    }
}

#[test]
fn times_may_be_iso() {
    let line = CONN.replace("1591367999.430166", "\"2020-06-05T14:39:59.430166Z\"");
    assert_eq!(json(&line).expect("an event").event(0).start(), Timestamp(1_591_367_999_430_166_000));
}

#[test]
fn the_requests_of_a_connection_have_ids_of_their_own_and_no_password() {
    let batch = json(HTTP).expect("an event");
    let event = batch.event(0);
    assert_eq!((event.record_id(), event.operation(), event.hostname()), ("C5bLoe/12", "GET /a/{id}", "testmyids.com"));
    let shown = format!("{:?}", batch.as_record_batch());
    assert!(!shown.contains("hunter2") && !shown.contains("alice"));
}

#[test]
fn logins_and_handshakes_are_authentications() {
    let ends =
        r#""ts":1541001600.5,"uid":"CW","id.orig_h":"10.0.0.5","id.orig_p":5,"id.resp_h":"10.0.0.6","id.resp_p":22"#;
    for (rest, method, outcome) in [
        (r#""version":2,"auth_success":true,"auth_attempts":1"#, "ssh", Outcome::Success),
        (r#""version":2,"auth_success":false,"auth_attempts":3"#, "ssh", Outcome::Refused),
        (r#""version":2,"auth_attempts":0"#, "ssh", Outcome::Unknown),
        (r#""version":"TLSv13","cipher":"x","established":true,"ja3":"ab"#, "tls", Outcome::Success),
        (
            r#""version":"TLSv12","established":false,"client_cert_chain_fps":["3b7c"],"ja3":"ab"#,
            "mtls",
            Outcome::Failure,
        ),
    ] {
        let rest = if rest.ends_with("ab") { format!("{rest}\"") } else { rest.to_owned() };
        let batch = json(&format!("{{{ends},{rest}}}")).expect("an event");
        let event = batch.event(0);
        assert_eq!((event.kind(), event.auth_method(), event.outcome()), (Kind::Authentication, method, outcome));
    }
}

#[test]
fn a_header_names_the_columns_until_the_next_file_begins() {
    let mut zeek = ZeekTsv::default();
    for line in
        ["#separator \\x09", "#path\thttp", "#fields\tts\tuid\tid.orig_h\tid.resp_h\tmethod\turi\tstatus_code\ttags"]
    {
        assert!(!zeek.is_record(line.as_bytes()));
    }
    let line = "1756228882.1\tCH\t10.0.0.7\t10.0.0.8\tPOST\t/login?x=1\t403\t(empty)";
    assert!(zeek.is_record(line.as_bytes()));
    let batch = tsv(&mut zeek, line).expect("an event");
    assert_eq!((batch.event(0).operation(), batch.event(0).outcome()), ("POST /login", Outcome::Refused));
    assert_eq!(tsv(&mut zeek, "1756228882.1\tCH\t10.0.0.7\t10.0.0.8\tPOST").err(), Some(Invalid::Syntax.into()));
    assert_eq!(tsv(&mut zeek, TSV).err(), Some(Invalid::Syntax.into()));
    zeek.begin_input();
    assert!(tsv(&mut zeek, TSV).is_ok());
}

#[test]
fn other_logs_are_foreign() {
    assert_eq!(json(&CONN.replace('{', r#"{"_path":"dns","#)).err(), Some(Rejection::Foreign));
    assert_eq!(json(&CONN.replace("conn_state", "query")).err(), Some(Rejection::Foreign));
    let mut zeek = ZeekTsv::default();
    assert!(!zeek.is_record(b"#path\tdns") && !zeek.is_record(b"#fields\tts\tuid"));
    assert_eq!(tsv(&mut zeek, "1756228882.1\tCH").err(), Some(Rejection::Foreign));
    assert_eq!(tsv(&mut ZeekTsv::default(), "at\tjava.lang.Thread.run").err(), Some(Rejection::Foreign));
}
