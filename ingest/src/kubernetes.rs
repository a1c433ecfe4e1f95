//! Pods, as the Kubernetes API tells of them: whose address was whose, and when.
//!
//! All pods are listed once and watched from then on. It is off the way of records: what is told here goes to the loop as
//! a command, and where the API is away nothing waits for it. Needed are `get`, `list` and `watch` of `pods`, no more.
//!
//! # Layout
//! - this file: the section, the way to the API, and the task that watches
//! - `pod`: what is read of a pod

mod pod;

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client,
    api::{ApiResource, ListParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};
use qualm_model::{
    identity::Tenancy,
    time::{Clock, Span, Timestamp},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::interval};

use self::pod::Pod;

/// The API server ends a watch after this time, and it is begun anew where it ended. A connection that says nothing at
/// all is given up soon after.
const WATCH_SECONDS: u32 = 120;
/// Pods that are told of together.
const TOGETHER: usize = 256;
/// Pods of one cluster that are listed, as many as addresses are kept.
const MAX_PODS: usize = 1 << 16;
/// While the API is away it is asked so often whether it is back: a watch that goes on says nothing by itself.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// A watch is tried again this long after the API is back, at the latest.
const TRIED_BY: Span = Span::seconds(45);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A `[[kubernetes]]` section: a cluster whose pods are watched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// The cluster's name, as in its records; empty where they have none.
    pub cluster: String,
    /// A kubeconfig file; without one Qualm is in the cluster and has the token of its service account.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the file; without one its current context.
    pub context: Option<String>,
    /// Rollouts of its Deployments are announced for so many seconds, from 60 to 21,600; 0 announces none.
    pub announce_rollouts_s: u32,
}

/// Why pods cannot be watched. Names the section and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The kubeconfig cannot be used.
    #[error("[[kubernetes]] kubeconfig = {file:?}: {problem}; name a file with a cluster, a user and a context")]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no token of a service account.
    #[error(
        "[[kubernetes]]: {problem}; outside of a cluster name a `kubeconfig`, inside let the pod have its service \
         account's token (`qualm wire kubernetes` prints how)"
    )]
    NotInCluster {
        /// What is missing.
        problem: String,
    },
    /// The API does not answer, or refuses.
    #[error("[[kubernetes]] {api}: {problem}{remedy}")]
    Api {
        /// Where it is.
        api: String,
        /// What it says.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// What a cluster's API tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNews {
    /// The section, by its number.
    pub section: usize,
    /// What it is.
    pub what: Told,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// All pods that there are. Others that were known ended by `unseen` at the latest, where that is said.
    All {
        /// The pods.
        pods: Vec<Tenancy>,
        /// When those were last seen that are not among them.
        unseen: Option<Timestamp>,
    },
    /// Pods that came, changed or ended.
    Changed(Vec<Tenancy>),
    /// The API does not answer any more, or never has.
    Lost {
        /// What went wrong.
        problem: String,
        /// When that was found.
        since: Timestamp,
    },
    /// It answers again.
    Heard,
}

/// The way to one cluster's API.
#[derive(Clone)]
pub struct PodWatch {
    cluster: Arc<str>,
    api: Api<Pod>,
    address: String,
    is_verified: bool,
}

impl std::fmt::Debug for PodWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodWatch").field("cluster", &self.cluster).field("address", &self.address).finish()
    }
}

impl KubernetesConfig {
    /// The client of this section's API, for whoever asks it for other things than pods. Nothing is asked yet.
    ///
    /// # Errors
    /// The kubeconfig cannot be used, or there is none and this is no pod.
    pub async fn client(&self) -> Result<Client, KubernetesError> {
        Ok(self.way().await?.client)
    }

    async fn way(&self) -> Result<Way, KubernetesError> {
        let settings = match &self.kubeconfig {
            Some(file) => {
                let wrong = |problem: String| KubernetesError::Kubeconfig {
                    file: file.clone(),
                    problem: in_one_line(&problem),
                };
                let kubeconfig = Kubeconfig::read_from(file).map_err(|error| wrong(error.to_string()))?;
                let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
                let read = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
                read.map_err(|error| wrong(error.to_string()))?
            }
            None => kube::Config::incluster()
                .map_err(|error| KubernetesError::NotInCluster { problem: in_one_line(&error.to_string()) })?,
        };
        let (address, is_verified) = (settings.cluster_url.to_string(), !settings.accept_invalid_certs);
        let client = Client::try_from(settings).map_err(|error| failure(&address, &error))?;
        Ok(Way { client, address, is_verified })
    }
}

/// How an API is reached.
struct Way {
    client: Client,
    address: String,
    is_verified: bool,
}

impl PodWatch {
    /// Reads what the section names. Nothing is asked of the API yet.
    ///
    /// # Errors
    /// The kubeconfig cannot be used, or there is none and this is no pod.
    pub async fn open(section: &KubernetesConfig) -> Result<Self, KubernetesError> {
        let Way { client, address, is_verified } = section.way().await?;
        let pods = ApiResource::erase::<v1::Pod>(&());
        Ok(Self { cluster: section.cluster.as_str().into(), api: Api::all_with(client, &pods), address, is_verified })
    }

