//! What all parts of a network share: virtual time, the queue of future events, and chance.

use rand::{SeedableRng, rngs::ChaCha12Rng};

use crate::{clock::Clock, queue::Queue};

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) seed: u64,
    pub(crate) clock: Clock,
    pub(crate) queue: Queue,
    pub(crate) rng: ChaCha12Rng,
}

impl Engine {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            clock: Clock::new(),
            queue: Queue::default(),
            rng: ChaCha12Rng::seed_from_u64(seed),
        }
    }

    /// Lets all random choices from now on follow from this seed.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.seed = seed;
        self.rng = ChaCha12Rng::seed_from_u64(seed);
    }
}
