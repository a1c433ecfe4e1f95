//! What is told of pods enters the loop as a command: journalled as far as it is news, at the event time of now.

use qualm_ingest::kubernetes::{PodNews, Told};
use qualm_model::identity::Tenancy;

use super::{Pipeline, journal::Command};

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
                let news = self.state.scorer.take_all_tenancies(&cluster, pods, unseen);
                self.journal_pods(&news);
            }
            Told::Changed(pods) => {
                let news = self.state.scorer.take_tenancies(pods);
                self.journal_pods(&news);
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

    fn journal_pods(&mut self, news: &[Tenancy]) {
        for pods in news.chunks(IN_A_RECORD) {
            self.journal_command(&Command::Pods { pods });
        }
    }
}
