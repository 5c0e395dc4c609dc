//! One fault of a timeline: its time, its action, its nodes, and when all books must be right
//! again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    error::{Error, check},
    human_duration::HumanDuration,
    node_selector::NodeSelector,
    overrides::NetworkSection,
};

/// Most nodes that a scenario may have.
pub const MAX_NODES: usize = 20_000;
/// Most times that one fault may happen.
const MAX_TIMES: u32 = 1000;

/// The kinds of nodes that do not keep to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Accepts every link and never sends a frame.
    Mute,
    /// Sends every frame back.
    Mirror,
}

/// The direction in which a node loses packets, as seen from the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// What others send to it.
    In,
    /// What it sends.
    Out,
    /// Both.
    #[default]
    Both,
}

/// A fault. It has exactly one action. What the other fields mean depends on the action.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The time of the fault, counted from the beginning of the timeline.
    pub at: HumanDuration,
    /// All books must be right within this time after the fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<HumanDuration>,
    /// How long a pause, a restart's absence or a fault of the network lasts.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<HumanDuration>,
    /// Stops nodes as `kill -9` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash: Option<NodeSelector>,
    /// Nodes leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave: Option<NodeSelector>,
    /// Nodes handle no events for the time of `for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<NodeSelector>,
    /// Nodes crash, and start again with what they knew after the time of `for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<NodeSelector>,
    /// As `restart`, with nothing but their key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wipe: Option<NodeSelector>,
    /// As `restart`, with another key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rekey: Option<NodeSelector>,
    /// This many new nodes start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<usize>,
    /// New nodes start with the keys of these nodes, which keep running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clone: Option<NodeSelector>,
    /// Nodes announce something new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<NodeSelector>,
    /// New nodes that do not keep to the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostile: Option<Kind>,
    /// How many hostile nodes; one by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Parts the network: these nodes are cut off from the others, until `heal` or for the time of
    /// `for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<NodeSelector>,
    /// What these nodes send does not arrive, but what the others send does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mute: Option<NodeSelector>,
    /// These nodes lose packets beyond what all lose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lossy: Option<NodeSelector>,
    /// The share of packets that nodes under `lossy` lose, above 0 to 1. At 1, nothing arrives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The direction in which they lose packets; both by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Nothing passes between any two of these nodes. All others reach them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blackhole: Option<NodeSelector>,
    /// The fault happens this often, to the same nodes. 2 to 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The time from one beginning to the next, if it happens several times. Longer than `for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<HumanDuration>,
    /// Makes the network whole again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub heal: bool,
    /// Changes the conditions of the network from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSection>,
}

/// The action of a fault.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// See [`Fault::crash`].
    Crash(NodeSelector),
    /// See [`Fault::leave`].
    Leave(NodeSelector),
    /// See [`Fault::pause`].
    Pause(NodeSelector),
    /// See [`Fault::restart`].
    Restart(NodeSelector),
    /// See [`Fault::wipe`].
    Wipe(NodeSelector),
    /// See [`Fault::rekey`].
    Rekey(NodeSelector),
    /// See [`Fault::join`].
    Join(usize),
    /// See [`Fault::clone`].
    Clone(NodeSelector),
    /// See [`Fault::update`].
    Update(NodeSelector),
    /// See [`Fault::hostile`].
    Hostile(Kind, usize),
    /// See [`Fault::partition`].
    Partition(NodeSelector),
    /// See [`Fault::mute`].
    Mute(NodeSelector),
    /// See [`Fault::lossy`], [`Fault::loss`] and [`Fault::way`].
    Lossy(NodeSelector, f64, Way),
    /// See [`Fault::blackhole`].
    Blackhole(NodeSelector),
    /// See [`Fault::heal`].
    Heal,
    /// See [`Fault::network`].
    Network(NetworkSection),
}

