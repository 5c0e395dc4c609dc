//! Tries every choice, depth first.
//!
//! The protocol's state can't be cloned or compared, because that of the overlay can't; so a model
//! checker such as Stateright can't hold it. Each run begins again and repeats the choices before
//! the one that it changes. A run ends early where an earlier one went on from the same situation.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

/// The choices of one run, and the situations of all.
#[derive(Debug, Default)]
pub(crate) struct Explorer {
    /// For each choice of this run: the option that was taken, and how many there were.
    path: Vec<(usize, usize)>,
    /// The number of choices that this run has made.
    made: usize,
    /// The options to take in the first run.
    forced: Vec<usize>,
    seen: HashSet<u64>,
    pub(crate) figures: Figures,
}

/// How much was explored.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) runs: u64,
    /// Runs that ended where an earlier one had been.
    pub(crate) cut: u64,
    /// Different situations in which there was a choice, or in which the last one had been made.
    pub(crate) situations: u64,
    /// Events that the states handled, repetitions included.
    pub(crate) events: u64,
    /// The most choices of one run.
    pub(crate) depth: usize,
    /// True if no choice is left untried.
    pub(crate) complete: bool,
}

impl Explorer {
    /// Begins with these options.
    pub(crate) fn repeating(choices: &[usize]) -> Self {
        let forced = choices.to_vec();
        Self { forced, ..Self::default() }
    }

    /// Returns the options that this run took.
    pub(crate) fn choices(&self) -> Vec<usize> {
        self.path[..self.made].iter().map(|(taken, _)| *taken).collect()
    }

    /// Returns the option to take, of `options`. `None` if this situation was explored before.
    pub(crate) fn choose(&mut self, options: usize, situation: u64) -> Option<usize> {
        let at = self.made;
        if at == self.path.len() {
            if !self.seen.insert(situation) {
                return None;
            }
            self.figures.situations += 1;
            self.path.push((self.forced.get(at).copied().unwrap_or(0), options));
        }
        self.made += 1;
        let (taken, of) = self.path[at];
        assert_eq!(of, options, "the same choices lead to the same situation");
        self.figures.depth = self.figures.depth.max(self.made);
        Some(taken)
    }

    /// Runs until no choice is left, a run fails, or `limit` is over. `run` returns false if it was
    /// cut short.
    pub(crate) fn explore<E>(
        &mut self,
        limit: Duration,
        mut run: impl FnMut(&mut Self) -> Result<bool, E>,
    ) -> Result<(), E> {
        let began = Instant::now();
        loop {
            self.made = 0;
            self.figures.runs += 1;
            if !run(self)? {
                self.figures.cut += 1;
            }
            while self.path.last().is_some_and(|(taken, of)| taken + 1 == *of) {
                self.path.pop();
            }
            let Some((taken, _)) = self.path.last_mut() else {
                self.figures.complete = true;
                return Ok(());
            };
            *taken += 1;
            if began.elapsed() > limit {
                return Ok(());
            }
        }
    }
}
