//! An instruction carried out, or refused; and the ends of what it has brought about.

use qualm_model::{
    identity::Class,
    level::Level,
    time::{Span, Timestamp},
};

use super::{
    Ask, InShadow, Instruction, Override, Refusal,
    orders::{Hold, Kept, Order, Pause, decision_id},
};
use crate::{
    config::Mode,
    mesh::SourceKey,
    operator::{accepted::Acceptances, announced::Announcements, orders::Orders},
    scorer::Scorer,
    shard::shard_of,
    standing::{Evidence, Other},
    table::{Object, Subject},
    verdict::{Cause, Ordered, Verdict},
};

/// What became of an instruction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obeyed {
    /// Entries that have ended.
    pub ended: usize,
    /// What the caller should know besides.
    pub notes: Vec<String>,
}

impl Scorer {
    /// Carries out an instruction at its own times; verdicts are added to `verdicts`. It must not have been
    /// [`answered`](Self::answered) before.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub fn obey(&mut self, of: &Instruction, verdicts: &mut Vec<Verdict>) -> Result<Obeyed, Refusal> {
        of.check()?;
        match &of.ask {
            Ask::Set { .. } => self.set(of, verdicts),
            Ask::Lift { identity, instance, hold } => self.lift(of, (identity, instance.as_deref()), *hold, verdicts),
            Ask::Pause { lease } => {
                let (by, why) = (of.by.clone(), of.why.clone());
                self.orders.pause = Some(Pause { by, why, since: of.at, until: of.at + *lease });
                Ok(Obeyed::default())
            }
            Ask::Resume => {
                self.orders.pause.take().ok_or(Refusal::NotPaused)?;
                Ok(Obeyed::default())
            }
            Ask::Announce { service, cluster, lasts } => {
                let notes = self.announce(of, (service, cluster.as_deref()), *lasts)?;
                Ok(Obeyed { ended: 0, notes })
            }
            Ask::Accept { identity, .. } if self.key_of(identity).is_none() => Err(Refusal::Unknown(identity.clone())),
            Ask::Accept { .. } => Ok(Obeyed { ended: 0, notes: self.accept(of)? }),
        }
    }

    /// The journal's record of the same call, where it was carried out before.
    ///
    /// # Errors
    /// [`Refusal::KeyUsed`]: the key was used for another call.
    pub fn answered(&self, of: &Instruction) -> Result<Option<u64>, Refusal> {
        self.orders.answered(of)
    }

    /// Takes note that an instruction was carried out, and that it has this number in the journal.
    pub fn note_answered(&mut self, of: &Instruction, record: u64) {
        self.orders.answer(of, record);
    }

    /// Takes over an instruction of the journal that is younger than the snapshot, after its verdicts.
    pub fn take_instruction(&mut self, of: &Instruction, record: u64, verdicts: &[Verdict]) {
        self.orders.answer(of, record);
        match &of.ask {
            Ask::Set { .. } => {}
            Ask::Lift { identity, instance, hold } => {
                let is_lifted = verdicts.iter().any(|verdict| verdict.cause == Cause::Lifted);
                if instance.is_none() || is_lifted {
                    self.forget_evidence(identity);
                    self.orders.put_hold(Hold { is_retold: true, ..hold_of(of, identity, *hold) });
                }
            }
            Ask::Pause { lease } => {
                let (by, why) = (of.by.clone(), of.why.clone());
                self.orders.pause = Some(Pause { by, why, since: of.at, until: of.at + *lease });
            }
            Ask::Resume => self.orders.pause = None,
            Ask::Announce { service, cluster, lasts } => {
                // There was room for it then.
                let _ = self.announce(of, (service, cluster.as_deref()), *lasts);
            }
            Ask::Accept { .. } => {
                // It was carried out then.
                let _ = self.accept(of);
            }
        }
    }

    /// What operators have brought about, for a checkpoint of the journal.
    pub fn kept_orders(&self) -> Vec<Kept> {
        let mut kept = self.orders.kept();
        kept.extend(self.announced.iter().cloned().map(Kept::Announced));
        kept.extend(self.accepted.iter().cloned().map(Kept::Accepted));
        kept
    }

    /// Takes over what a checkpoint has kept, in the place of all that was known.
    pub fn take_kept_orders(&mut self, kept: Vec<Kept>) {
        (self.announced, self.accepted) = (Announcements::default(), Acceptances::default());
        for part in &kept {
            // There was room for it then.
            let _ = match part {
                Kept::Announced(of) => self.announced.put(of.clone()),
                Kept::Accepted(of) => self.accepted.put(of.clone()),
                _ => Ok(()),
            };
        }
        self.tell_sources_what_is_announced();
        self.orders = Orders::of(kept);
        let identities: Vec<String> = self.orders.holds().map(|hold| hold.identity.clone()).collect();
        identities.iter().for_each(|identity| self.forget_evidence(identity));
    }

    /// The pause of all enforcement, while there is one.
    pub fn pause(&self) -> Option<&Pause> {
        self.orders.pause.as_ref()
    }

    fn set(&mut self, of: &Instruction, verdicts: &mut Vec<Verdict>) -> Result<Obeyed, Refusal> {
        let Ask::Set { identity, instance, level, lease, in_shadow, overrides } = &of.ask else {
            return Ok(Obeyed::default());
        };
        let whole = self.subject_of(identity).ok_or_else(|| Refusal::Unknown(identity.clone()))?;
        if !Class::of(&whole.principal).carries_trust() {
            return Err(Refusal::CarriesNoTrust(identity.clone()));
        }
        let subject = Subject { instance: instance.clone(), ..whole };
        let enforce = self.config.enforce.mode == Mode::Enforce || *in_shadow == InShadow::Acts;
        let by =
            Ordered { by: of.by.clone(), why: of.why.clone(), in_shadow: *in_shadow, overrides: overrides.clone() };
        let order = Order {
            decision: decision_id(&subject, *level, of),
            subject,
            level: *level,
            decided: of.at,
            expires: of.at + *lease,
            event: of.event,
            enforce,
            by,
        };
        self.may_stand(&order, of.event)?;
        let notes = self.notes_on(&order);
        let previous = self.orders.get(&order.subject).map_or(Level::Trusted, |before| before.level);
        verdicts.push(self.ordered(&order, previous, of.at));
        if let Err(refusal) = self.orders.put(order) {
            verdicts.pop();
            return Err(refusal);
        }
        Ok(Obeyed { ended: 0, notes })
    }

    /// Whether an entry may do what it says: whom it is about may be protected, or too many denied already.
    pub(crate) fn may_stand(&self, order: &Order, now: Timestamp) -> Result<(), Refusal> {
        let protected = self.config.enforce.protects(&order.subject.principal);
        if protected && order.level > Level::Watched && !order.overrides(Override::Protected) {
            return Err(Refusal::Protected(order.subject.identity()));
        }
        let Subject { workload, instance, .. } = &order.subject;
        if workload.is_some() && instance.is_none() && order.level > Level::Watched {
            return Err(Refusal::Shared(order.subject.identity()));
        }
        if !order.denies() || order.overrides(Override::MaxShare) {
            return Ok(());
        }
        let identity = order.subject.identity();
        let others = self.denied().into_iter().filter(|other| *other != identity).count();
        let most = self.most_denied(now);
        if others >= most { Err(Refusal::BlastRadius { denied: others, most }) } else { Ok(()) }
    }

    /// What whoever sets an entry should know.
    fn notes_on(&self, order: &Order) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(pause) = &self.orders.pause {
            notes.push(format!(
                "all enforcement is paused by {}: it is a shadow until that ends, or `qualm resume`",
                pause.by
            ));
        }
        if !order.enforce {
            notes.push(
                "the mode of the configuration is shadow: it is marked in the mesh's log and denies nothing; to let it \
                 act all the same, say so (`--act-in-shadow-mode`)"
                    .to_owned(),
            );
        }
        let co_owners = self.co_owners(&order.subject);
        if order.subject.instance.is_none() && !co_owners.is_empty() {
            notes.push(format!("it is about all who share the principal: {}", co_owners.join(", ")));
        }
        if !order.subject.principal.starts_with("spiffe://") {
            notes.push("its name is no SPIFFE ID: proxies that know callers by certificate cannot tell it".to_owned());
        }
        let key = self.key_of(&order.subject.identity());
        let source = key.and_then(|key| self.shards[usize::from(key.0)].sources.get(&key.1));
        if let (Some(instance), Some(key), Some(source)) = (&order.subject.instance, key, source) {
            let names = &self.shards[usize::from(key.0)].names;
            if !source.instances.iter().any(|of| names.text(of.address) == instance) {
                notes.push(format!("it has not been seen to call from {instance}"));
            }
        }
        let standing = key.and_then(|key| self.standings.get(&key)).filter(|standing| !standing.historic);
        if let Some(standing) = standing.filter(|standing| standing.level > order.level) {
            notes.push(format!(
                "on evidence it stands at {} besides, which is what holds; lift it to go below",
                standing.level
            ));
        }
        notes
    }

    fn lift(
        &mut self,
        of: &Instruction,
        (identity, instance): (&str, Option<&str>),
        hold: Option<Span>,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<Obeyed, Refusal> {
        if self.subject_of(identity).is_none() && self.orders.hold(identity).is_none() {
            return Err(Refusal::Unknown(identity.to_owned()));
        }
        let is_meant = |subject: &Subject| instance.is_none() || subject.instance.as_deref() == instance;
        let orders: Vec<Subject> =
            self.orders.about(identity).map(|order| order.subject.clone()).filter(is_meant).collect();
        let key = self.key_of(identity);
        let standing = key.filter(|key| self.standings.get(key).is_some_and(|standing| is_meant(&standing.subject)));
        let is_held = instance.is_none() && self.orders.hold(identity).is_some_and(|hold| hold.until > of.at);
        if orders.is_empty() && standing.is_none() && !is_held && hold.is_none() {
            return Err(Refusal::NothingStands(identity.to_owned()));
        }
        if hold.is_some() && !self.orders.has_room_for_hold(identity, of.at) {
            return Err(Refusal::TooMany(self.orders.holds().count()));
        }
        let before = verdicts.len();
        for subject in &orders {
            if let Some(order) = self.orders.remove(subject) {
                let by = Ordered { by: of.by.clone(), why: of.why.clone(), ..order.by.clone() };
                verdicts.push(self.ordered_end(&Order { by, ..order }, of.at));
            }
        }
        verdicts.extend(standing.and_then(|key| self.lift_standing(key, of)));
        if instance.is_none() || standing.is_some() {
            self.forget_evidence(identity);
            self.orders.put_hold(hold_of(of, identity, hold));
        }
        let mut notes = Vec::new();
        if hold.is_none() && standing.is_some() {
            notes.push(
                "what it did so far counts no more; what it does from now on does (keep it out for a time with a hold)"
                    .to_owned(),
            );
        }
        if is_held && hold.is_none() {
            notes.push("the hold on it has ended".to_owned());
        }
        Ok(Obeyed { ended: verdicts.len() - before, notes })
    }

    /// Ends where evidence has led.
    fn lift_standing(&mut self, key: SourceKey, of: &Instruction) -> Option<Verdict> {
        let standing = self.standings.remove(&key)?;
        if standing.historic {
            return None;
        }
        self.incidents.leave(&standing.subject.identity());
        let source = self.shards[usize::from(key.0)].sources.get(&key.1);
        Some(Verdict {
            time: of.event,
            decided: of.at,
            namespace: source.and_then(|source| source.namespace.as_deref()).map(str::to_owned),
            level: Level::Trusted,
            previous: standing.level,
            cause: Cause::Lifted,
            evidence_bits: source.map_or(0.0, |source| source.shown_bits),
            decision: standing.decision.clone(),
            episode: standing.episode,
            instances: source.map(|source| self.live_instances(key.0, source, of.event)).unwrap_or_default(),
            order: Some(Ordered { by: of.by.clone(), why: of.why.clone(), ..Ordered::default() }),
            ..self.blank(&standing.subject, of.at)
        })
    }

    /// What there was against an identity counts no more.
    fn forget_evidence(&mut self, identity: &str) {
        let Some(key) = self.key_of(identity) else { return };
        let Some(source) = self.shards[usize::from(key.0)].source_to_change(key.1) else { return };
        (source.evidence, source.claimed, source.other) = (Evidence::default(), None, Other::default());
        (source.episode, source.shown_bits, source.carriers) = (None, 0.0, None);
        source.instances.iter_mut().for_each(|instance| instance.odds = 0.0);
    }

    /// Whether an operator has said that an identity does not enter this level on behaviour of `now`.
    pub(crate) fn is_held_back(&mut self, key: SourceKey, level: Level, now: Timestamp, wall: Timestamp) -> bool {
        if self.orders.holds().next().is_none() {
            return false;
        }
        let identity = self.identity_of(key).to_owned();
        let Some(hold) = self.orders.hold_mut(&identity) else { return false };
        if now <= hold.lifted || wall < hold.until {
            if level > hold.kept_from && now > hold.lifted {
                hold.kept_from = level;
                self.tally.held_back += 1;
            }
            return true;
        }
        if std::mem::take(&mut hold.is_retold) {
            // What was read again after a crash is of before it was lifted.
            self.forget_evidence(&identity);
            return true;
        }
        false
    }

    /// Ends what of it has run out by `wall`.
    pub(crate) fn end_orders(&mut self, wall: Timestamp, verdicts: &mut Vec<Verdict>) {
        for order in self.orders.end(wall) {
            verdicts.push(Verdict { order: None, ..self.ordered_end(&order, wall) });
        }
        self.orders.end_holds(wall);
        if self.orders.pause.as_ref().is_some_and(|pause| pause.until <= wall) {
            self.orders.pause = None;
        }
    }

    /// Identities that are denied, but for a pause, in the order of their names.
    pub(crate) fn denied(&self) -> std::collections::BTreeSet<String> {
        let standings = self.standings.values().filter(|standing| standing.denies());
        let orders = self.orders.iter().filter(|order| order.denies());
        let subjects = standings.map(|standing| &standing.subject).chain(orders.map(|order| &order.subject));
        subjects.map(Subject::identity).collect()
    }

    /// The key of an identity that is known by name.
    pub(crate) fn key_of(&self, identity: &str) -> Option<SourceKey> {
        let shard = shard_of(identity);
        Some((shard, self.shards[usize::from(shard)].names.known(identity)?))
    }

    /// The principal and cluster of an identity: of one that calls or has called, or about which something stands.
    fn subject_of(&self, identity: &str) -> Option<Subject> {
        let key = self.key_of(identity);
        let source = key.and_then(|key| self.shards[usize::from(key.0)].sources.get(&key.1));
        if let Some(source) = source {
            let cluster = source.cluster.as_deref().map(str::to_owned);
            let workload = source.workload.as_deref().map(str::to_owned);
            return Some(Subject { principal: source.principal.to_string(), cluster, workload, instance: None });
        }
        let standing = key.and_then(|key| self.standings.get(&key)).map(|standing| &standing.subject);
        let known = standing.or_else(|| self.orders.about(identity).next().map(|order| &order.subject));
        known.map(|subject| Subject { instance: None, ..subject.clone() })
    }

    /// What is told of an entry that was set, or does something else from now on.
    pub(crate) fn ordered(&self, order: &Order, previous: Level, wall: Timestamp) -> Verdict {
        Verdict {
            time: order.event,
            level: order.level,
            previous,
            lease: Some(order.expires - wall),
            expires: Some(order.expires),
            decision: order.decision.clone(),
            episode: order.event,
            enforce: order.enforce,
            order: Some(order.by.clone()),
            ..self.blank(&order.subject, wall)
        }
    }

    /// What is told of an entry that has ended.
    fn ordered_end(&self, order: &Order, wall: Timestamp) -> Verdict {
        let ended = self.ordered(order, order.level, wall);
        Verdict { level: Level::Trusted, lease: None, expires: None, enforce: false, ..ended }
    }

    /// A verdict of an operator, before it says anything.
    fn blank(&self, subject: &Subject, wall: Timestamp) -> Verdict {
        Verdict {
            time: wall,
            decided: wall,
            identity: subject.identity(),
            namespace: None,
            subject: subject.clone(),
            object: Object::Any,
            level: Level::Trusted,
            previous: Level::Trusted,
            cause: Cause::Ordered,
            pace: None,
            evidence_bits: 0.0,
            threshold_bits: 0.0,
            per_day: 0.0,
            m: 0.0,
            threshold: 0.0,
            lease: None,
            expires: None,
            decision: String::new(),
            episode: wall,
            historic: false,
            enforce: false,
            held: None,
            held_by: None,
            dependants: None,
            instances: Vec::new(),
            co_owners: self.co_owners(subject),
            reasons: Vec::new(),
            carried_by: Vec::new(),
            announced: None,
            incident: None,
            order: None,
            paused: self.orders.is_paused(),
            grounds: None,
        }
    }
}

fn hold_of(of: &Instruction, identity: &str, hold: Option<Span>) -> Hold {
    Hold {
        identity: identity.to_owned(),
        by: of.by.clone(),
        why: of.why.clone(),
        lifted: of.event,
        until: of.at + hold.unwrap_or_default(),
        kept_from: Level::Trusted,
        is_retold: false,
    }
}
