//! Which nodes hear which others: partitions, black holes, and nodes that lose packets.

use std::collections::BTreeSet;

use crate::clock::Nanos;

/// What a node loses beside what all lose, each a share of 0 to 1. At 1, nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Losses {
    of_arriving: f64,
    of_sent: f64,
    /// How often such a fault began.
    begun: u32,
    /// Until when it counts. After its end, verdicts still follow from it for a while.
    counts_until: Nanos,
}

/// Where a node is.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    group: u32,
    loss: Losses,
}

/// The faults of a network that cut nodes off from others.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    places: Vec<Place>,
    /// The groups that hear the others and are not heard.
    one_way: BTreeSet<u32>,
    /// Pairs of nodes, the smaller number first, between which nothing passes.
    holes: BTreeSet<(usize, usize)>,
    /// The number of groups that there ever were.
    groups: u32,
}

impl Cuts {
    /// Adds a node, which hears all others of the first group.
    pub(crate) fn add(&mut self) {
        self.places.push(Place::default());
    }

    /// Returns the part of the network that a node is in.
    pub(crate) fn group(&self, node: usize) -> u32 {
        self.places[node].group
    }

    /// Returns true if what one node sends does not reach another.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        let lost = self.places[from].loss.of_sent >= 1.0 || self.places[to].loss.of_arriving >= 1.0;
        let hole = !self.holes.is_empty() && self.holes.contains(&(from.min(to), from.max(to)));
        let (from, to) = (self.places[from].group, self.places[to].group);
        let parted = from != to && (self.one_way.contains(&from) || !self.one_way.contains(&to));
        lost || hole || parted
    }

    /// Returns which shares are lost of what one node sends to another, beside what all lose.
    pub(crate) fn losses(&self, from: usize, to: usize) -> [f64; 2] {
        [self.places[from].loss.of_sent, self.places[to].loss.of_arriving]
    }

    /// Returns true if what is held of a node, or what it holds of others, may follow from its
    /// losses.
    pub(crate) fn is_lossy(&self, node: usize, now: Nanos) -> bool {
        self.places[node].loss.counts_until > now
    }

    /// Returns how often a node began to lose packets.
    pub(crate) fn losses_begun(&self, node: usize) -> u32 {
        self.places[node].loss.begun
    }

    /// Parts nodes from all others.
    pub(crate) fn part(&mut self, nodes: &[usize]) {
        self.groups += 1;
        for node in nodes {
            self.places[*node].group = self.groups;
        }
    }

    /// Parts nodes from all others, but they still hear the others.
    pub(crate) fn mute(&mut self, nodes: &[usize]) {
        self.part(nodes);
        self.one_way.insert(self.groups);
    }

    pub(crate) fn make_lossy(&mut self, nodes: &[usize], of_arriving: f64, of_sent: f64) {
        for node in nodes {
            let loss = &mut self.places[*node].loss;
            (loss.of_arriving, loss.of_sent) = (of_arriving, of_sent);
            loss.begun += 1;
            loss.counts_until = Nanos::MAX;
        }
    }

    /// Ends the losses of a node, which count until a time.
    pub(crate) fn end_losses(&mut self, node: usize, counts_until: Nanos) {
        let loss = &mut self.places[node].loss;
        (loss.of_arriving, loss.of_sent) = (0.0, 0.0);
        loss.counts_until = counts_until;
    }

    pub(crate) fn open_hole(&mut self, nodes: &[usize]) {
        self.holes.extend(pairs(nodes));
    }

    pub(crate) fn close_hole(&mut self, nodes: &[usize]) {
        for pair in pairs(nodes) {
            self.holes.remove(&pair);
        }
    }

    /// Ends every partition and every black hole.
    pub(crate) fn heal(&mut self) {
        self.one_way.clear();
        self.holes.clear();
        for place in &mut self.places {
            place.group = 0;
        }
    }
}

/// Returns all pairs of these nodes, the smaller number first.
fn pairs(nodes: &[usize]) -> Vec<(usize, usize)> {
    let of = |first: usize| nodes.iter().map(move |other| (first, *other));
    nodes.iter().flat_map(|first| of(*first)).filter(|(a, b)| a < b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Cuts {
        let mut cuts = Cuts::default();
        (0..3).for_each(|_| cuts.add());
        cuts
    }

    #[test]
    fn parts_hear_only_themselves_and_a_muted_part_hears_the_others() {
        let mut cuts = three();
        cuts.part(&[0]);
        assert!(cuts.is_cut(0, 1) && cuts.is_cut(1, 0) && !cuts.is_cut(1, 2));
        cuts.heal();
        cuts.mute(&[0]);
        assert!(cuts.is_cut(0, 1) && !cuts.is_cut(1, 0));
        cuts.heal();
        assert!(!cuts.is_cut(0, 1) && cuts.group(0) == cuts.group(1));
    }

    #[test]
    fn a_black_hole_is_between_its_nodes_alone() {
        let mut cuts = three();
        cuts.open_hole(&[2, 0]);
        assert!(cuts.is_cut(0, 2) && cuts.is_cut(2, 0) && !cuts.is_cut(0, 1));
        cuts.close_hole(&[0, 2]);
        assert!(!cuts.is_cut(0, 2));
    }

    #[test]
    fn a_node_that_loses_all_is_cut_and_its_losses_count_for_a_while_after_their_end() {
        let mut cuts = three();
        cuts.make_lossy(&[0], 1.0, 0.5);
        assert!(cuts.is_cut(1, 0) && !cuts.is_cut(0, 1));
        assert!((cuts.losses(0, 1)[0] - 0.5).abs() < f64::EPSILON);
        cuts.end_losses(0, 100);
        assert!(!cuts.is_cut(1, 0) && cuts.is_lossy(0, 99) && !cuts.is_lossy(0, 100));
        assert_eq!(cuts.losses_begun(0), 1);
    }
}
