//! The five messages of Kafka's protocol that are needed, in their oldest form that brokers from 2.6 to 4 know. Lengths
//! that a broker claims are never believed: a list is as long as what comes of it.
//!
//! A library would bring all ninety messages in all versions, and gives lists the room that the called claims.

/// A broker's answer ends before it should, or says what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer that is none of this request's")]
pub(super) struct Malformed;

/// A request: its number, its version and its content.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) api: i16,
    version: i16,
    content: Vec<u8>,
}

const DESCRIBE_ACLS: i16 = 29;
const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const DESCRIBE_QUOTAS: i16 = 48;
const ALTER_QUOTAS: i16 = 49;

/// `ANY` of resource types, patterns, operations and permissions.
const ANY: i8 = 1;
/// Every operation.
pub(super) const ALL: i8 = 2;
pub(super) const DENY: i8 = 2;
pub(super) const ALLOW: i8 = 3;

/// An access rule as a broker has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Acl {
    pub(super) resource: Resource,
    pub(super) principal: String,
    pub(super) host: String,
    pub(super) operation: i8,
    pub(super) permission: i8,
}

/// What a rule is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) struct Resource {
    pub(super) kind: i8,
    pub(super) name: String,
    pub(super) pattern: i8,
}

/// Quotas of one entity.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Quotas {
    /// Parts of the entity: type, and name; `None` is the default.
    pub(super) entity: Vec<(String, Option<String>)>,
    pub(super) values: Vec<(String, f64)>,
}

/// A code that is not 0, and what the broker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: i16,
    pub(super) words: String,
}

/// What a broker has answered.
pub(super) type Answered<T> = Result<Result<T, Refusal>, Malformed>;

/// The rules of a principal, of either permission.
pub(super) fn describe_acls(principal: &str) -> Request {
    let mut out = Writer::default();
    out.byte(ANY).nullable(None).byte(ANY).nullable(Some(principal)).nullable(None).byte(ANY).byte(ANY);
    out.request(DESCRIBE_ACLS, 1)
}

pub(super) fn described_acls(answer: &[u8]) -> Answered<Vec<Acl>> {
    let mut from = Reader(answer);
    from.int()?;
    if let Some(refusal) = from.refusal()? {
        return Ok(Err(refusal));
    }
    let mut acls = Vec::new();
    for _ in 0..from.count()? {
        let resource = from.resource()?;
        for _ in 0..from.count()? {
            acls.push(from.acl(resource.clone())?);
        }
    }
    Ok(Ok(acls))
}

pub(super) fn create_acls<'a>(acls: impl ExactSizeIterator<Item = &'a Acl>) -> Request {
    let mut out = Writer::default();
    out.count(acls.len());
    for acl in acls {
        out.byte(acl.resource.kind).text(&acl.resource.name).byte(acl.resource.pattern);
        out.text(&acl.principal).text(&acl.host).byte(acl.operation).byte(acl.permission);
    }
    out.request(CREATE_ACLS, 1)
}

pub(super) fn created_acls(answer: &[u8]) -> Answered<()> {
    let mut from = Reader(answer);
    from.int()?;
    for _ in 0..from.count()? {
        if let Some(refusal) = from.refusal()? {
            return Ok(Err(refusal));
        }
    }
    Ok(Ok(()))
}

/// Exactly these rules.
pub(super) fn delete_acls<'a>(acls: impl ExactSizeIterator<Item = &'a Acl>) -> Request {
    let mut out = Writer::default();
    out.count(acls.len());
    for acl in acls {
        out.byte(acl.resource.kind).nullable(Some(&acl.resource.name)).byte(acl.resource.pattern);
        out.nullable(Some(&acl.principal)).nullable(Some(&acl.host)).byte(acl.operation).byte(acl.permission);
    }
    out.request(DELETE_ACLS, 1)
}

