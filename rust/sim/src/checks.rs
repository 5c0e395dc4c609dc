//! Checks of whole books: that they are equal once all is quiet, and that events give the same
//! book.

use std::collections::{BTreeMap, BTreeSet};

use iroh_gossip_discovery_proto::Inspect;

use crate::network::Network;

/// Most frames and other items that may wait in one topic, besides those that follow the number of
/// members.
const MOST_WAITING: usize = 64;
/// Most broadcasts that may wait for a first neighbor.
const MOST_KEPT: usize = 320;
/// Most hashes of recent contents that may be remembered.
const MOST_SEEN: usize = 4096;
/// Most nodes that the text of a failure names.
const NAMED: usize = 10;

impl Network {
    /// Checks that replaying the events gives the book. It compares digests at every step, and
    /// entries only if the digests differ.
    pub(crate) fn check_digest(&mut self, number: usize) {
        let node = &self.nodes[number];
        if node.leaving || node.strayed {
            return;
        }
        let held = node.state().and_then(|state| state.book_digest(&self.topic));
        if held.is_some_and(|held| held != node.book.digest) {
            self.nodes[number].strayed = true;
            let text = self.held_and_replayed(number);
            let text = text.unwrap_or_else(|| "a digest that is not its book's".to_owned());
            self.fail(Some(number), "events replay", text);
        }
    }

    /// Returns what is in only one of two books: a node's book and the one by its events.
    fn held_and_replayed(&self, number: usize) -> Option<String> {
        let node = &self.nodes[number];
        let inspect = node.state()?.inspect(&self.topic)?;
        let held: BTreeMap<_, _> = inspect.live.iter().copied().collect();
        let replayed = node.book.by_id();
        if node.leaving || held == replayed {
            return None;
        }
        let only = |in_this: &BTreeMap<_, _>, not: &BTreeMap<_, _>| {
            let more = in_this.iter().filter(|(id, sequence)| not.get(*id) != Some(*sequence));
            more.take(5).map(|(id, sequence)| (*id, *sequence)).collect::<Vec<_>>()
        };
        Some(format!(
            "{} by the events, {} in the book; there alone: {:?}, {:?}",
            replayed.len(),
            held.len(),
            only(&replayed, &held),
            only(&held, &replayed)
        ))
    }

    /// Checks what holds at any time but costs too much for every step. The book by events equals
    /// the protocol's book, entry by entry, and nothing grows beyond its bounds.
    pub fn check_books(&mut self) {
        for number in self.up() {
            let node = &self.nodes[number];
            let Some(inspect) = node.state().and_then(|state| state.inspect(&self.topic)) else {
                continue;
            };
            if let Some(text) = self.held_and_replayed(number).filter(|_| !node.strayed) {
                self.fail(Some(number), "events replay", text);
            }
            self.check_sizes(number, &inspect);
        }
    }

    /// Checks that nothing in a node has grown beyond its bounds.
    pub(crate) fn check_sizes(&mut self, number: usize, inspect: &Inspect) {
        let ids = self.roster.peers.len();
        for (what, size) in inspect.sizes.iter().copied() {
            let most = match what {
                "tombstones" => inspect.capacity,
                "broadcasts kept" => MOST_KEPT,
                "contents seen" => MOST_SEEN,
                _ => 2 * ids + MOST_WAITING,
            };
            if size > most {
                self.fail(Some(number), "caps hold", format!("{size} {what}"));
            }
        }
    }

    /// Checks what holds once the network was left alone for long enough. All books of one part are
    /// equal, and hold every node of the part that could be found.
    pub fn check_quiet(&mut self) {
        self.check_books();
        let wrong: Vec<_> =
            self.up().into_iter().filter(|number| !self.is_right(*number)).collect();
        let parts = if wrong.is_empty() { Vec::new() } else { self.acquainted() };
        for number in wrong {
            let part = parts.iter().find(|part| part.contains(&number));
            let text = self.differences(number, part);
            if !text.is_empty() {
                self.fail(Some(number), "books are equal", text);
            }
        }
        let waiting = self.engine.queue.len();
        // Timers, and the frames of probes and heartbeats that are on their way.
        let most = 200 * self.nodes.len() + 1000;
        if waiting > most {
            self.fail(None, "caps hold", format!("{waiting} events wait"));
        }
    }

    /// Returns the nodes that are up, in parts whose nodes could find each other. Two nodes are in
    /// one part if either ever knew the other in its present life. A node whose bootstrap peer is
    /// gone, and that no other node knows, has no node to find.
    fn acquainted(&self) -> Vec<BTreeSet<usize>> {
        let cuts = self.transport.cuts();
        let mut parts: Vec<BTreeSet<usize>> = Vec::new();
        for number in self.up() {
            let node = &self.nodes[number];
            // A node that is leaving does not connect others.
            if node.leaving {
                continue;
            }
            let met = |other: &usize| {
                let together = cuts.group(number) == cuts.group(*other);
                let other = &self.nodes[*other];
                together && (node.has_met(other.peer) || other.has_met(node.peer))
            };
            let mut whole = BTreeSet::from([number]);
            parts.retain_mut(|part| {
                let joins = part.iter().any(met);
                if joins {
                    whole.append(part);
                }
                !joins
            });
            parts.push(whole);
        }
        parts
    }

    /// Returns which entries are missing, extra or old in the book of a node.
    #[must_use]
    pub fn what_is_wrong(&self, number: usize) -> String {
        self.differences(number, None)
    }

    /// As [`Network::what_is_wrong`], but only nodes of `part` count as missing.
    fn differences(&self, number: usize, part: Option<&BTreeSet<usize>>) -> String {
        let node = &self.nodes[number];
        let group = self.roster.peers[node.peer].group;
        let (mut missing, mut extra, mut old) = (Vec::new(), Vec::new(), Vec::new());
        for (peer, truth) in self.roster.peers.iter().enumerate() {
            if peer == node.peer || truth.hostile {
                continue;
            }
            let name = truth.nodes.first().map_or_else(|| truth.id.fmt_short(), usize::to_string);
            let there = truth.current.filter(|_| truth.group == group);
            let expected = || part.is_none_or(|part| truth.nodes.iter().any(|n| part.contains(n)));
            match (there, node.book.sequence(peer)) {
                (Some(_), None) if expected() => missing.push(name),
                (None, Some(_)) => extra.push(name),
                (Some(there), Some(held)) if there != held => {
                    old.push(format!("{name} ({held} for {there})"));
                }
                _ => {}
            }
        }
        let lists = [("missing", missing), ("extra", extra), ("old", old)];
        let parts = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let parts = parts.map(|(what, mut names)| {
            let more = names.len().saturating_sub(NAMED);
            names.truncate(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{what} {}{more}", names.join(", "))
        });
        parts.collect::<Vec<_>>().join("; ")
    }
}
