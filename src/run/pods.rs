//! Which of the watched clusters tell of their pods, and what is said of those that do not.

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use qualm_ingest::kubernetes::{KubernetesConfig, PodNews, PodWatch};
use qualm_model::time::{Clock, Span, Timestamp};
use qualm_scorer::scorer::PodAddresses;
use tokio::sync::mpsc;

/// News that wait for the loop; a watch waits where there are more.
const WAITING: usize = 64;
/// An API that is away for so long is told of where readiness is.
const AWAY: Span = Span::MINUTE;

/// All watches.
pub(crate) struct Pods {
    pub(crate) news: mpsc::Receiver<PodNews>,
    clusters: Vec<Cluster>,
    shown: Option<Shown>,
}

/// One section.
struct Cluster {
    name: String,
    /// Whether its API answered before.
    is_known: bool,
    lost: Option<(Timestamp, String)>,
}

/// The metrics, where there are clusters to tell of.
struct Shown {
    connected: IntGaugeVec,
    pods: IntGauge,
    addresses: IntGauge,
    forgotten: IntGauge,
}

impl Pods {
    /// Watches the clusters of the configuration, each on a task of its own.
    ///
    /// # Errors
    /// What a section names cannot be used. An API that does not answer is no error: what is known of its pods stands.
    pub(crate) async fn start(
        sections: &[KubernetesConfig],
        clock: &Clock,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let (sender, news) = mpsc::channel(WAITING);
        let mut clusters = Vec::new();
        for (number, section) in sections.iter().enumerate() {
            let watch = PodWatch::open(section).await?;
            if !watch.is_verified() {
                tracing::warn!(api = watch.address(), "the kubeconfig has the API server's certificate not verified");
            }
            let name = if section.cluster.is_empty() { watch.address().to_owned() } else { section.cluster.clone() };
            clusters.push(Cluster { name, is_known: false, lost: None });
            tokio::spawn(watch.run(number, clock.clone(), sender.clone()));
        }
        let shown = if clusters.is_empty() { None } else { Some(Shown::register(registry)?) };
        Ok(Self { news, clusters, shown })
    }

    /// The API of a section answers, or not since then.
    pub(crate) fn note(&mut self, section: usize, lost: Option<(Timestamp, String)>) {
        let Some(cluster) = self.clusters.get_mut(section) else { return };
        match &lost {
            Some((_, problem)) => {
                tracing::warn!(
                    cluster = cluster.name,
                    problem,
                    "the Kubernetes API is away: what is known of its pods stands"
                );
            }
            None if cluster.lost.is_some() => {
                tracing::info!(cluster = cluster.name, "the Kubernetes API answers again");
            }
            None => {}
        }
        cluster.is_known |= lost.is_none();
        cluster.lost = lost;
    }

    /// Shows what is known, and says of whom nothing is heard.
    pub(crate) fn show(&self, known: PodAddresses, wall: Timestamp) -> Vec<String> {
        let Some(shown) = &self.shown else { return Vec::new() };
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        shown.pods.set(count(known.pods));
        shown.addresses.set(count(known.kept));
        shown.forgotten.set(i64::try_from(known.forgotten).unwrap_or(i64::MAX));
        for cluster in &self.clusters {
            let is_connected = cluster.is_known && cluster.lost.is_none();
            shown.connected.with_label_values(&[&cluster.name]).set(i64::from(is_connected));
        }
        let away = self.clusters.iter().filter_map(|cluster| Some((cluster, cluster.lost.as_ref()?)));
        let away = away.filter(|(_, (since, _))| wall - *since >= AWAY);
        away.map(|(cluster, (_, problem))| {
            let name = &cluster.name;
            format!("{name}: the Kubernetes API does not answer, pods that came since are not known by name: {problem}")
        })
        .collect()
    }
}

impl Shown {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let help = "1 where the Kubernetes API of a cluster tells of its pods, else 0.";
        let connected = IntGaugeVec::new(Opts::new("qualm_kubernetes_connected", help), &["cluster"])?;
        registry.register(Box::new(connected.clone()))?;
        Ok(Self {
            connected,
            pods: gauge("qualm_kubernetes_pods", "Pods that the Kubernetes API told of and that have not ended.")?,
            addresses: gauge("qualm_kubernetes_addresses", "Addresses of pods that are known, those left lately too.")?,
            forgotten: gauge("qualm_kubernetes_addresses_forgotten", "Addresses forgotten for want of room.")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_api_that_is_away_is_told_of_after_a_minute_and_until_it_answers() {
        let clock = Clock::new(|| Timestamp(0));
        let mut pods = Pods::start(&[], &clock, &Registry::new()).await.expect("nothing to watch");
        let at = Timestamp::from_seconds;
        assert!(pods.show(PodAddresses::default(), at(0)).is_empty());
        pods.clusters.push(Cluster { name: "east".to_owned(), is_known: false, lost: None });
        let registry = Registry::new();
        pods.shown = Some(Shown::register(&registry).expect("a new registry"));
        let connected = |registry: &Registry| {
            let families = registry.gather();
            let family =
                families.iter().find(|family| family.name() == "qualm_kubernetes_connected").expect("it is there");
            family.get_metric()[0].get_gauge().get_value()
        };
        pods.note(0, None);
        assert!(pods.show(PodAddresses::default(), at(0)).is_empty());
        assert_eq!(connected(&registry), 1.0);
        pods.note(0, Some((at(100), "refused".to_owned())));
        assert!(pods.show(PodAddresses::default(), at(159)).is_empty());
        assert_eq!(connected(&registry), 0.0);
        let [note] = pods.show(PodAddresses::default(), at(160)).try_into().expect("one");
        assert!(note.starts_with("east: the Kubernetes API") && note.ends_with("refused"), "{note}");
        pods.note(0, None);
        assert!(pods.show(PodAddresses::default(), at(170)).is_empty());
    }
}