/// How many were there.
pub(super) fn deleted_acls(answer: &[u8]) -> Answered<usize> {
    let (mut from, mut deleted) = (Reader(answer), 0);
    from.int()?;
    for _ in 0..from.count()? {
        if let Some(refusal) = from.refusal()? {
            return Ok(Err(refusal));
        }
        for _ in 0..from.count()? {
            if let Some(refusal) = from.refusal()? {
                return Ok(Err(refusal));
            }
            let resource = from.resource()?;
            from.acl(resource)?;
            deleted += 1;
        }
    }
    Ok(Ok(deleted))
}

/// The quotas of a user, also those of single client ids of its.
pub(super) fn describe_quotas(user: &str) -> Request {
    let mut out = Writer::default();
    let (exactly, is_strict) = (0, 0);
    out.count(1).text("user").byte(exactly).nullable(Some(user)).byte(is_strict);
    out.request(DESCRIBE_QUOTAS, 0)
}

pub(super) fn described_quotas(answer: &[u8]) -> Answered<Vec<Quotas>> {
    let mut from = Reader(answer);
    from.int()?;
    if let Some(refusal) = from.refusal()? {
        return Ok(Err(refusal));
    }
    let mut all = Vec::new();
    for _ in 0..from.count()? {
        let mut quotas = Quotas { entity: from.entity()?, values: Vec::new() };
        for _ in 0..from.count()? {
            quotas.values.push((from.text()?, from.float()?));
        }
        all.push(quotas);
    }
    Ok(Ok(all))
}

/// A change of an entity's quotas: each is set, or taken away.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Change {
    pub(super) entity: Vec<(String, Option<String>)>,
    pub(super) values: Vec<(String, Option<f64>)>,
}

/// Changes quotas, or only asks whether that would be allowed.
pub(super) fn alter_quotas(changes: &[Change], only_asks: bool) -> Request {
    let mut out = Writer::default();
    out.count(changes.len());
    for change in changes {
        out.count(change.entity.len());
        for (kind, name) in &change.entity {
            out.text(kind).nullable(name.as_deref());
        }
        out.count(change.values.len());
        for (key, value) in &change.values {
            out.text(key).float(value.unwrap_or(0.0)).byte(i8::from(value.is_none()));
        }
    }
    out.byte(i8::from(only_asks));
    out.request(ALTER_QUOTAS, 0)
}

pub(super) fn altered_quotas(answer: &[u8]) -> Answered<()> {
    let mut from = Reader(answer);
    from.int()?;
    for _ in 0..from.count()? {
        if let Some(refusal) = from.refusal()? {
            return Ok(Err(refusal));
        }
        from.entity()?;
    }
    Ok(Ok(()))
}

impl Request {
    /// The request as it is sent, with its length before it.
    pub(super) fn framed(&self, correlation: i32) -> Vec<u8> {
        let mut out = Writer::default();
        out.short(self.api).short(self.version).int(correlation).nullable(Some("qualm"));
        out.0.extend_from_slice(&self.content);
        let mut framed = i32::try_from(out.0.len()).unwrap_or(i32::MAX).to_be_bytes().to_vec();
        framed.append(&mut out.0);
        framed
    }
}

