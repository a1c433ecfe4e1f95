//! The engine: a thread that keeps the ledger, and one for each hook. Nobody waits for it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel},
    },
    thread,
    time::Duration,
};

use qualm_model::time::{Clock, Span, Timestamp};

use crate::{
    config::{HookConfig, InvalidHook},
    effect::{State, Stored, Word},
    ledger::{Job, Ledger, Outcome, Refusal, Told},
    metrics::HookMetrics,
    order::Order,
    outbox::{Outbox, OutboxError},
    policy::{HookFact, ResponseConfig},
    ruling::{PolicyTold, Ruling},
    worker,
};

/// The engine looks around this often, whatever happens.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Notes on the readiness page.
const NOTES: usize = 8;

/// Hooks that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEngine {
    /// A hook's configuration.
    #[error(transparent)]
    Hook(#[from] InvalidHook),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The response policy, and there is none from before.
    #[error("[response] {0}; `qualm policy test` tries it")]
    Policy(String),
    /// No thread.
    #[error("hooks: no thread: {0}; raise the limit on threads")]
    Thread(#[from] std::io::Error),
}

/// What is asked of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Let it be done.
    Approve,
    /// Keep it from being done.
    Reject,
    /// Take it back.
    Undo,
}

/// Who hears of an answer.
type Answer = Box<dyn FnOnce(Result<Stored, Refusal>) + Send>;

enum Message {
    Wake,
    Word { verb: Verb, id: String, by: String, why: String, answer: Answer },
    Done(Box<Job>, Outcome),
    Policy(ResponseConfig),
    Stop,
}

/// What is shown of hooks.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// All effects, those that are over included.
    pub effects: Vec<Stored>,
    /// What there is to know, for `/readyz`.
    pub notes: Vec<String>,
}

/// A handle on the running hooks.
#[derive(Clone)]
pub struct Hooks {
    sender: Sender<Message>,
    orders: Arc<Mutex<Option<Vec<Order>>>>,
    view: Arc<Mutex<View>>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

/// What the engine is given.
pub struct Setting {
    /// Wall time.
    pub clock: Clock,
    /// A number from 0 to 1, another one each time.
    pub jitter: Box<dyn FnMut() -> f64 + Send>,
    /// Hears of everything that happens, on the engine's thread; may block it.
    pub told: Box<dyn FnMut(Told) + Send>,
    /// Hears what becomes of the response policy, on the same thread.
    pub policy_told: Box<dyn FnMut(PolicyTold) + Send>,
    /// What is counted.
    pub metrics: HookMetrics,
}

impl Hooks {
    /// Opens the outbox in `directory` and starts the threads.
    ///
    /// # Errors
    /// A hook's configuration, the outbox or the system does not allow it.
    pub fn start(
        configs: &[HookConfig],
        response: &ResponseConfig,
        directory: &Path,
        setting: Setting,
    ) -> Result<Self, InvalidEngine> {
        let (outbox, kept) = Outbox::open(directory)?;
        let (sender, messages) = channel();
        let (mut rules, mut workers) = (BTreeMap::new(), BTreeMap::new());
        for config in configs {
            let hook = config.build(&setting.clock)?;
            rules.insert(config.name.clone(), config.rules(hook.nature()));
            let back = sender.clone();
            let done = move |job, outcome| {
                // The engine may have stopped.
                let _ = back.send(Message::Done(Box::new(job), outcome));
            };
            workers.insert(config.name.clone(), worker::start(&config.name, hook, setting.clock.clone(), done)?);
        }
        let of = |config: &HookConfig| Some(HookFact::of(config, rules.get(&config.name)?));
        let facts: Vec<HookFact> = configs.iter().filter_map(of).collect();
        let ruling = Ruling::start(response, directory.to_owned(), &facts).map_err(InvalidEngine::Policy)?;
        let (orders, view) = (Arc::<Mutex<_>>::default(), Arc::<Mutex<View>>::default());
        let mut engine = Engine {
            ledger: Ledger::new(rules, kept, setting.jitter),
            outbox,
            workers,
            facts,
            ruling,
            standing: Vec::new(),
            orders: Arc::clone(&orders),
            view: Arc::clone(&view),
            clock: setting.clock,
            told: setting.told,
            policy_told: setting.policy_told,
            metrics: setting.metrics,
        };
        engine.show();
        thread::Builder::new().name("hooks".to_owned()).spawn(move || engine.run(&messages))?;
        Ok(Self { sender, orders, view })
    }

    /// Tells what stands now; only the latest counts.
    pub fn orders(&self, standing: Vec<Order>) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
        let _ = self.sender.send(Message::Wake);
    }

