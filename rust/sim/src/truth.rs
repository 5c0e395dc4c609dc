//! Whether books agree with what is true of all identities.

use crate::{
    cuts::Cuts,
    node::Node,
    roster::{Peer, Roster},
};

/// What is true, and all books.
pub(crate) struct Truth<'a> {
    pub(crate) nodes: &'a [Node],
    pub(crate) roster: &'a Roster,
    pub(crate) cuts: &'a Cuts,
}

impl Truth<'_> {
    /// Returns true if the book of a node is right, or the node is down or leaving.
    pub(crate) fn is_right(&self, number: usize) -> bool {
        let node = &self.nodes[number];
        if !node.is_honest() || node.leaving {
            return true;
        }
        let group = self.roster.peers[node.peer].group;
        let own = usize::from(!node.config.observer);
        let others = self.roster.there(group).saturating_sub(own);
        node.own.is_some() && node.book.honest == others && node.book.right == others
    }

    /// Returns true if the book of a node has every node that is up within reach, or if that node
    /// is itself down or leaving.
    pub(crate) fn knows_all(&self, number: usize) -> bool {
        let node = &self.nodes[number];
        let group = self.roster.peers[node.peer].group;
        let there = |peer: &Peer| peer.current.is_some() && peer.group == group && !peer.hostile;
        let peers = self.roster.peers.iter().enumerate();
        let mut others = peers.filter(|(other, peer)| *other != node.peer && there(peer));
        !node.is_honest() || node.leaving || others.all(|(other, _)| node.book.has(other))
    }

    /// Returns true if all others within reach hold a node's current record, or, if it isn't there,
    /// none.
    pub(crate) fn is_known(&self, number: usize) -> bool {
        let peer = self.nodes[number].peer;
        let truth = &self.roster.peers[peer];
        let others = self.nodes.iter().enumerate().filter(|(number, node)| {
            let together = self.cuts.group(*number) == truth.group;
            node.is_honest() && !node.leaving && node.peer != peer && together
        });
        others.map(|(_, node)| node.book.sequence(peer)).all(|held| held == truth.current)
    }
}

/// Updates what is true of an identity, and by it, which entries of books are right. Returns true
/// if it changed.
pub(crate) fn update(peer: usize, nodes: &mut [Node], roster: &mut Roster, cuts: &Cuts) -> bool {
    let holders = roster.peers[peer].nodes.iter().map(|node| (*node, &nodes[*node]));
    let there = holders.filter(|(_, node)| {
        node.is_honest() && !node.leaving && !node.config.observer && node.peer == peer
    });
    let newest = there.max_by_key(|(_, node)| node.own.as_ref().map(|own| own.sequence));
    let group = newest.map_or(roster.peers[peer].group, |(number, _)| cuts.group(number));
    let current = newest.and_then(|(_, node)| Some(node.own.as_ref()?.sequence));
    let truth = &roster.peers[peer];
    if (truth.current, truth.group) == (current, group) {
        return false;
    }
    let (was, was_group) = (truth.current, truth.group);
    roster.set(peer, current, group);
    let hostile = roster.peers[peer].hostile;
    for node in nodes.iter_mut().filter(|node| !hostile && node.is_honest()) {
        let Some(held) = node.book.sequence(peer) else { continue };
        let at = roster.peers[node.peer].group;
        let was_right = was_group == at && was == Some(held);
        let is_right = group == at && current == Some(held);
        node.book.right = node.book.right + usize::from(is_right) - usize::from(was_right);
    }
    let holders = roster.peers[peer].nodes.clone();
    if was_group != group {
        for number in holders {
            recount(&mut nodes[number], roster);
        }
    }
    true
}

/// Counts again the right entries of a book.
fn recount(node: &mut Node, roster: &Roster) {
    let group = roster.peers[node.peer].group;
    let held = node.book.sequences();
    let honest = held.filter(|(peer, _)| !roster.peers[*peer].hostile);
    let right = honest.filter(|(peer, held)| roster.is_right(*peer, *held, group));
    node.book.right = right.count();
}