impl Action {
    /// Returns the name of the action in a scenario.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash(_) => "crash",
            Self::Leave(_) => "leave",
            Self::Pause(_) => "pause",
            Self::Restart(_) => "restart",
            Self::Wipe(_) => "wipe",
            Self::Rekey(_) => "rekey",
            Self::Join(_) => "join",
            Self::Clone(_) => "clone",
            Self::Update(_) => "update",
            Self::Hostile(..) => "hostile",
            Self::Partition(_) => "partition",
            Self::Mute(_) => "mute",
            Self::Lossy(..) => "lossy",
            Self::Blackhole(_) => "blackhole",
            Self::Heal => "heal",
            Self::Network(_) => "network",
        }
    }
}

impl Action {
    /// Returns the selector of the nodes that it hits; `None` if it hits no existing nodes.
    pub(crate) fn selector(&self) -> Option<&NodeSelector> {
        match self {
            Self::Crash(selector)
            | Self::Leave(selector)
            | Self::Pause(selector)
            | Self::Restart(selector)
            | Self::Wipe(selector)
            | Self::Rekey(selector)
            | Self::Clone(selector)
            | Self::Update(selector)
            | Self::Partition(selector)
            | Self::Mute(selector)
            | Self::Lossy(selector, ..)
            | Self::Blackhole(selector) => Some(selector),
            Self::Join(_) | Self::Hostile(..) | Self::Heal | Self::Network(_) => None,
        }
    }

    /// Returns true for a fault of the network that may end by itself.
    pub(crate) fn cuts(&self) -> bool {
        matches!(self, Self::Partition(_) | Self::Mute(_) | Self::Lossy(..) | Self::Blackhole(_))
    }

    /// Returns the largest number of nodes that it adds to `nodes` nodes.
    pub(crate) fn brings(&self, nodes: usize) -> usize {
        match self {
            Self::Join(count) | Self::Hostile(_, count) => *count,
            Self::Clone(selector) => selector.most(nodes),
            _ => 0,
        }
    }
}

impl Fault {
    /// Makes a fault of this action at a time.
    #[must_use]
    pub fn new(at: HumanDuration, action: Action) -> Self {
        let mut fault = Self { at, ..Self::default() };
        match action {
            Action::Crash(selector) => fault.crash = Some(selector),
            Action::Leave(selector) => fault.leave = Some(selector),
            Action::Pause(selector) => fault.pause = Some(selector),
            Action::Restart(selector) => fault.restart = Some(selector),
            Action::Wipe(selector) => fault.wipe = Some(selector),
            Action::Rekey(selector) => fault.rekey = Some(selector),
            Action::Join(count) => fault.join = Some(count),
            Action::Clone(selector) => fault.clone = Some(selector),
            Action::Update(selector) => fault.update = Some(selector),
            Action::Hostile(kind, count) => {
                (fault.hostile, fault.count) = (Some(kind), Some(count));
            }
            Action::Partition(selector) => fault.partition = Some(selector),
            Action::Mute(selector) => fault.mute = Some(selector),
            Action::Lossy(selector, loss, way) => {
                (fault.lossy, fault.loss, fault.way) = (Some(selector), Some(loss), Some(way));
            }
            Action::Blackhole(selector) => fault.blackhole = Some(selector),
            Action::Heal => fault.heal = true,
            Action::Network(section) => fault.network = Some(section),
        }
        fault
    }

