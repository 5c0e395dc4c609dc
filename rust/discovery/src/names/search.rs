//! Asks a name repeatedly for members: often while no peer is linked, and rarely otherwise.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::ready, stream::FuturesUnordered};
use iroh::TransportAddr;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{Name, ask::Asker, candidates::Candidates, resolve::resolve};
use crate::{
    dial::is_plausible,
    events::Event,
    inputs::Input,
    place::Place,
    problems::Problems,
    proto::{EndpointId, TopicId},
    published::Published,
};

/// A round ends with this many answers, as the members behind them know the others. A set of nodes
/// that start together would ask the square of its number else. If each of many nodes is linked
/// with two at random, all are connected (Fenner and Frieze, 1982).
const ENOUGH: usize = 2;
/// As many addresses are asked at first. Without enough answers more are asked after this.
const MORE_AFTER: Duration = Duration::from_secs(1);
/// Most addresses that are asked in one round, and at a time.
const MAX_ASKED: usize = 64;
const AT_A_TIME: usize = 16;
/// In the first minute the delay between two rounds grows to no more than a second while nobody is
/// linked: a set that starts has its name soon. A round that found somebody is soon followed by
/// another one.
const EAGER: Duration = Duration::from_mins(1);
const EAGER_RETRY: Duration = Duration::from_secs(1);
/// While peers are linked, a name is asked this often, so that groups that started apart merge.
const PERIOD: Duration = Duration::from_mins(5);
/// After a peer was lost or left, a name is asked this soon, but not more often than once in
/// [`LOSS_INTERVAL`].
const AFTER_LOSS: Duration = Duration::from_secs(2);
const LOSS_INTERVAL: Duration = Duration::from_secs(30);
/// While the book grows, the next round waits for this, but no longer than the second: most
/// addresses are those of members by then.
const SETTLED: Duration = Duration::from_millis(500);
const PUT_OFF: Duration = Duration::from_secs(2);

/// What a search needs.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) name: Name,
    pub(crate) topic: TopicId,
    pub(crate) own: EndpointId,
    pub(crate) published: Arc<Published>,
    pub(crate) place: watch::Receiver<Place>,
    pub(crate) problems: Problems,
    pub(crate) inputs: mpsc::Sender<Input>,
    /// While no peer is linked, the delay between two rounds grows from the first to the second.
    pub(crate) retry: (Duration, Duration),
}

/// Begins to search. Dropping the answer ends it.
pub(crate) fn start(search: Search) -> AbortOnDropHandle<()> {
    search.published.contact.asks_name(&search.name.to_string());
    AbortOnDropHandle::new(tokio::spawn(search.run()))
}

impl Search {
    async fn run(mut self) {
        let (_, mut events) = self.published.subscribe();
        let mut candidates = Candidates::default();
        let start = Instant::now();
        let mut delay = self.retry.0;
        loop {
            let began = Instant::now();
            let learned = self.round(&mut candidates).await;
            let is_eager = start.elapsed() < EAGER;
            let most = match self.published.neighbors().is_empty() {
                true if is_eager => self.retry.1.min(EAGER_RETRY.max(self.retry.0)),
                true => self.retry.1,
                false => PERIOD,
            };
            // There may be more of them.
            delay = if learned && is_eager { self.retry.0 } else { delay };
            let mut due = Instant::now() + jitter(delay.min(most));
            delay = (delay * 2).min(most);
            let latest = due + PUT_OFF;
            loop {
                tokio::select! {
                    () = sleep_until(due) => break,
                    Ok(()) = self.place.changed() => (delay, due) = self.at_once(),
                    event = events.next() => match event {
                        Some(Event::Isolated) => (delay, due) = self.at_once(),
                        Some(Event::PeerLost(..) | Event::PeerLeft(_)) => {
                            let soon = Instant::now() + jitter(AFTER_LOSS);
                            due = due.min(soon.max(began + jitter(LOSS_INTERVAL)));
                        }
                        Some(Event::PeerJoined(_)) => {
                            due = due.max(Instant::now() + SETTLED).min(latest);
                        }
                        Some(_) => {}
                        None => return,
                    }
                }
            }
        }
    }

    fn at_once(&self) -> (Duration, Instant) {
        (self.retry.0, Instant::now() + jitter(self.retry.0 / 2))
    }

