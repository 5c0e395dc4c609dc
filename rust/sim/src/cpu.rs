//! Processors: what work costs, and how it waits where many nodes share few cores.
//!
//! Nodes are spread over machines of equal size. Each machine has a queue of events in the order in
//! which they came. A free core takes the first event whose node isn't busy on another core. What an
//! event costs is known once it was handled: the node and the core are busy from then on for that
//! time. So what a node sends leaves when the work on it begins, at most one event too early.

use std::{collections::VecDeque, time::Duration};

use crate::{
    clock::{Nanos, nanos},
    queue::SimEvent,
};

/// What work costs, and which nodes share the cores that do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Costs {
    /// Cores of each machine. 0: work costs nothing, and nothing waits.
    pub cores: usize,
    /// Nodes on each machine. 0: all nodes are on one.
    pub nodes: usize,
    /// What a handshake costs, at either end.
    pub handshake: Duration,
    /// What the verification of one signature costs.
    pub verify: Duration,
    /// What a frame costs that arrives, beside the verifications in it; or a timer.
    pub frame: Duration,
}

#[derive(Debug)]
struct Machine {
    /// Until when each core is busy.
    cores: Vec<Nanos>,
    /// Events that wait for a core, with their nodes.
    waiting: VecDeque<(usize, SimEvent)>,
    /// When the next look at the queue is scheduled.
    look_at: Option<Nanos>,
}

/// The processors of all machines.
#[derive(Debug, Default)]
pub(crate) struct Processors {
    costs: Costs,
    machines: Vec<Machine>,
    /// Until when each node is busy.
    busy: Vec<Nanos>,
    /// The time that all cores worked.
    pub(crate) worked: Nanos,
}

impl Processors {
    pub(crate) fn new(costs: Costs) -> Self {
        Self { costs, ..Self::default() }
    }

    /// Returns true if work costs time.
    pub(crate) fn are_limited(&self) -> bool {
        self.costs.cores > 0
    }

    /// The machine that a node runs on.
    pub(crate) fn machine_of(&self, node: usize) -> usize {
        node.checked_div(self.costs.nodes).unwrap_or(0)
    }

    /// Takes an event into the queue of its node's machine.
    pub(crate) fn enqueue(&mut self, node: usize, event: SimEvent) -> usize {
        let machine = self.machine_of(node);
        let idle = || Machine {
            cores: vec![0; self.costs.cores],
            waiting: VecDeque::new(),
            look_at: None,
        };
        if self.machines.len() <= machine {
            self.machines.resize_with(machine + 1, idle);
        }
        if self.busy.len() <= node {
            self.busy.resize(node + 1, 0);
        }
        self.machines[machine].waiting.push_back((node, event));
        machine
    }

    /// The next event of a machine that can be handled now, with its node.
    pub(crate) fn next(&mut self, machine: usize, now: Nanos) -> Option<(usize, SimEvent)> {
        let machine = self.machines.get_mut(machine)?;
        machine.cores.iter().find(|free| **free <= now)?;
        let first = machine.waiting.iter().position(|(node, _)| self.busy[*node] <= now)?;
        machine.waiting.remove(first)
    }

    /// A node worked on an event: it and a core are busy from now on for this time.
    pub(crate) fn charge(&mut self, node: usize, cost: Nanos, now: Nanos) {
        let machine = self.machine_of(node);
        let until = now.saturating_add(cost);
        self.worked += cost;
        self.busy[node] = until;
        let cores = self.machines.get_mut(machine).map(|machine| &mut machine.cores);
        if let Some(core) = cores.and_then(|cores| cores.iter_mut().find(|free| **free <= now)) {
            *core = until;
        }
    }

    /// When a machine whose events wait is to be looked at again, if that isn't scheduled yet.
    pub(crate) fn look_again(&mut self, machine: usize, now: Nanos) -> Option<Nanos> {
        let inner = self.machines.get_mut(machine)?;
        if inner.waiting.is_empty() || inner.look_at.is_some_and(|at| at > now) {
            return None;
        }
        let core = inner.cores.iter().copied().min().filter(|free| *free > now);
        // A core is free: all nodes whose events wait are busy on other cores.
        let node = || inner.waiting.iter().map(|(node, _)| self.busy[*node]).min();
        inner.look_at = Some(core.or_else(node)?.max(now + 1));
        inner.look_at
    }

    /// What an event of a kind costs, with the verifications in it.
    pub(crate) fn cost_of(&self, is_handshake: bool, verified: u64) -> Nanos {
        let own = if is_handshake { self.costs.handshake } else { self.costs.frame };
        nanos(own).saturating_add(nanos(self.costs.verify).saturating_mul(verified))
    }
}
