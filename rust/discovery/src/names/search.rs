//! Asks a name repeatedly for members: often while no peer is linked, and rarely otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use iroh::TransportAddr;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{Name, ask::Asker, resolve::resolve};
use crate::{
    dial::is_plausible,
    events::Event,
    inputs::Input,
    network::Place,
    problems::Problems,
    proto::{EndpointId, TopicId},
    published::Published,
};

/// Most addresses of a name that are asked in one round, and at a time.
const MAX_ASKED: usize = 64;
const AT_A_TIME: usize = 16;
/// While peers are linked, a name is asked this often, so that groups that started apart merge.
const PERIOD: Duration = Duration::from_mins(5);
/// After a peer was lost or left, a name is asked this soon, but not more often than once in
/// [`LOSS_INTERVAL`].
const AFTER_LOSS: Duration = Duration::from_secs(2);
const LOSS_INTERVAL: Duration = Duration::from_secs(30);

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
        let mut delay = self.retry.0;
        loop {
            let began = Instant::now();
            self.round().await;
            let linked = !self.published.neighbors().is_empty();
            let most = if linked { PERIOD } else { self.retry.1 };
            let mut due = Instant::now() + jitter(delay.min(most));
            delay = (delay * 2).min(most);
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

    /// Resolves the name and asks each address once, except those whose ids are known.
    async fn round(&mut self) {
        let source = format!("bootstrap {}", self.name);
        match self.ask_all().await {
            Ok(()) => {
                self.problems.clear(&source);
                self.published.contact.name_answered(&self.name.to_string());
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
    }

    async fn ask_all(&mut self) -> Result<(), Failure> {
        let mut addresses = resolve(&self.name).await.map_err(Failure::Because)?;
        let place = self.place.borrow().clone();
        addresses.retain(|at| !place.is_own(*at));
        if addresses.is_empty() {
            return Err(Failure::Alone);
        }
        let known = self.known();
        let plausible = |at: &SocketAddr| is_plausible(&TransportAddr::Ip(*at), true);
        let mut unknown: Vec<_> =
            addresses.iter().copied().filter(|at| plausible(at) && !known.contains(at)).collect();
        // If there are more addresses than one round takes, each round begins at a random one.
        let first = usize::try_from(random(unknown.len() as u64)).unwrap_or(0);
        unknown.rotate_left(first);
        unknown.truncate(MAX_ASKED);
        let asker = Asker::new().map_err(Failure::Because)?;
        let asks = unknown.into_iter().map(async |at| (at, asker.ask(at).await));
        let mut answers = stream::iter(asks).buffer_unordered(AT_A_TIME);
        let mut answered = !known.is_disjoint(&addresses);
        let (mut why, mut alone) = (BTreeMap::new(), true);
        while let Some((at, answer)) = answers.next().await {
            match answer {
                Ok(id) if id == self.own => {}
                Ok(id) => {
                    debug!(name = %self.name, %at, peer = %id.fmt_short(), "a name led to a peer");
                    (answered, alone) = (true, false);
                    self.published.contact.asks([id]);
                    let learned = Input::Learned(self.topic, id, at);
                    if self.inputs.send(learned).await.is_err() {
                        return Ok(());
                    }
                }
                Err(reason) => {
                    debug!(name = %self.name, %at, reason, "an address of a name did not answer");
                    alone = false;
                    why.insert(at, reason);
                }
            }
        }
        match why.first_key_value() {
            _ if answered => Ok(()),
            Some((at, reason)) => Err(Failure::Because(format!("nobody answers: {at}: {reason}"))),
            None if alone => Err(Failure::Alone),
            None => Ok(()),
        }
    }

    /// Returns the addresses of members, whose ids are known.
    fn known(&self) -> BTreeSet<SocketAddr> {
        let book = self.published.book();
        let addresses = book.iter().flat_map(|record| record.addresses.iter());
        let sockets = addresses.filter_map(|address| match address {
            TransportAddr::Ip(socket) => Some(*socket),
            _ => None,
        });
        sockets.collect()
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
