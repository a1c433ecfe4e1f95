//! What waits for one sink: bounded, in order, and never lossy about the latest state of an episode it holds.

use std::{
    collections::VecDeque,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashMap;
use tokio::sync::Notify;

use super::finding::Finding;
use crate::journal::Seq;

/// An alert and the journal record that says it is due.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Due {
    pub(super) seq: Seq,
    pub(super) finding: Finding,
}

/// What a full outbox did with an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits, and nothing else was touched.
    Queued,
    /// So many older states of episodes were replaced by newer ones.
    Merged(u64),
    /// Every place is taken by another episode.
    Dropped,
}

#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    capacity: usize,
    wake: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Due>,
    /// How often each episode stands in the queue.
    episodes: HashMap<String, usize, foldhash::fast::RandomState>,
    in_flight: bool,
}

impl Outbox {
    pub(super) fn new(capacity: usize) -> Self {
        Self { waiting: Mutex::default(), capacity: capacity.max(1), wake: Notify::new(), emptied: Notify::new() }
    }

    /// Queues the alert. When the outbox is full, only the latest state of each episode keeps waiting.
    pub(super) fn offer(&self, due: Due) -> Offered {
        let offered = self.lock().offer(due, self.capacity);
        self.wake.notify_one();
        offered
    }

    /// The alert that has waited longest; [`Self::settle`] must follow.
    pub(super) async fn next(&self) -> Due {
        loop {
            if let Some(due) = self.lock().pop() {
                return due;
            }
            self.wake.notified().await;
        }
    }

    /// What [`Self::next`] gave out is done with.
    pub(super) fn settle(&self) {
        let mut waiting = self.lock();
        waiting.in_flight = false;
        if waiting.queue.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until nothing waits and nothing is on its way.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Registered before looking, so that no wake-up in between is missed.
            emptied.as_mut().enable();
            if self.depth() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Alerts that wait or are on their way.
    pub(super) fn depth(&self) -> usize {
        let waiting = self.lock();
        waiting.queue.len() + usize::from(waiting.in_flight)
    }

    /// A panic elsewhere cannot leave the queue half-changed.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn offer(&mut self, due: Due, capacity: usize) -> Offered {
        if self.queue.len() < capacity {
            self.push(due);
            return Offered::Queued;
        }
        let before = self.queue.len();
        let is_known = self.episodes.contains_key(&due.finding.uid);
        if !is_known && self.episodes.len() >= capacity {
            return Offered::Dropped;
        }
        self.push(due);
        self.merge();
        Offered::Merged((before + 1 - self.queue.len()) as u64)
    }

    fn push(&mut self, due: Due) {
        *self.episodes.entry_ref(due.finding.uid.as_str()).or_default() += 1;
        self.queue.push_back(due);
    }

    fn pop(&mut self) -> Option<Due> {
        let due = self.queue.pop_front()?;
        self.in_flight = true;
        if let Some(count) = self.episodes.get_mut(&due.finding.uid) {
            *count -= 1;
            if *count == 0 {
                self.episodes.remove(&due.finding.uid);
            }
        }
        Some(due)
    }

    /// Leaves one state of each episode, at the place where its oldest stood.
    fn merge(&mut self) {
        self.episodes.clear();
        let mut merged: VecDeque<Due> = VecDeque::with_capacity(self.queue.len());
        for due in mem::take(&mut self.queue) {
            match self.episodes.get(&due.finding.uid) {
                Some(&place) => {
                    let older = &merged[place].finding;
                    merged[place] = Due { seq: due.seq, finding: due.finding.superseding(older) };
                }
                None => {
                    self.episodes.insert(due.finding.uid.clone(), merged.len());
                    merged.push_back(due);
                }
            }
        }
        self.episodes.values_mut().for_each(|place| *place = 1);
        self.queue = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::finding, *};
    use crate::notify::Activity;

    fn due(seq: u64, uid: &str, activity: Activity) -> Due {
        Due { seq: Seq(seq), finding: Finding { uid: uid.to_owned(), activity, ..finding() } }
    }

    async fn drain(outbox: &Outbox) -> Vec<(u64, String, Activity)> {
        let mut drained = Vec::new();
        while outbox.depth() > 0 {
            let due = outbox.next().await;
            outbox.settle();
            drained.push((due.seq.0, due.finding.uid, due.finding.activity));
        }
        drained
    }

    #[tokio::test]
    async fn with_room_every_state_is_told_in_order() {
        let outbox = Outbox::new(8);
        assert_eq!(outbox.offer(due(1, "a", Activity::Create)), Offered::Queued);
        assert_eq!(outbox.offer(due(2, "a", Activity::Update)), Offered::Queued);
        assert_eq!(
            drain(&outbox).await,
            [(1, "a".to_owned(), Activity::Create), (2, "a".to_owned(), Activity::Update)]
        );
    }

    #[tokio::test]
    async fn a_full_outbox_keeps_the_latest_state_of_each_episode() {
        let outbox = Outbox::new(3);
        outbox.offer(due(1, "a", Activity::Create));
        outbox.offer(due(2, "b", Activity::Update));
        outbox.offer(due(3, "a", Activity::Update));
        assert_eq!(outbox.offer(due(4, "b", Activity::Close)), Offered::Merged(2));
        assert_eq!(outbox.offer(due(5, "c", Activity::Create)), Offered::Queued);
        assert_eq!(outbox.offer(due(6, "d", Activity::Create)), Offered::Dropped);
        assert_eq!(outbox.offer(due(7, "c", Activity::Update)), Offered::Merged(1));
        let expected = [
            // Nobody has heard of `a` and `c` yet: for the reader they begin.
            (3, "a".to_owned(), Activity::Create),
            (4, "b".to_owned(), Activity::Close),
            (7, "c".to_owned(), Activity::Create),
        ];
        assert_eq!(drain(&outbox).await, expected);
    }

    #[tokio::test]
    async fn what_was_taken_out_makes_room_again() {
        let outbox = Outbox::new(1);
        for seq in 1..=5 {
            assert_eq!(outbox.offer(due(seq, &format!("uid-{seq}"), Activity::Create)), Offered::Queued);
            assert_eq!(outbox.next().await.seq, Seq(seq));
            outbox.settle();
        }
    }
}
