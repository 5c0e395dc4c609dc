//! The promises, as scenarios.

/// What to measure in a run.
#[derive(Clone, Copy)]
pub(crate) enum Measure {
    /// Seconds until all books were right after the last action of this name.
    Took(&'static str),
    /// Seconds until all nodes knew the nodes that the last action of this name hit, and these knew
    /// all.
    Known(&'static str),
    /// The number of members that were reported lost while they were within reach.
    Lost,
    /// Bytes on the wire that a node sends per second.
    Wire,
    /// The number of different sizes of books at full seconds until all books were right.
    Sizes,
}

/// Networks with the same nodes and the same past.
pub(crate) struct Group {
    pub(crate) nodes: usize,
    /// The scenario up to the end of its warm-up. Without a warm-up, each seed has a network of its
    /// own.
    pub(crate) base: &'static str,
    pub(crate) rows: &'static [Row],
}

pub(crate) struct Row {
    pub(crate) what: &'static str,
    /// The limits of the median and of the 99th percentile.
    pub(crate) goal: (Option<f64>, f64),
    pub(crate) measure: Measure,
    /// The rest of the scenario.
    pub(crate) timeline: &'static str,
}

const fn row(what: &'static str, most: f64, measure: Measure, timeline: &'static str) -> Row {
    Row { what, goal: (None, most), measure, timeline }
}

const CRASH: Row = Row {
    what: "a crash is known to all",
    goal: (Some(5.0), 6.5),
    measure: Measure::Took("crash"),
    timeline: "duration = '20s'\nfault = [{ at = '1s', crash = 1 }]",
};

const PAUSES: Row = row(
    "5 % loss and pauses of 3 s of 2 % of the nodes: lost within reach",
    0.0,
    Measure::Lost,
    "duration = '60s'\nnetwork = { loss = 0.05 }
    fault = [{ at = '5s', pause = '2%', for = '3s' }, { at = '15s', pause = '2%', for = '3s' },
    { at = '25s', pause = '2%', for = '3s' }, { at = '35s', pause = '2%', for = '3s' }]",
);

const fn idle(most: f64) -> Row {
    row("idle: sent by each node", most, Measure::Wire, "duration = '120s'")
}

/// A swarm that has run for long. After 150 s, its overlay has settled too.
const LAN: &str = "warmup = '150s'\nstart = { known = true, from = 'random' }";
const INTERNET: &str = "preset = 'internet'\nwarmup = '150s'\nstart = { known = true }";
/// A swarm that has been quiet for 5 min.
const IDLE: &str = "warmup = '330s'\nstart = { known = true, from = 'random' }";

pub(crate) const GROUPS: [Group; 9] = [
    Group {
        nodes: 1000,
        base: INTERNET,
        rows: &[
            row(
                "a newcomer has the whole book, and all know it",
                0.5,
                Measure::Known("join"),
                "duration = '10s'\nfault = [{ at = '1s', join = 1 }]",
            ),
            row(
                "the same, 20 % drop",
                3.0,
                Measure::Known("join"),
                "duration = '60s'\nexpect = { quiet = false }\nnetwork = { drop = 0.2 }
                fault = [{ at = '1s', join = 1 }]",
            ),
            row(
                "a leave is known to all",
                0.5,
                Measure::Known("leave"),
                "duration = '10s'\nfault = [{ at = '1s', leave = 1 }]",
            ),
            row(
                "the same, 20 % drop",
                5.0,
                Measure::Known("leave"),
                "duration = '60s'\nexpect = { quiet = false }\nnetwork = { drop = 0.2 }
                fault = [{ at = '1s', leave = 1 }]",
            ),
            row(
                "a restart with the same key is known to all",
                2.0,
                Measure::Known("restart"),
                "duration = '20s'\nfault = [{ at = '1s', restart = 1 }]",
            ),
            row(
                "the same, without its state",
                2.0,
                Measure::Known("wipe"),
                "duration = '20s'\nfault = [{ at = '1s', wipe = 1 }]",
            ),
            row(
                "the same, with a new key under the old name",
                2.0,
                Measure::Known("rekey"),
                "duration = '20s'\nfault = [{ at = '1s', rekey = 1 }]",
            ),
        ],
    },
    Group {
        nodes: 1000,
        base: LAN,
        rows: &[
            CRASH,
            row(
                "a tenth of all crash at once, known to all",
                12.0,
                Measure::Took("crash"),
                "duration = '40s'\nfault = [{ at = '1s', crash = '10%' }]",
            ),
            PAUSES,
        ],
    },
    Group { nodes: 300, base: LAN, rows: &[CRASH, PAUSES] },
    Group { nodes: 100, base: LAN, rows: &[CRASH] },
    Group { nodes: 100, base: IDLE, rows: &[idle(400.0)] },
    Group { nodes: 1000, base: IDLE, rows: &[idle(600.0)] },
    Group { nodes: 10_000, base: IDLE, rows: &[idle(600.0)] },
    Group {
        nodes: 500,
        base: INTERNET,
        rows: &[
            // No limit was promised.
            row(
                "half of all are cut off, known to all",
                f64::INFINITY,
                Measure::Took("partition"),
                "duration = '40s'\nexpect = { quiet = false }
                fault = [{ at = '1s', partition = '50%' }]",
            ),
            row(
                "a partition of 120 s heals, the bootstrap node gone",
                3.0,
                Measure::Took("heal"),
                "duration = '170s'\nfault = [{ at = '1s', crash = [0] },
                { at = '20s', partition = '50%' }, { at = '140s', heal = true }]",
            ),
            row(
                "the same, 20 % loss",
                8.0,
                Measure::Took("heal"),
                "duration = '200s'\nnetwork = { loss = 0.2 }\nexpect = { quiet = false }
                fault = [{ at = '1s', crash = [0] }, { at = '20s', partition = '50%' },
                { at = '140s', heal = true }]",
            ),
        ],
    },
    Group {
        nodes: 1000,
        base: "preset = 'internet'\nduration = '20s'\nstart = { over = '5s' }",
        rows: &[
            row(
                "all start within 5 s: books full after the last start",
                1.0,
                Measure::Took("start"),
                "",
            ),
            row("the same, 5 % loss", 2.0, Measure::Took("start"), "network = { loss = 0.05 }"),
            row("the same, 20 % loss", 6.0, Measure::Took("start"), "network = { loss = 0.2 }"),
            row("sizes of books at full seconds", f64::INFINITY, Measure::Sizes, ""),
        ],
    },
];
