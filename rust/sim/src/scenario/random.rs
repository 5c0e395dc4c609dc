//! Random scenarios: a timeline of faults from a seed. It ends with a whole network, and time for
//! it to settle.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

use super::{
    Action, Expect, Fault, From, HumanDuration, Kind, NetworkSection, NodeSelector, Scenario, Start,
};

/// The time in which faults happen.
const TROUBLE: Duration = Duration::from_secs(40);
/// The time that the network has to settle. Lost peers are dialed again within it.
const SETTLE: Duration = Duration::from_secs(150);
/// Most faults of a timeline, besides those that end it.
const MOST_FAULTS: usize = 8;

impl Scenario {
    /// Makes a random scenario of `nodes` nodes. At its end the network is whole, no packet is lost
    /// any more, and all books must become right.
    #[must_use]
    pub fn random(seed: u64, nodes: usize) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let from = [From::First, From::Previous, From::Random][rng.random_range(0..3)];
        let over = if rng.random_bool(0.5) { rng.random_range(0..3000) } else { 0 };
        let mut network = NetworkSection::default();
        if rng.random_bool(0.5) {
            network.loss = Some(hundredths(rng.random_range(0..20)));
        }
        if rng.random_bool(0.2) {
            network.drop = Some(hundredths(rng.random_range(0..10)));
        }
        if rng.random_bool(0.2) {
            network.dial_failure = Some(hundredths(rng.random_range(0..30)));
        }
        if rng.random_bool(0.3) {
            network.latency = Some(HumanDuration::ms(rng.random_range(1..40)));
        }
        let mut faults: Vec<Fault> = (0..rng.random_range(1..=MOST_FAULTS))
            .map(|_| {
                let at = Duration::from_millis(rng.random_range(0..millis(TROUBLE)));
                fault(&mut rng, nodes, at)
            })
            .collect();
        faults.sort_by_key(|fault| fault.at);
        let calm = NetworkSection {
            loss: Some(0.0),
            drop: Some(0.0),
            dial_failure: Some(0.0),
            ..NetworkSection::default()
        };
        let end = HumanDuration(TROUBLE);
        faults.push(Fault::new(end, Action::Heal));
        faults.push(Fault::new(end, Action::Network(calm)));
        Self {
            name: format!("random {seed}"),
            nodes,
            seed,
            duration: Some(HumanDuration(TROUBLE + SETTLE)),
            clock_skew: HumanDuration(Duration::from_secs(if rng.random_bool(0.3) {
                86_400
            } else {
                0
            })),
            start: Start { over: HumanDuration::ms(over), from, ..Start::default() },
            network,
            expect: Expect::default(),
            faults,
            ..Self::default()
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn hundredths(n: u32) -> f64 {
    f64::from(n) / 100.0
}

fn fault(rng: &mut ChaCha12Rng, nodes: usize, at: Duration) -> Fault {
    // A fault must be over within `TROUBLE`, so that no crash comes after it.
    let longest = millis(TROUBLE.saturating_sub(at)).max(2);
    let few = NodeSelector::Count(rng.random_range(1..=(nodes / 10).max(1)));
    let many = NodeSelector::Count(rng.random_range(1..=(nodes / 2).max(1)));
    let span =
        |rng: &mut ChaCha12Rng, most: u64| Some(HumanDuration::ms(rng.random_range(1..most)));
    let mut lasts = None;
    let action = match rng.random_range(0..14) {
        0 => Action::Crash(if rng.random_bool(0.2) { many } else { few }),
        1 => Action::Leave(few),
        2 | 3 => {
            lasts = span(rng, longest.min(15_000));
            Action::Pause(few)
        }
        4 | 5 => {
            lasts = span(rng, longest.min(15_000));
            Action::Restart(few)
        }
        6 | 7 => {
            lasts = span(rng, longest.min(15_000));
            Action::Wipe(few)
        }
        8 => Action::Rekey(few),
        9 => Action::Join(rng.random_range(1..=(nodes / 10).max(1))),
        10 => Action::Update(many),
        11 | 12 => {
            lasts = span(rng, longest);
            Action::Partition(many)
        }
        _ if rng.random_bool(0.5) => {
            lasts = span(rng, longest);
            Action::Mute(few)
        }
        _ => {
            let kind = if rng.random_bool(0.5) { Kind::Mute } else { Kind::Mirror };
            Action::Hostile(kind, 1)
        }
    };
    Fault { lasts, ..Fault::new(HumanDuration(at), action) }
}
