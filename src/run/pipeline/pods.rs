//! What is told of pods enters the loop as a command: journalled as far as it is news, at the event time of now.

use qualm_ingest::kubernetes::{PodNews, Told};
use qualm_model::{identity::Tenancy, time::Span};
use qualm_scorer::operator::Ask;

use super::{Pipeline, journal::Command};
use crate::{operator::Request, run::rollouts::Rollout};

/// Pods in one record of the journal.
const IN_A_RECORD: usize = 256;

impl Pipeline {
    pub(super) fn hear_of_pods(&mut self, news: PodNews) {
        let PodNews { section, what } = news;
        match what {
            Told::All { pods, unseen } => {
                self.pods.note(section, None);
                let sections = &self.setup.config.kubernetes;
                let Some(cluster) = sections.get(section).map(|section| section.cluster.clone()) else { return };
                // What the last run knew was last seen when that ended.
                let now = self.setup.clock.now();
                let unseen = unseen.or_else(|| self.state.scorer.watermark()).unwrap_or(now).min(now);
                let rollouts = self.rollouts.see(&pods);
                let news = self.state.scorer.take_all_tenancies(&cluster, pods, unseen);
                self.journal_pods(&news);
                self.announce_rollouts(section, rollouts);
            }
            Told::Changed(pods) => {
                let rollouts = self.rollouts.see(&pods);
                let news = self.state.scorer.take_tenancies(pods);
                self.journal_pods(&news);
                self.announce_rollouts(section, rollouts);
            }
            Told::Lost { problem, since } => self.pods.note(section, Some((since, problem))),
            Told::Heard => self.pods.note(section, None),
        }
        // An address may be another pod's by now, which has done nothing.
        let wall = self.setup.clock.now();
        self.state.scorer.spare_addresses(wall, &mut self.verdicts);
        if !self.verdicts.is_empty() {
            self.act(None);
        }
    }

    /// Announces rollouts, where the section says so: once each, as their key is the same whenever they are seen.
    fn announce_rollouts(&mut self, section: usize, rollouts: Vec<Rollout>) {
        let Some(of) = self.setup.config.kubernetes.get(section).filter(|of| of.announce_rollouts_s > 0) else {
            return;
        };
        let (cluster, lasts) = (of.cluster.clone(), Span::seconds(i64::from(of.announce_rollouts_s)));
        for Rollout { service, workload, template, key } in rollouts {
            let by = if cluster.is_empty() { "kubernetes".to_owned() } else { format!("kubernetes {cluster}") };
            let ask = Ask::Announce { service, cluster: Some(cluster.clone()).filter(|of| !of.is_empty()), lasts };
            let request = Request { by, why: format!("{workload} has pods of template {template}"), key, ask };
            if let Err(refusal) = self.carry_out(request) {
                tracing::warn!(%refusal, workload, template, "a rollout is not announced");
            }
        }
    }

    fn journal_pods(&mut self, news: &[Tenancy]) {
        for pods in news.chunks(IN_A_RECORD) {
            self.journal_command(&Command::Pods { pods });
        }
    }
}