    fn actions(&self) -> Vec<Action> {
        let hostile = self.hostile.map(|kind| Action::Hostile(kind, self.count.unwrap_or(1)));
        let (loss, way) = (self.loss.unwrap_or_default(), self.way.unwrap_or_default());
        [
            self.crash.clone().map(Action::Crash),
            self.leave.clone().map(Action::Leave),
            self.pause.clone().map(Action::Pause),
            self.restart.clone().map(Action::Restart),
            self.wipe.clone().map(Action::Wipe),
            self.rekey.clone().map(Action::Rekey),
            self.join.map(Action::Join),
            self.clone.clone().map(Action::Clone),
            self.update.clone().map(Action::Update),
            hostile,
            self.partition.clone().map(Action::Partition),
            self.mute.clone().map(Action::Mute),
            self.lossy.clone().map(|selector| Action::Lossy(selector, loss, way)),
            self.blackhole.clone().map(Action::Blackhole),
            self.heal.then_some(Action::Heal),
            self.network.clone().map(Action::Network),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Returns the action; `None` for a fault without one, which [`Fault::validate`] refuses.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        self.actions().into_iter().next()
    }

    /// Returns the time when the fault is over for the last time.
    pub(crate) fn ends(&self) -> Duration {
        let again = self.times.unwrap_or(1).saturating_sub(1);
        self.at.0
            + self.every.unwrap_or_default().0.saturating_mul(again)
            + self.lasts.unwrap_or_default().0
    }

    pub(crate) fn validate(&self, key: &str) -> Result<(), Error> {
        let actions = self.actions();
        let Some(action) = actions.first() else {
            return check(key, false, "has no action, such as crash = 1");
        };
        if let Some(other) = actions.get(1) {
            let both = format!("has two actions, {} and {}", action.name(), other.name());
            return check(key, false, &both);
        }
        let may_last = action.cuts()
            || matches!(
                action,
                Action::Pause(_) | Action::Restart(_) | Action::Wipe(_) | Action::Rekey(_)
            );
        let lasts = self.lasts.is_some();
        check(&format!("{key}.for"), may_last || !lasts, "has no meaning for this action")?;
        let must_last = matches!(action, Action::Pause(_));
        check(&format!("{key}.for"), !must_last || lasts, "is missing: how long the pause is")?;
        let hostile = matches!(action, Action::Hostile(..));
        let counted = self.count.is_some();
        check(&format!("{key}.count"), hostile || !counted, "has no meaning for this action")?;
        if let Action::Join(count) | Action::Hostile(_, count) = action {
            let ok = (1..=MAX_NODES).contains(count);
            check(&format!("{key}.{}", action.name()), ok, "must be 1 to 20,000 nodes")?;
        }
        if let Action::Network(section) = action {
            section.validate(&format!("{key}.network"))?;
        }
        self.validate_lossy(key, action)?;
        self.validate_times(key, action)
    }

    fn validate_lossy(&self, key: &str, action: &Action) -> Result<(), Error> {
        let lossy = matches!(action, Action::Lossy(..));
        let loss = format!("{key}.loss");
        check(&loss, lossy || self.loss.is_none(), "has no meaning for this action")?;
        let way = format!("{key}.way");
        check(&way, lossy || self.way.is_none(), "has no meaning for this action")?;
        if lossy {
            let share = self.loss.unwrap_or_default();
            check(&loss, share > 0.0 && share <= 1.0, "is needed, and must be above 0 to 1")?;
        }
        if let Action::Blackhole(selector) = action {
            let pair = selector.most(MAX_NODES) >= 2;
            check(&format!("{key}.blackhole"), pair, "must be at least two nodes")?;
        }
        Ok(())
    }

    fn validate_times(&self, key: &str, action: &Action) -> Result<(), Error> {
        let repeats = (action.cuts() || matches!(action, Action::Pause(_)))
            && self.lasts.is_some_and(|lasts| !lasts.is_zero());
        let times = format!("{key}.times");
        let none = self.times.is_none() && self.every.is_none();
        check(&times, repeats || none, "has a meaning only for a pause or a cut with `for`")?;
        let both = self.times.is_some() == self.every.is_some();
        check(&times, both, "needs `every`, and `every` needs `times`")?;
        let many = self.times.is_none_or(|times| (2..=MAX_TIMES).contains(&times));
        check(&times, many, "must be 2 to 1,000")?;
        let apart = self.every.zip(self.lasts).is_none_or(|(every, lasts)| every > lasts);
        check(&format!("{key}.every"), apart, "must be longer than `for`")
    }
}
