//! Which links an endpoint keeps when there are many: the least useful goes first.

use tokio::time::Instant;

use crate::{
    proto::{LinkId, MAX_LINKS},
    subnet::Subnet,
};

/// The most links of each kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of all peers.
    pub(crate) links: usize,
    /// Of peers that opened them and are in no book: the rest is for members.
    strangers: usize,
    /// Of these from one network.
    of_network: usize,
}

impl Limits {
    /// Returns true if there are so few links that none has to make room.
    pub(crate) fn have_room(&self, links: usize) -> bool {
        links < self.of_network
    }

    /// Half of the links for strangers, an eighth for those of one network.
    pub(crate) const fn of(links: usize) -> Self {
        Self { links, strangers: links / 2, of_network: links / 8 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(MAX_LINKS)
    }
}

/// How useful a link is, least useful first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// The peer opened it and is in no book.
    Stranger,
    /// A member, which is linked for a moment.
    Member,
    /// A neighbor, a peer that this node dialed, or one whose messages or streams use the link.
    Needed,
}

/// An open link, as the choice sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) id: LinkId,
    pub(crate) usefulness: Use,
    pub(crate) network: Option<Subnet>,
    pub(crate) opened: Instant,
}

/// What becomes of a connection that a peer opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// There is room.
    Admit,
    /// There is room once this link is closed.
    Replace(LinkId),
    /// Every link is more useful.
    Refuse,
}

/// Decides on a connection of a member or a stranger. The newest stranger gets in: an honest one is a
/// member soon, so that a link of a stranger that is old is of no use.
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
        let least = links
            .iter()
            .filter(|link| link.usefulness == Use::Stranger || is_member)
            .filter(|link| link.usefulness != Use::Needed)
            .min_by_key(|link| (link.usefulness, link.opened));
        match least {
            Some(link) => Some(link.id),
            None => return Admission::Refuse,
        }
    } else {
        None
    };
    replaced.map_or(Admission::Admit, Admission::Replace)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const LIMITS: Limits = Limits::of(MAX_LINKS);

    /// Links in the order of their age, oldest first.
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
    fn no_link_of_a_member_makes_room_for_a_stranger_and_no_needed_one_for_anybody() {
        assert_eq!(
            admit(&LIMITS, &links(MAX_LINKS, Use::Member, None), false, None),
            Admission::Refuse
        );
        assert_eq!(
            admit(&LIMITS, &links(MAX_LINKS, Use::Needed, None), true, None),
            Admission::Refuse
        );
    }
}
