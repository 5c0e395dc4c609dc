//! The problems that keep this node from others, for logs and for the application: a bounded list.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tracing::{info, warn};

/// Most problems that are kept. If there are more, the one that was not met for the longest time
/// goes.
const MAX_PROBLEMS: usize = 64;
/// Longest text of a problem, in bytes. A longer one is cut.
const MAX_TEXT: usize = 512;

/// Something that keeps this node from others, now.
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
pub(crate) struct Problems(Arc<Mutex<Vec<Problem>>>);

impl Problems {
    /// Notes that a source does not work, and why. Logs it if it is new or has changed.
    pub(crate) fn raise(&self, source: impl Into<String>, what: impl Into<String>) {
        let (source, what) = (bounded(source.into()), bounded(what.into()));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().position(|problem| problem.source == source);
        let mut problem = match known {
            Some(place) => all.remove(place),
            None => Problem { source, what: String::new(), since: SystemTime::now(), count: 0 },
        };
        problem.count = problem.count.saturating_add(1);
        if problem.what != what {
            problem.what = what;
            warn!(source = problem.source, "{}", problem.what);
        }
        if all.len() == MAX_PROBLEMS {
            all.remove(0);
        }
        // The list is ordered by when a problem was last met.
        all.push(problem);
    }

    /// Notes that a source works. Logs it if it had a problem.
    pub(crate) fn clear(&self, source: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = all.iter().position(|problem| problem.source == source) {
            let problem = all.remove(place);
            info!(source, was = problem.what, "works again");
        }
    }

    /// Returns the current problems, in the order in which they began.
    pub(crate) fn list(&self) -> Vec<Problem> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by_key(|problem| problem.since);
        all
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
