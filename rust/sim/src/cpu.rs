//! Processors: what work costs, and how it waits if many nodes share few cores.
//!
//! Nodes are spread over machines of equal size. Each node has several tasks, at which events wait.
//! The last task is that of its protocol. Packets pass the others before, as they pass the tasks of
//! a socket, a connection and a stream. Each machine has one queue of the tasks that have something
//! to do. A free core takes the first task and serves it for a turn. If events are left then, the
//! task goes to the end of the queue. So a frame waits in several queues, but a timer only in one,
//! as with a real scheduler.
//!
//! The cost of an event is known only after it was handled, and the core is busy for that time from
//! then on. So what a node sends leaves when the work on it begins, at most one event too early.

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
    /// Cores of each machine. If it is 0, work costs nothing, and nothing waits.
    pub cores: usize,
    /// Nodes on each machine. If it is 0, all nodes are on one machine.
    pub nodes: usize,
    /// What a handshake costs, at either end.
    pub handshake: Duration,
    /// What the verification of one signature costs.
    pub verify: Duration,
    /// What a timer, or a frame that arrives, costs without the verifications in it.
    pub frame: Duration,
    /// The number of tasks that an arriving event passes, one after another. The last one is that
    /// of the protocol. 0 counts as 1.
    pub tasks: usize,
    /// How long a core serves a task while others wait.
    pub turn: Duration,
}

/// A task: its node, and how many more tasks an event passes after it.
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
    /// The events that wait at each task. A task without events is missing, unless it is served.
    waiting: BTreeMap<Task, VecDeque<SimEvent>>,
    /// The tasks that wait for a core, each once.
    ready: VecDeque<Task>,
    /// When the next check of the queue is scheduled.
    look_at: Option<Nanos>,
}

/// An event on which a core works now.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) node: usize,
    pub(crate) event: SimEvent,
    /// How many more tasks it passes before it reaches the node's protocol.
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

    /// Returns the machine that a node runs on.
    fn machine_of(&self, node: usize) -> usize {
        node.checked_div(self.costs.nodes).unwrap_or(0)
    }

    /// Returns how many tasks an event passes before it reaches its node's protocol.
    pub(crate) fn tasks_before(&self, event: &SimEvent) -> usize {
        match event {
            SimEvent::Wake(_) | SimEvent::DialFailed { .. } | SimEvent::Heard { .. } => 0,
            _ => self.costs.tasks.saturating_sub(1),
        }
    }

    /// Queues an event at a task of its node, after which it passes `left` more tasks. Returns the
    /// machine.
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

    /// Returns the next event of a machine, if a core is free for it.
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

    /// Makes a core busy with an event for this time from now on.
    pub(crate) fn charge(&mut self, (node, core): (usize, usize), cost: Nanos, now: Nanos) {
        let machine = self.machine_of(node);
        self.worked += cost;
        self.machines[machine].cores[core].busy_until = now.saturating_add(cost);
    }

    /// Returns when to check a machine again, unless that is scheduled or nothing waits there.
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

    /// Returns what it costs if an event passes a task.
    pub(crate) fn cost_of_passing(&self) -> Nanos {
        nanos(self.costs.frame) / self.costs.tasks.max(1) as u64
    }

    /// Returns what an event costs at the protocol, with the verifications in it.
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
    /// Returns the node and the core that works on its event.
    pub(crate) fn place(&self) -> (usize, usize) {
        (self.node, self.core)
    }
}
