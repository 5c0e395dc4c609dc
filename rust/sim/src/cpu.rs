//! Processors: what work costs, and how it waits where many nodes share few cores.
//!
//! Nodes are spread over machines of equal size. What a node has to do waits at its tasks: one for
//! its protocol, and others that packets pass before, as a socket, a connection and a stream have
//! them. Each machine has one queue of the tasks that have something to do. A free core takes the
//! first one and serves it for a turn; if something is left then, it goes to the end of the queue.
//! So a frame waits in several queues, but a timer only in one, as with a real scheduler.
//!
//! What an event costs is known once it was handled: the core is busy from then on for that time.
//! So what a node sends leaves when the work on it begins, at most one event too early.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

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
    /// Tasks that whatever arrives passes, one after another; the last is the protocol's. 0 is 1.
    pub tasks: usize,
    /// How long a task goes on while others wait.
    pub turn: Duration,
}

/// A task of a node, by its place among those that a frame passes.
type Task = (usize, usize);

/// A core, and the task that it serves.
#[derive(Debug, Clone, Copy, Default)]
struct Core {
    busy_until: Nanos,
    serves: Option<Task>,
    turn_ends: Nanos,
}

#[derive(Debug)]
struct Machine {
    cores: Vec<Core>,
    /// What waits at tasks. A task that nothing waits at is not there, unless it is being served.
    waiting: BTreeMap<Task, VecDeque<SimEvent>>,
    /// Tasks that wait for a core, each once.
    ready: VecDeque<Task>,
    /// When the next look at the queue is scheduled.
    look_at: Option<Nanos>,
}

/// What a core is to work on now.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) node: usize,
    pub(crate) event: SimEvent,
    /// How many more tasks it passes before it is at the node's protocol.
    pub(crate) tasks_left: usize,
    core: usize,
}

/// The processors of all machines.
#[derive(Debug, Default)]
pub(crate) struct Processors {
    costs: Costs,
    machines: Vec<Machine>,
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
    fn machine_of(&self, node: usize) -> usize {
        node.checked_div(self.costs.nodes).unwrap_or(0)
    }

    /// How many tasks an event passes before it is at its node's protocol.
    pub(crate) fn tasks_before(&self, event: &SimEvent) -> usize {
        match event {
            SimEvent::Wake(_) | SimEvent::DialFailed { .. } => 0,
            _ => self.costs.tasks.saturating_sub(1),
        }
    }

    /// Takes an event into the queue of a task of its node, from where it passes `left` more.
    pub(crate) fn enqueue(&mut self, node: usize, left: usize, event: SimEvent) -> usize {
        let number = self.machine_of(node);
        let idle = || Machine {
            cores: vec![Core::default(); self.costs.cores],
            waiting: BTreeMap::new(),
            ready: VecDeque::new(),
            look_at: None,
        };
        if self.machines.len() <= number {
            self.machines.resize_with(number + 1, idle);
        }
        let machine = &mut self.machines[number];
        let task = (node, left);
        machine.waiting.entry(task).or_insert_with(|| {
            machine.ready.push_back(task);
            VecDeque::new()
        });
        machine.waiting.entry(task).or_default().push_back(event);
        number
    }

    /// The next event of a machine that a core is free for.
    pub(crate) fn next(&mut self, machine: usize, now: Nanos) -> Option<Job> {
        let machine = self.machines.get_mut(machine)?;
        for (number, core) in machine.cores.iter_mut().enumerate() {
            if core.busy_until > now {
                continue;
            }
            if let Some(task) = core.serves
                && (now >= core.turn_ends || machine.waiting[&task].is_empty())
            {
                core.serves = None;
                if machine.waiting[&task].is_empty() {
                    machine.waiting.remove(&task);
                } else {
                    machine.ready.push_back(task);
                }
            }
            if core.serves.is_none() {
                core.serves = machine.ready.pop_front();
                core.turn_ends = now.saturating_add(nanos(self.costs.turn).max(1));
            }
            let Some(task) = core.serves else { continue };
            let waiting = machine.waiting.get_mut(&task);
            if let Some(event) = waiting.and_then(VecDeque::pop_front) {
                let (node, tasks_left) = task;
                return Some(Job { node, event, tasks_left, core: number });
            }
        }
        None
    }

    /// A core works on an event from now on for this time.
    pub(crate) fn charge(&mut self, (node, core): (usize, usize), cost: Nanos, now: Nanos) {
        let machine = self.machine_of(node);
        self.worked += cost;
        self.machines[machine].cores[core].busy_until = now.saturating_add(cost);
    }

    /// When a machine is to be looked at again, unless that is scheduled or nothing waits there.
    pub(crate) fn look_again(&mut self, machine: usize, now: Nanos) -> Option<Nanos> {
        let machine = self.machines.get_mut(machine)?;
        let nothing_waits = machine.ready.is_empty()
            && !machine
                .cores
                .iter()
                .any(|core| core.serves.is_some_and(|task| !machine.waiting[&task].is_empty()));
        if nothing_waits || machine.look_at.is_some_and(|at| at > now) {
            return None;
        }
        let free = machine.cores.iter().map(|core| core.busy_until).filter(|at| *at > now).min();
        machine.look_at = Some(free.unwrap_or(now + 1));
        machine.look_at
    }

    /// What it costs that an event passes a task.
    pub(crate) fn cost_of_passing(&self) -> Nanos {
        nanos(self.costs.frame) / self.costs.tasks.max(1) as u64
    }

    /// What an event of a kind costs at the protocol, with the verifications in it.
    pub(crate) fn cost_of(&self, is_handshake: bool, tasks: usize, verified: u64) -> Nanos {
        let own = if is_handshake {
            nanos(self.costs.handshake)
        } else {
            nanos(self.costs.frame).saturating_sub(self.cost_of_passing() * tasks as u64)
        };
        own.saturating_add(nanos(self.costs.verify).saturating_mul(verified))
    }
}

impl Job {
    /// Whose core works on it.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.node, self.core)
    }
}
