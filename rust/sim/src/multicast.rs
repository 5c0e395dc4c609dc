//! What nodes hear of each other by multicast, as with multicast DNS.

use std::collections::BTreeSet;

use rand::{RngExt, seq::IndexedRandom};

use crate::{clock::Nanos, queue::SimEvent, transport::Env};

/// A node answers a newcomer within this time.
const ANSWER_WITHIN: Nanos = 100_000_000;
/// The nodes that answer a newcomer, if there are more.
const ANSWERS: usize = 16;

/// What was announced by multicast.
#[derive(Debug, Default)]
pub(crate) struct Multicast {
    /// The nodes that are about to answer.
    answering: BTreeSet<usize>,
    /// Pairs of a node, and another one with its life, that the first one heard.
    heard: BTreeSet<(usize, (usize, u64))>,
}

impl Multicast {
    /// A node asks who is there: some of the others will announce themselves.
    pub(crate) fn ask(&mut self, node: usize, others: &[usize], env: &mut Env) {
        let answers: Vec<_> = others.sample(&mut env.engine.rng, ANSWERS).copied().collect();
        for of in answers {
            if self.answering.insert(of) {
                let wait = env.engine.rng.random_range(0..ANSWER_WITHIN);
                let at = env.now() + env.pair_latency(node, of) + wait;
                env.push(at, SimEvent::Announces(of));
            }
        }
    }

    /// These nodes hear of another one, unless they heard of this life of it before.
    pub(crate) fn announce(&mut self, (of, life): (usize, u64), by: Vec<usize>, env: &mut Env) {
        self.answering.remove(&of);
        for by in by {
            if self.heard.insert((by, (of, life))) {
                let at = env.now() + env.pair_latency(of, by);
                env.push(at, SimEvent::Heard { by, of });
            }
        }
    }
}
