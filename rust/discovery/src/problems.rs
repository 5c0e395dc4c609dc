//! The problems that keep this node from others, for logs and for the application: a bounded list.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use tracing::{info, warn};

/// Most problems that are kept. If there are more, the one that was not met for the longest time
/// goes.
const MAX_PROBLEMS: usize = 64;
/// Longest text of a problem, in bytes. A longer one is cut.
const MAX_TEXT: usize = 512;
/// A source that comes and goes, or whose text changes, is logged this often in this time.
const LINES: usize = 4;
const WINDOW: Duration = Duration::from_mins(10);
/// Most sources of which it is known when they were logged.
const MAX_LOGGED: usize = 256;

/// Something that keeps this node from others, now.
///
/// ```no_run
/// # use iroh_gossip_discovery::Discovery;
/// # fn example(discovery: &Discovery) {
/// for problem in discovery.problems() {
///     println!("{}: {} ({} times)", problem.source, problem.what, problem.count);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What it concerns: `network`, `mdns`, `bootstrap seed.example:4433`.
    pub source: String,
    /// What is wrong.
    pub what: String,
    /// When it began.
    pub since: SystemTime,
    /// How often it was met since then, at least 1.
    pub count: u64,
}

/// The problems of an endpoint. Clones share one list.
///
/// There is at most one for each source. A problem is logged once when it begins or changes, and
/// once when it is over, no matter how often it is met in between.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problems(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// The problems, the one that was met last at the end. Each has whether it was logged.
    all: Vec<(Problem, bool)>,
    /// When each source was logged.
    logged: BTreeMap<String, VecDeque<Instant>>,
}

impl Inner {
    fn place(&self, source: &str) -> Option<usize> {
        self.all.iter().position(|(problem, _)| problem.source == source)
    }

    /// Returns true if a line about a source may be logged now.
    fn may_log(&mut self, source: &str) -> bool {
        let now = Instant::now();
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        if self.logged.len() >= MAX_LOGGED {
            self.logged.retain(|_, lines| lines.back().is_some_and(fresh));
        }
        if self.logged.len() >= MAX_LOGGED && !self.logged.contains_key(source) {
            return false;
        }
        let lines = self.logged.entry(source.to_owned()).or_default();
        lines.retain(fresh);
        let may = lines.len() < LINES;
        if may {
            lines.push_back(now);
        }
        may
    }
}

impl Problems {
    /// Notes that a source does not work, and why. Logs it if that is new.
    pub(crate) fn raise(&self, source: impl Into<String>, what: impl Into<String>) {
        let (source, what) = (bounded(source.into()), bounded(what.into()));
        let mut inner = self.lock();
        let known = inner.place(&source).map(|place| inner.all.remove(place));
        let (mut problem, mut logged) = known.unwrap_or_else(|| {
            (Problem { source, what: String::new(), since: SystemTime::now(), count: 0 }, false)
        });
        problem.count = problem.count.saturating_add(1);
        if problem.what != what {
            problem.what = what;
            if inner.may_log(&problem.source) {
                logged = true;
                warn!(source = problem.source, "{}", problem.what);
            }
        }
        if inner.all.len() == MAX_PROBLEMS {
            inner.all.remove(0);
        }
        inner.all.push((problem, logged));
    }

    /// Notes that a source works. Logs it if it was logged that it does not.
    pub(crate) fn clear(&self, source: &str) {
        let mut inner = self.lock();
        if let Some(place) = inner.place(source) {
            let (problem, logged) = inner.all.remove(place);
            if logged {
                info!(source, was = problem.what, "works again");
            }
        }
    }

    /// Returns the present problems in the order in which they began.
    pub(crate) fn list(&self) -> Vec<Problem> {
        let mut all: Vec<_> = self.lock().all.iter().map(|(problem, _)| problem.clone()).collect();
        all.sort_by_key(|problem| problem.since);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_however_often_it_is_met_and_ends_once() {
        let problems = Problems::default();
        problems.raise("mdns", "no interface");
        let since = problems.list()[0].since;
        problems.raise("mdns", "no interface");
        problems.raise("network", "no address");
        let list = problems.list();
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].source.as_str(), list[0].count, list[0].since), ("mdns", 2, since));
        problems.clear("mdns");
        problems.clear("mdns");
        assert_eq!(problems.list().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_is_logged_a_few_times_only() {
        let problems = Problems::default();
        let lines = |source: &str| (0..100).filter(|_| problems.lock().may_log(source)).count();
        assert_eq!((lines("network"), lines("mdns"), lines("network")), (LINES, LINES, 0));
        tokio::time::advance(WINDOW).await;
        assert_eq!(lines("network"), LINES);
    }

    #[test]
    fn the_list_is_bounded_and_keeps_what_was_met_last() {
        let problems = Problems::default();
        for n in 0..200 {
            problems.raise("mdns", "x".repeat(2000));
            problems.raise(format!("bootstrap {n}"), "does not resolve");
        }
        let list = problems.list();
        assert_eq!(list.len(), MAX_PROBLEMS);
        let mdns = list.iter().find(|problem| problem.source == "mdns").unwrap();
        assert_eq!((mdns.count, mdns.what.len()), (200, MAX_TEXT));
        assert!(list.iter().any(|problem| problem.source == "bootstrap 199"));
    }
}