/// What is in an answer behind the number of its request.
pub(super) fn answer_to(correlation: i32, frame: &[u8]) -> Result<&[u8], Malformed> {
    let mut from = Reader(frame);
    if from.int()? == correlation { Ok(from.0) } else { Err(Malformed) }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, value: i8) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn short(&mut self, value: i16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn float(&mut self, value: f64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn count(&mut self, count: usize) -> &mut Self {
        self.int(i32::try_from(count).unwrap_or(i32::MAX))
    }

    /// Names are bounded long before the length of a text is.
    fn text(&mut self, text: &str) -> &mut Self {
        self.short(i16::try_from(text.len()).unwrap_or(i16::MAX));
        self.0.extend(text.bytes().take(i16::MAX as usize));
        self
    }

    fn nullable(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.short(-1),
        }
    }

    fn request(self, api: i16, version: i16) -> Request {
        Request { api, version, content: self.0 }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<i8, Malformed> {
        self.take().map(i8::from_be_bytes)
    }

    fn int(&mut self) -> Result<i32, Malformed> {
        self.take().map(i32::from_be_bytes)
    }

    fn float(&mut self) -> Result<f64, Malformed> {
        self.take().map(f64::from_be_bytes)
    }

    /// The length of a list; none is empty.
    fn count(&mut self) -> Result<i32, Malformed> {
        self.int()
    }

    fn nullable(&mut self) -> Result<Option<String>, Malformed> {
        let length = self.take().map(i16::from_be_bytes)?;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let (text, rest): (&'a [u8], _) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map(Some).map_err(|_| Malformed)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        self.nullable()?.ok_or(Malformed)
    }

    fn refusal(&mut self) -> Result<Option<Refusal>, Malformed> {
        let code = self.take().map(i16::from_be_bytes)?;
        let words = self.nullable()?.unwrap_or_default();
        let words = words.chars().filter(|c| !c.is_control()).take(200).collect();
        Ok((code != 0).then_some(Refusal { code, words }))
    }

    fn resource(&mut self) -> Result<Resource, Malformed> {
        Ok(Resource { kind: self.byte()?, name: self.text()?, pattern: self.byte()? })
    }

    fn acl(&mut self, resource: Resource) -> Result<Acl, Malformed> {
        let (principal, host) = (self.text()?, self.text()?);
        Ok(Acl { resource, principal, host, operation: self.byte()?, permission: self.byte()? })
    }

    fn entity(&mut self) -> Result<Vec<(String, Option<String>)>, Malformed> {
        let mut entity = Vec::new();
        for _ in 0..self.count()? {
            entity.push((self.text()?, self.nullable()?));
        }
        Ok(entity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acls(count: i32) -> Vec<u8> {
        let mut out = Writer::default();
        out.int(0).short(0).nullable(None).int(count).byte(2).text("orders").byte(3);
        out.int(1).text("User:cart").text("*").byte(3).byte(ALLOW);
        out.0
    }

    #[test]
    fn an_answer_is_read_and_one_that_was_cut_off_anywhere_is_refused() {
        let whole = acls(1);
        let read = described_acls(&whole).expect("it is whole").expect("it says so");
        assert_eq!((read.len(), read[0].resource.name.as_str(), read[0].permission), (1, "orders", ALLOW));
        for end in 0..whole.len() {
            assert_eq!(described_acls(&whole[..end]), Err(Malformed), "{end}");
        }
    }

    #[test]
    fn a_length_that_is_claimed_costs_nothing() {
        assert_eq!(described_acls(&acls(i32::MAX)), Err(Malformed));
        assert_eq!(described_acls(&acls(-1)), Ok(Ok(Vec::new())));
    }

    #[test]
    fn what_a_broker_refuses_is_told_in_its_words() {
        let mut out = Writer::default();
        out.int(0).short(31).nullable(Some("Cluster authorization\nfailed."));
        let refusal = described_acls(&out.0).expect("it is whole").unwrap_err();
        assert_eq!(refusal, Refusal { code: 31, words: "Cluster authorizationfailed.".to_owned() });
    }

    #[test]
    fn a_request_has_its_length_before_it() {
        let framed = describe_acls("User:cart").framed(7);
        assert_eq!(framed[..4], i32::try_from(framed.len() - 4).expect("it is short").to_be_bytes());
        assert_eq!(framed[4..12], [0, 29, 0, 1, 0, 0, 0, 7]);
        assert_eq!(answer_to(7, &[0, 0, 0, 7, 1]), Ok(&[1_u8][..]));
        assert_eq!(answer_to(7, &[0, 0, 0, 8, 1]), Err(Malformed));
    }
}
