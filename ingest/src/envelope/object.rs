//! One pass over a JSON record: where the line stands in it, and what it says of the line's origin.

mod key;
mod mold;
mod pass;
mod reading;

use qualm_model::time::Timestamp;

use self::pass::Stop;
pub(super) use self::{
    key::{Key, PLACES, Place, Places},
    mold::{Molds, line_end},
    pass::ESCAPED_OBJECT,
    reading::Reading,
};
use super::{Wrapping, docker, memo::Memo, passed::Kind, path};
use crate::{
    parse::{
        Origin,
        json::{Lexer, Stretch},
        time::{epoch, rfc3339, sensible},
    },
    source::Invalid,
};

/// A text in the object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text {
    Plain(Stretch),
    Escaped(Stretch),
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    pub(super) record: Option<Text>,
    pub(super) nested: Option<Stretch>,
    /// Whether there is metadata of a pod.
    pub(super) is_placed: bool,
    pub(super) holds_otlp: bool,
    places: Places,
    stream: Stretch,
    /// Whether that is the name of one.
    is_streamed: bool,
    time: Option<Stretch>,
    /// Whether that is in nanoseconds, as OTLP has it.
    is_fine: bool,
    file: Stretch,
    signed: Option<Kind>,
    /// Whose word the key of the time is.
    timed: Option<Kind>,
    is_tagged: bool,
    goes_on: bool,
    is_last: bool,
    /// Whether the record stands under the key that Docker's driver has for it.
    is_log: bool,
    /// Keys of the object itself that were read.
    keys_read: usize,
}

impl Object {
    /// Reads `text`, which begins with a brace.
    ///
    /// Errors: it is not well-formed, or cut off.
    pub(super) fn read(text: &str, memo: &mut Memo) -> Result<Self, Invalid> {
        let mut lexer = Lexer::new(text);
        lexer.begin()?;
        let mut object = Self::default();
        let mut path = std::mem::take(&mut memo.path);
        path.clear();
        let read = object.read_top(text, &mut lexer, &mut path, memo, Stop::Never);
        memo.path = path;
        read?;
        lexer.end()?;
        Ok(object)
    }

    /// What is known of a record by its metadata alone, where `rest` of it begins with some that was seen before; and
    /// where that stands.
    pub(super) fn of_known(text: &str, rest: &str, memo: &Memo) -> Option<(Self, Stretch)> {
        let rest = rest.strip_prefix("\"kubernetes\":")?;
        let (bytes, places) = memo.find(rest)?;
        let mut object = Self { is_placed: true, ..Self::default() };
        let start = text.len() - rest.len();
        object.place_all(places, start);
        Some((object, Stretch::new(start, start + bytes)))
    }

    /// What `within` says, as far as it stands in `text`, of a record that stands there; `time` is that of OTLP.
    pub(super) fn of_otlp(text: &str, record: &str, within: &Wrapping<'_>, time: &str) -> Option<Self> {
        let at = |part: &str| stretch_in(text, part);
        Some(Self {
            record: Some(Text::Escaped(at(record)?)),
            is_fine: true,
            time: Some(at(time)?),
            file: at(within.file).unwrap_or_default(),
            stream: at(within.stream).unwrap_or_default(),
            ..Self::of_origin(text, &within.origin)
        })
    }

    /// The parts of an origin that stand in `text`.
    pub(super) fn of_origin(text: &str, origin: &Origin<'_>) -> Self {
        let mut object = Self::default();
        for (place, part) in [
            (Place::Cluster, origin.cluster),
            (Place::Namespace, origin.namespace),
            (Place::Pod, origin.pod),
            (Place::PodIp, origin.pod_ip),
            (Place::Node, origin.node),
            (Place::Container, origin.container),
            (Place::Owner, origin.owner),
            (Place::Version, origin.version),
        ] {
            object.places[place as usize] = stretch_in(text, part).unwrap_or_default();
        }
        object
    }

    /// The parts of an origin that stand at known places of what begins at byte `offset`.
    pub(super) fn of_places(places: &Places, offset: usize) -> Self {
        let mut object = Self::default();
        object.place_all(places, offset);
        object
    }