    /// Resolves the name and asks addresses until enough answer, but not those whose ids are known.
    /// Returns true if somebody answered.
    async fn round(&mut self, candidates: &mut Candidates) -> bool {
        let source = format!("bootstrap {}", self.name);
        match self.ask_some(candidates).await {
            Ok(learned) => {
                self.problems.clear(&source);
                self.published.contact.name_answered(&self.name.to_string());
                return learned;
            }
            Err(Failure::Alone) => {
                self.problems.clear(&source);
                let why = "it has no address but this node's own";
                self.published.contact.name_unanswered(&self.name.to_string(), why);
            }
            Err(Failure::Because(reason)) => {
                self.published.contact.name_unanswered(&self.name.to_string(), &reason);
                self.problems.raise(source, reason);
            }
        }
        false
    }

    async fn ask_some(&mut self, candidates: &mut Candidates) -> Result<bool, Failure> {
        let mut addresses = resolve(&self.name).await.map_err(Failure::Because)?;
        let place = self.place.borrow().clone();
        addresses.retain(|at| !place.is_own(*at));
        if addresses.is_empty() {
            return Err(Failure::Alone);
        }
        addresses.retain(|at| is_plausible(&TransportAddr::Ip(*at), true));
        let book = self.published.book();
        let mut unknown = candidates.choose(&addresses, &book, Instant::now());
        // If there are more addresses than one round takes, each round begins at a random one.
        let first = usize::try_from(random(unknown.len() as u64)).unwrap_or(0);
        unknown.rotate_left(first);
        let mut answered = unknown.len() < addresses.len();
        unknown.truncate(MAX_ASKED);
        let mut waiting = unknown.into_iter();
        let asker = Arc::new(Asker::new().map_err(Failure::Because)?);
        let ask = |at| {
            let asker = Arc::clone(&asker);
            async move { (at, asker.ask(at).await) }
        };
        let mut enough = ENOUGH.saturating_sub(candidates.pending(&book, Instant::now()));
        let mut asks: FuturesUnordered<_> = waiting.by_ref().take(enough).map(ask).collect();
        let mut more = interval(MORE_AFTER);
        more.set_missed_tick_behavior(MissedTickBehavior::Delay);
        more.reset();
        let (mut why, mut alone, mut learned) = (BTreeMap::new(), true, false);
        while !asks.is_empty() && enough > 0 {
            tokio::select! {
                _ = more.tick(), if waiting.len() > 0 => {
                    // Twice as many, if none of those failed.
                    let room = AT_A_TIME.saturating_sub(asks.len()).min(asks.len());
                    asks.extend(waiting.by_ref().take(room).map(ask));
                }
                Some((at, answer)) = asks.next() => match answer {
                    Ok(id) if id == self.own => asks.extend(waiting.next().map(ask)),
                    Ok(id) => {
                        debug!(name = %self.name, %at, peer = %id.fmt_short(), "it led to a peer");
                        (answered, alone, learned) = (true, false, true);
                        enough -= 1;
                        candidates.answered(at, id, Instant::now());
                        self.published.contact.asks([id]);
                        let input = Input::Learned(self.topic, id, at);
                        if self.inputs.send(input).await.is_err() {
                            return Ok(false);
                        }
                    }
                    Err(reason) => {
                        debug!(name = %self.name, %at, reason, "no answer from an address");
                        alone = false;
                        why.insert(at, reason);
                        asks.extend(waiting.next().map(ask));
                    }
                }
            }
        }
        // A handshake that is cut off would be an error at the other end.
        tokio::spawn(asks.for_each(|_| ready(())));
        match why.first_key_value() {
            _ if answered => Ok(learned),
            Some((at, reason)) => Err(Failure::Because(format!("nobody answers: {at}: {reason}"))),
            None if alone => Err(Failure::Alone),
            None => Ok(learned),
        }
    }
}

/// Why no member was found behind a name.
enum Failure {
    /// This node is the only one there.
    Alone,
    Because(String),
}

/// Returns a random number below `end`, or 0 if the system has no randomness. Nothing here is
/// secret.
fn random(end: u64) -> u64 {
    getrandom::u64().map_or(0, |number| number % end.max(1))
}

/// Returns a random duration from four to six fifths of this one.
fn jitter(duration: Duration) -> Duration {
    let fifth = u64::try_from(duration.as_micros() / 5).unwrap_or(u64::MAX);
    duration * 4 / 5 + Duration::from_micros(random(fifth.saturating_mul(2)))
}
