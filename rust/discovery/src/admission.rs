//! Which links an endpoint keeps if there are too many: the least useful one is closed first.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{
    proto::{LinkId, MAX_LINKS},
    subnet::Subnet,
};

/// The most links of each kind, so that no group of peers takes the room of the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Links to all peers together.
    pub(crate) links: usize,
    /// Links that were opened by peers in no book. The rest is left for members.
    strangers: usize,
    /// Of these, the links from one network, so that one host can't take the share of all
    /// strangers. As many links of strangers are always possible: a node that announces
    /// itself is a member, so members could hold all links.
    of_network: usize,
}

impl Limits {
    /// Returns true if there are so few links that none has to make room.
    pub(crate) fn have_room(&self, links: usize) -> bool {
        links < self.of_network
    }

    /// Strangers may have half of the links, and those of one network an eighth.
    pub(crate) const fn of(links: usize) -> Self {
        Self { links, strangers: links / 2, of_network: links / 8 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(MAX_LINKS)
    }
}

/// How useful a link is. The order of the variants is the order in which links are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// The peer opened the link and is in no book.
    Stranger,
    /// The peer is a member, and the link is there for a sync or a probe only.
    Member,
    /// The peer is a member, and messages or streams use the link.
    Used,
    /// The peer is a neighbor, or this node dialed it.
    Needed,
}

/// What the choice needs to know of an open link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) id: LinkId,
    pub(crate) usefulness: Use,
    pub(crate) network: Option<Subnet>,
    pub(crate) opened: Instant,
}

/// What to do with a connection that a peer opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// There is room for it.
    Admit,
    /// This link has to be closed for it first.
    Replace(LinkId),
    /// No link is less useful, so the connection is refused.
    Refuse,
}

/// Decides on a connection that a member or a stranger opened. The newest stranger gets in and the
/// oldest one has to go. An honest stranger soon is a member, so an old link of a stranger is of
/// little use. If all links are of members, a few strangers still get in.
pub(crate) fn admit(
    limits: &Limits,
    links: &[Candidate],
    is_member: bool,
    network: Option<Subnet>,
) -> Admission {
    let strangers = || links.iter().filter(|link| link.usefulness == Use::Stranger);
    let of_network = || strangers().filter(|link| network.is_some() && link.network == network);
    let oldest = |candidate: Option<&Candidate>| candidate.map(|link| link.id);
    let replaced = if !is_member && of_network().count() >= limits.of_network {
        oldest(of_network().min_by_key(|link| link.opened))
    } else if !is_member && strangers().count() >= limits.strangers {
        oldest(strangers().min_by_key(|link| link.opened))
    } else if links.len() >= limits.links {
        // If there are more strangers, one of them goes.
        let may_replace_members = is_member || strangers().count() < limits.of_network;
        let idle = links
            .iter()
            .filter(|link| link.usefulness == Use::Stranger || may_replace_members)
            .filter(|link| link.usefulness <= Use::Member)
            .min_by_key(|link| (link.usefulness, link.opened));
        let used = || if is_member { None } else { newest_used(links) };
        match idle.or_else(used) {
            Some(link) => Some(link.id),
            None => return Admission::Refuse,
        }
    } else {
        None
    };
    replaced.map_or(Admission::Admit, Admission::Replace)
}

/// Returns the newest link that messages or streams use, of the network that has the most of them.
/// Those who try to hold all links only displace each other.
fn newest_used(links: &[Candidate]) -> Option<&Candidate> {
    let used = || links.iter().filter(|link| link.usefulness == Use::Used);
    let mut sizes: BTreeMap<_, usize> = BTreeMap::new();
    used().for_each(|link| *sizes.entry(link.network).or_default() += 1);
    used().max_by_key(|link| (sizes[&link.network], link.opened))
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const LIMITS: Limits = Limits::of(MAX_LINKS);

    /// `count` links, the oldest first.
    fn links(count: usize, usefulness: Use, network: Option<Subnet>) -> Vec<Candidate> {
        let start = Instant::now();
        (0..count as u64)
            .map(|n| Candidate {
                id: LinkId(n),
                usefulness,
                network,
                opened: start + Duration::from_millis(n),
            })
            .collect()
    }

    fn network(number: u32) -> Option<Subnet> {
        Subnet::of(Ipv4Addr::from(0x0a00_0000 + number).into())
    }

    #[test]
    fn strangers_have_a_share_and_the_oldest_of_them_makes_room() {
        let mut open = links(LIMITS.strangers, Use::Stranger, None);
        assert_eq!(admit(&LIMITS, &open, false, None), Admission::Replace(LinkId(0)));
        assert_eq!(admit(&LIMITS, &open, true, None), Admission::Admit);
        open.remove(0);
        assert_eq!(admit(&LIMITS, &open, false, None), Admission::Admit);
    }

    #[test]
    fn one_network_has_a_share_of_what_strangers_have() {
        let mut open = links(LIMITS.of_network, Use::Stranger, network(1));
        assert_eq!(admit(&LIMITS, &open, false, network(1)), Admission::Replace(LinkId(0)));
        assert_eq!(admit(&LIMITS, &open, false, network(2)), Admission::Admit);
        assert_eq!(admit(&LIMITS, &open, true, network(1)), Admission::Admit);
        open.pop();
        assert_eq!(admit(&LIMITS, &open, false, network(1)), Admission::Admit);
    }

    #[test]
    fn the_least_useful_link_makes_room_for_a_member() {
        let mut open = links(MAX_LINKS, Use::Member, None);
        assert_eq!(admit(&LIMITS, &open, true, None), Admission::Replace(LinkId(0)));
        open[0].usefulness = Use::Needed;
        assert_eq!(admit(&LIMITS, &open, true, None), Admission::Replace(LinkId(1)));
        open[7].usefulness = Use::Stranger;
        assert_eq!(admit(&LIMITS, &open, true, None), Admission::Replace(LinkId(7)));
        assert_eq!(admit(&LIMITS, &open, false, None), Admission::Replace(LinkId(7)));
    }

    #[test]
    fn members_that_hold_all_links_leave_a_share_for_strangers() {
        let idle = links(MAX_LINKS, Use::Member, None);
        assert_eq!(admit(&LIMITS, &idle, false, None), Admission::Replace(LinkId(0)));
        let mut open = links(MAX_LINKS, Use::Used, None);
        let newest = LinkId(MAX_LINKS as u64 - 1);
        assert_eq!(admit(&LIMITS, &open, false, None), Admission::Replace(newest));
        assert_eq!(admit(&LIMITS, &open, true, None), Admission::Refuse);
        // Those of the network that holds the most go first.
        for link in &mut open[7..] {
            link.network = network(1);
        }
        let opened = open[MAX_LINKS - 1].opened + Duration::from_secs(1);
        open.push(Candidate { id: LinkId(9999), network: network(2), opened, ..open[3] });
        assert_eq!(admit(&LIMITS, &open, false, None), Admission::Replace(newest));
        for link in &mut open[..LIMITS.of_network] {
            link.usefulness = Use::Stranger;
        }
        assert_eq!(admit(&LIMITS, &open, false, None), Admission::Replace(LinkId(0)));
    }

    #[test]
    fn no_link_that_is_needed_makes_room_for_anybody() {
        let open = links(MAX_LINKS, Use::Needed, None);
        for is_member in [false, true] {
            assert_eq!(admit(&LIMITS, &open, is_member, None), Admission::Refuse);
        }
    }
}