    /// Where the API is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the API server has to show a certificate that is checked.
    pub fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// Asks for a pod, whichever.
    ///
    /// # Errors
    /// The API does not answer in ten seconds, or refuses.
    pub async fn probe(&self) -> Result<(), KubernetesError> {
        let asked = tokio::time::timeout(PATIENCE, self.api.list(&ListParams::default().limit(1))).await;
        match asked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failure(&self.address, &error)),
            Err(_) => Err(KubernetesError::Api {
                api: self.address.clone(),
                problem: format!("no answer in {} s", PATIENCE.as_secs()),
                remedy: "; see that the network lets Qualm connect to it",
            }),
        }
    }

    /// Watches, and tells `news`, until nobody listens any more. It never gives up.
    pub async fn run(self, section: usize, clock: Clock, news: mpsc::Sender<PodNews>) {
        let settings = watcher::Config::default().timeout(WATCH_SECONDS);
        // What is waited between two tries doubles up to half a minute.
        let events = watcher(self.api.clone(), settings).default_backoff().ready_chunks(TOGETHER);
        let mut teller = Teller { section, cluster: Arc::clone(&self.cluster), clock, news, listing: None, lost: None };
        let _gone = teller.run(pin!(events), &self).await;
    }
}

type Events = Vec<Result<watcher::Event<Pod>, watcher::Error>>;

/// Nobody listens any more.
struct Gone;

/// The API was away.
#[derive(Debug, Clone, Copy)]
struct Lost {
    since: Timestamp,
    /// When it was back; what happened meanwhile may not have been told then.
    back: Option<Timestamp>,
}

/// Makes news of a watch.
struct Teller {
    section: usize,
    cluster: Arc<str>,
    clock: Clock,
    news: mpsc::Sender<PodNews>,
    /// Pods of a list that is not whole yet.
    listing: Option<Vec<Tenancy>>,
    lost: Option<Lost>,
}

impl Teller {
    async fn run(&mut self, mut events: impl Stream<Item = Events> + Unpin, watch: &PodWatch) -> Result<(), Gone> {
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let probed = async {
                ask.tick().await;
                watch.probe().await.is_ok()
            };
            tokio::select! {
                chunk = events.next() => match chunk {
                    Some(chunk) => self.hear(chunk).await?,
                    None => return Ok(()),
                },
                is_back = probed, if self.is_away() => if is_back { self.come_back().await? },
                () = self.news.closed() => return Err(Gone),
            }
        }
    }

    async fn hear(&mut self, chunk: Events) -> Result<(), Gone> {
        let now = self.clock.now();
        self.lost = self.lost.filter(|lost| lost.back.is_none_or(|back| now - back <= TRIED_BY));
        let lost = self.lost.map(|lost| lost.since);
        // What ended while nobody could see it had ended by then.
        let seen = lost.unwrap_or(now);
        let mut changed = Vec::new();
        for event in chunk {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    self.tell_changed(&mut changed).await?;
                    self.lose(&error, now).await?;
                    continue;
                }
            };
            match event {
                watcher::Event::Apply(pod) => changed.extend(pod::running(&pod, &self.cluster, now)),
                watcher::Event::Delete(pod) => changed.extend(pod::ended(&pod, &self.cluster, seen, now)),
                watcher::Event::Init => self.listing = Some(Vec::new()),
                watcher::Event::InitApply(pod) => {
                    let listing = self.listing.get_or_insert_default();
                    if listing.len() < MAX_PODS {
                        listing.extend(pod::running(&pod, &self.cluster, now));
                    }
                }
                watcher::Event::InitDone => {
                    let (pods, unseen) = (self.listing.take().unwrap_or_default(), lost);
                    if pods.len() >= MAX_PODS {
                        tracing::warn!(cluster = &*self.cluster, pods = MAX_PODS, "more pods than are kept");
                    }
                    self.tell(Told::All { pods, unseen }).await?;
                    self.come_back().await?;
                    self.lost = None;
                }
            }
        }
        if !changed.is_empty() {
            self.tell_changed(&mut changed).await?;
            self.come_back().await?;
            self.lost = None;
        }
        Ok(())
    }

    fn is_away(&self) -> bool {
        self.lost.is_some_and(|lost| lost.back.is_none())
    }

    async fn lose(&mut self, error: &watcher::Error, now: Timestamp) -> Result<(), Gone> {
        // A version that is too old is no loss: the list is asked for again at once.
        let is_expired = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
        if is_expired || self.is_away() {
            return Ok(());
        }
        self.lost = Some(Lost { since: self.lost.map_or(now, |lost| lost.since), back: None });
        self.tell(Told::Lost { problem: in_one_line(&error.to_string()), since: now }).await
    }

    async fn come_back(&mut self) -> Result<(), Gone> {
        let Some(lost) = self.lost.as_mut().filter(|lost| lost.back.is_none()) else { return Ok(()) };
        lost.back = Some(self.clock.now());
        self.tell(Told::Heard).await
    }

    async fn tell_changed(&mut self, changed: &mut Vec<Tenancy>) -> Result<(), Gone> {
        if changed.is_empty() {
            return Ok(());
        }
        self.tell(Told::Changed(std::mem::take(changed))).await
    }

    async fn tell(&mut self, what: Told) -> Result<(), Gone> {
        self.news.send(PodNews { section: self.section, what }).await.map_err(|_| Gone)
    }
}

fn failure(api: &str, error: &kube::Error) -> KubernetesError {
    let (problem, remedy) = match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
            (status.message.clone(), "; let it get, list and watch pods (`qualm wire kubernetes` prints the role)")
        }
        kube::Error::Api(status) => (status.message.clone(), ""),
        other => (with_causes(other), "; see that it runs and that the network lets Qualm connect to it"),
    };
    KubernetesError::Api { api: api.to_owned(), problem: in_one_line(&problem), remedy }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

/// What others say may have lines, and no end.
fn in_one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.trim_end_matches(['.', ' ']).to_owned()
}
