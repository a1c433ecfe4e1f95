//! A new scorer, and what it is told of its inputs before it reads them.

use std::collections::BTreeMap;

use qualm_model::{detector::Question, event::Filter, evidence::Questions, level::Level, time::Span};

use super::{Scorer, Tally};
use crate::{
    config::ScorerConfig,
    door::Door,
    estate::{Estate, Tenancies},
    incidents::Incidents,
    limiting::Knowns,
    mesh::Mesh,
    operator::{accepted::Acceptances, announced::Announcements, orders::Orders},
    order::Order,
    peers::PeerGroups,
    shard::{SHARDS, Shard},
    snapshot::Reach,
    standings::Standings,
    watermark::Watermark,
    withheld::Statistics,
    workloads::Workloads,
};

impl Scorer {
    /// A scorer that knows nothing yet.
    pub fn new(config: ScorerConfig) -> Self {
        let mut mesh = Mesh::default();
        mesh.pauses.set(&config.learning);
        Self {
            limit: config.memory.baselines_mib << 20,
            config,
            max_levels: Vec::new(),
            filters: Vec::new(),
            calls_a_record: 1.0,
            latenesses: Vec::new(),
            inputs: Vec::new(),
            left_aside: Questions::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            mesh,
            watermark: Watermark::default(),
            standings: Standings::default(),
            announced: Announcements::default(),
            withheld: Statistics::default(),
            accepted: Acceptances::default(),
            waiting: BTreeMap::new(),
            weighed: None,
            incidents: Incidents::default(),
            orders: Orders::default(),
            used: 0,
            tally: Tally::default(),
            came: BTreeMap::new(),
            collecting: None,
            reach: Reach::default(),
            sweep_due: false,
            order: Order::default(),
            estate: Estate::default(),
            tenancies: Tenancies::default(),
            workloads: Workloads::default(),
            knowns: Knowns::default(),
            config_hash: String::new(),
            peers: PeerGroups::default(),
            door: Door::default(),
        }
    }

    /// Gives no weight to the answers to these questions: what one is worth is what is lost without it. Not in a snapshot,
    /// as it is for measurements alone.
    pub fn leave_aside(&mut self, questions: impl IntoIterator<Item = Question>) {
        self.left_aside = questions.into_iter().collect();
    }

    /// The highest level that records of each source (by its index) may lead to; all, where not said.
    pub fn limit_sources(&mut self, max_levels: Vec<Level>) {
        self.max_levels = max_levels;
    }

    /// What is left out of each source (by its index) before it comes here; nothing, where not said.
    pub fn filter_sources(&mut self, filters: Vec<Filter>) {
        self.filters = filters;
    }

    /// How many calls a record stands for, 1 where not said: a number of calls that leaves Qualm, as what proxies let pass
    /// of a throttled caller, is that of the records times this. Nothing is judged by it: what is usual of a sample was
    /// learned of a sample. Infinite where nobody knows: then no number is told that could be too small.
    pub fn scale_counts(&mut self, calls_a_record: f64) {
        self.calls_a_record = calls_a_record;
    }

    /// How far behind the watermark the events of each source (by its index) may come and still be learned, and still be
    /// laid beside the other end's report of the same call; five minutes, where not said.
    pub fn wait_for_sources(&mut self, latenesses: Vec<Span>) {
        self.estate.wait_for(&latenesses);
        self.latenesses = latenesses;
    }

    /// What each source (by its index) is called where records are named.
    pub fn name_sources(&mut self, names: Vec<String>) {
        self.inputs = names;
    }
}