    /// Has the response policy read again. One that is broken, or cannot say something of everything that stands, is
    /// refused, and the one of before goes on.
    pub fn policy(&self, response: &ResponseConfig) {
        let _ = self.sender.send(Message::Policy(response.clone()));
    }

    /// Says a person's word; `answer` hears what became of it.
    pub fn word(
        &self,
        verb: Verb,
        id: String,
        (by, why): (String, String),
        answer: impl FnOnce(Result<Stored, Refusal>) + Send + 'static,
    ) {
        let _ = self.sender.send(Message::Word { verb, id, by, why, answer: Box::new(answer) });
    }

    /// Ends the threads; what is under way is looked at again at the next start.
    pub fn stop(&self) {
        let _ = self.sender.send(Message::Stop);
    }

    /// What is shown now.
    pub fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What there is to know, for `/readyz`.
    pub fn notes(&self) -> Vec<String> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).notes.clone()
    }
}

struct Engine {
    ledger: Ledger,
    outbox: Outbox,
    workers: BTreeMap<String, SyncSender<Job>>,
    facts: Vec<HookFact>,
    ruling: Ruling,
    standing: Vec<Order>,
    orders: Arc<Mutex<Option<Vec<Order>>>>,
    view: Arc<Mutex<View>>,
    clock: Clock,
    told: Box<dyn FnMut(Told) + Send>,
    policy_told: Box<dyn FnMut(PolicyTold) + Send>,
    metrics: HookMetrics,
}

impl Engine {
    /// Runs until it is told to stop. The workers end with it.
    fn run(&mut self, messages: &Receiver<Message>) {
        // Before it was told the first time nothing is known to have ended.
        let mut known = false;
        loop {
            // Here and not where it starts: whoever hears may block this thread, and no other.
            self.ruling.told().into_iter().for_each(&mut self.policy_told);
            let mut is_due = false;
            let now = self.clock.now();
            let pause = self.ledger.next().map_or(AT_LEAST, |next| until(next, now)).min(AT_LEAST);
            match messages.recv_timeout(pause) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Message::Policy(response)) => {
                    self.ruling.reload(&response, &self.standing, &self.facts);
                    is_due = known;
                }
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let standing = self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(standing) = standing {
                self.standing = standing;
                known = true;
                is_due = true;
            }
            if is_due {
                self.decide();
            }
            if known {
                let jobs = self.ledger.turn(&self.outbox, self.clock.now());
                for job in jobs {
                    if let Some(worker) = self.workers.get(&job.key.hook) {
                        // Its thread lives as long as this one.
                        let _ = worker.send(job);
                    }
                }
            }
            self.show();
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Wake | Message::Stop | Message::Policy(_) => {}
            Message::Done(job, outcome) => self.ledger.outcome(&job, outcome, now),
            Message::Word { verb, id, by, why, answer } => {
                let word = Word { by, why, at: now };
                answer(match verb {
                    Verb::Approve => self.ledger.approve(&id, word, now),
                    Verb::Reject => self.ledger.reject(&id, word, now),
                    Verb::Undo => self.ledger.undo(&id, word, now),
                });
            }
        }
    }

    /// Asks the policy about everything that stands.
    fn decide(&mut self) {
        let wanted = self.ruling.decide(&self.standing, &self.facts, &self.ledger.effects());
        self.ledger.want(wanted, self.clock.now());
    }

    fn show(&mut self) {
        for told in self.ledger.told() {
            self.metrics.told(&told);
            (self.told)(told);
        }
        self.metrics.show(self.ledger.effects(), self.ruling.is_troubled());
        let view = View { effects: self.ledger.effects().cloned().collect(), notes: self.notes() };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.ruling.notes().collect();
        notes.extend(self.ledger.disk().map(|disk| format!("{disk}; hooks do nothing until then")));
        if self.ledger.beyond() > 0 {
            notes.push(format!("{} effects of hooks had no room and were not begun", self.ledger.beyond()));
        }
        let awaiting = self.ledger.effects().filter(|of| of.state == State::Awaiting).count();
        if awaiting > 0 {
            notes.push(format!("{awaiting} effects of hooks wait for approval: qualm hooks list"));
        }
        let failing = self.ledger.effects().filter(|of| !of.state.is_ended() && of.problem.is_some());
        let failing = failing.map(|of| {
            let problem = of.problem.as_deref().unwrap_or_default();
            format!("hook {} about {} ({}): {problem}", of.key.hook, of.key.subject, of.state.as_str())
        });
        notes.extend(failing.take(NOTES));
        notes
    }
}

fn until(next: Timestamp, now: Timestamp) -> Duration {
    let left: Span = next - now;
    Duration::from_nanos(u64::try_from(left.0).unwrap_or(0))
}