    /// Where the parts of the origin stand.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// The same of a text in which everything from byte `from` on stands at byte `to` and after.
    fn moved(&self, from: usize, to: usize) -> Self {
        let mut object = self.clone();
        let moved = |stretch: &mut Stretch| {
            let (start, end) = stretch.bounds();
            if start >= from {
                *stretch = Stretch::new(start - from + to, end - from + to);
            }
        };
        object.places.iter_mut().for_each(moved);
        object.time.iter_mut().for_each(moved);
        [&mut object.stream, &mut object.file].into_iter().for_each(moved);
        object
    }

    /// Takes the places that are known within a stretch which begins at `offset`.
    fn place_all(&mut self, places: &Places, offset: usize) {
        for (place, known) in self.places.iter_mut().zip(places) {
            let (start, end) = known.bounds();
            if end > start {
                *place = Stretch::new(start + offset, end + offset);
            }
        }
    }

    /// Whether this can hardly be anything but an envelope, whatever is in it.
    pub(super) fn is_certain(&self) -> bool {
        self.holds_otlp
            || (self.record.is_some() || self.nested.is_some())
                && (self.signed.is_some()
                    || self.is_streamed
                    || self.is_tagged
                    || self.is_placed
                    || self.file != Stretch::default())
    }

    /// Whose it looks like: by what only that one writes, else by the key of the line, else by that of the time.
    pub(super) fn kind(&self) -> Kind {
        match self.signed {
            Some(kind) => kind,
            None if self.record.is_none() && self.nested.is_none() => Kind::Lifted,
            None if self.is_tagged || self.is_log && (self.is_placed || !self.is_streamed) => Kind::Fluent,
            None if self.is_log => Kind::Docker,
            None => self.timed.unwrap_or(Kind::Unnamed),
        }
    }

    /// Whether the line goes on in a later record.
    pub(super) fn is_piece(&self, text: &str) -> bool {
        let Some(record) = self.record else { return false };
        let (Text::Plain(stretch) | Text::Escaped(stretch)) = record;
        // Shippers that join lines themselves write long ones under keys of their own, without a line end.
        let is_dockers = self.is_log && self.stream != Stretch::default() && self.time.is_some() && !self.is_tagged;
        let is_cut = is_dockers && docker::is_cut(stretch.of(text), matches!(record, Text::Escaped(_)));
        self.goes_on && !self.is_last || is_cut
    }

    /// What is known of the line, with what the envelopes around this one say, which are believed before it.
    pub(super) fn wrapping<'a>(&self, text: &'a str, outer: &Wrapping<'a>) -> Wrapping<'a> {
        let of = |place: Place| self.places[place as usize].of(text);
        let or = |outer: &'a str, own: &'a str| if outer.is_empty() { own } else { outer };
        let owner = of(Place::Owner);
        let time = self.time.map(|time| time.of(text));
        let time = time.and_then(|time| if self.is_fine { fine(time) } else { written_at(time) });
        let own = Origin {
            cluster: of(Place::Cluster),
            namespace: of(Place::Namespace),
            pod: of(Place::Pod),
            pod_ip: of(Place::PodIp),
            node: or(of(Place::Node), of(Place::Host)),
            container: of(Place::Container),
            // `ReplicaSet/cart-5d4f`, as Vector writes it.
            owner: memchr::memchr(b'/', owner.as_bytes()).map_or(owner, |at| &owner[at + 1..]),
            version: of(Place::Version),
            time,
        };
        let file = self.file.of(text);
        // Keys beside a line that was parsed may be its writer's.
        let own = if self.record.is_some() && !file.is_empty() { path::fill(own, file) } else { own };
        // The time next to the line is nearest to its writing.
        let origin = Origin { time: time.or(outer.origin.time), ..outer.origin.or(&own) };
        Wrapping {
            origin,
            partition: outer.partition,
            file: or(outer.file, file),
            stream: or(outer.stream, self.stream.of(text)),
        }
    }
}

/// Where `part` stands in `text`, if it is some of it.
fn stretch_in(text: &str, part: &str) -> Option<Stretch> {
    let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    (start + part.len() <= text.len() && !part.is_empty()).then(|| Stretch::new(start, start + part.len()))
}

/// Nanoseconds since 1970; none is no time.
fn fine(time: &str) -> Option<Timestamp> {
    time.parse::<i64>().ok().filter(|&time| time != 0).and_then(|time| sensible(time.into()).ok())
}

/// RFC 3339, or seconds since 1970.
fn written_at(time: &str) -> Option<Timestamp> {
    let is_number = time.as_bytes().get(4) != Some(&b'-');
    if is_number { epoch(time, 0).ok() } else { rfc3339(time).ok() }
}
