//! Reconciliation of two books over ranges of ids (as Negentropy does): its cost follows the
//! difference, not the size of the books.
//!
//! A session is a dialogue in turns over one link. A turn that would be long is cut into frames of
//! bounded size and paused after [`TURN_FRAMES`], so that neither end has more in flight than that.

use std::{collections::VecDeque, ops::Bound, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    book::Book,
    event::LinkId,
    id::EndpointId,
    wire::{
        Entry, MAX_AGE_MS, MAX_LISTED, MAX_RANGES, MAX_SYNC_BYTES, Range, RangeContent, SyncFrame,
        Turn,
    },
};

/// Ranges with at most this many own records are listed instead of split.
const LIST_UP_TO: u64 = 64;
/// A range that differs is split into this many parts.
const BRANCHES: u64 = 16;
/// The other end is asked for the rest at most this many times in a row without anything new.
const IN_VAIN: u32 = 3;
/// The most frames of one turn. After them, the other end has to confirm.
const TURN_FRAMES: usize = 8;

/// The most ranges, and the most wanted ids, that wait to be sent. For the entries to send, twice
/// the size of the book comes on top.
const MAX_PENDING: usize = 20_000;

type Bounds = (Bound<EndpointId>, Bound<EndpointId>);

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: LinkId,
    pub(crate) number: u64,
    pub(crate) initiator: bool,
    /// Once the session is complete, each end has what the other one had at this time.
    pub(crate) began: Instant,
    pub(crate) last_heard: Instant,
    /// When the partner was pinged, because nothing of this session arrived for too long.
    pub(crate) pinged: Option<Instant>,
    /// How often this session was begun before, and how often its partner answered no ping.
    pub(crate) tries: i32,
    /// Records of this session that were news here, and that the partner lacks.
    pub(crate) news: usize,
    /// Records of this session for which there was no room here.
    pub(crate) refused: usize,
    /// The sequence number of the own record that introduced this node to the partner.
    pub(crate) introduced: Option<u64>,
    pub(crate) given: usize,
    /// True if more than one frame was sent since the other end got the digest of the book.
    was_long: bool,
    /// The value of `news` when the other end was last asked for the rest, and how often it was
    /// asked in a row without anything new.
    asked: (usize, u32),
    ranges: VecDeque<(Bounds, RangeContent)>,
    entries: VecDeque<EndpointId>,
    wants: VecDeque<EndpointId>,
}

impl Session {
    /// A session that stalls for this time is given up.
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

    fn new(link: LinkId, number: u64, initiator: bool, now: Instant) -> Self {
        Self {
            link,
            number,
            initiator,
            began: now,
            last_heard: now,
            pinged: None,
            tries: 0,
            news: 0,
            refused: 0,
            introduced: None,
            given: 0,
            was_long: false,
            asked: (0, 0),
            ranges: VecDeque::new(),
            entries: VecDeque::new(),
            wants: VecDeque::new(),
        }
    }

    /// Starts a session. If the partner may not know this node yet, its own record comes first.
    /// Then it describes the book, in parts if the whole is likely to differ.
    pub(crate) fn initiate(
        link: LinkId,
        number: u64,
        book: &Book,
        introduce: Option<EndpointId>,
        differs: bool,
        now: Instant,
    ) -> Self {
        let mut session = Self::new(link, number, true, now);
        session.entries.extend(introduce);
        session.describe(book, (Bound::Unbounded, Bound::Unbounded), differs);
        session
    }

    pub(crate) fn respond(link: LinkId, number: u64, now: Instant) -> Self {
        Self::new(link, number, false, now)
    }

    /// Returns true if the partner has not answered yet.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.last_heard == self.began
    }

    /// Takes in the ranges and the wants of a frame, after the caller has applied its entries.
    /// Returns false if the partner requests more than an honest one can.
    pub(crate) fn receive(&mut self, frame: &SyncFrame, book: &Book, now: Instant) -> bool {
        self.last_heard = now;
        self.pinged = None;
        let mut start = Bound::Unbounded;
        for range in &frame.ranges {
            let end = range.end.map_or(Bound::Unbounded, Bound::Excluded);
            self.compare(book, (start, end), &range.what);
            start = range.end.map_or(Bound::Unbounded, Bound::Included);
        }
        self.given += frame.wants.len();
        self.entries.extend(&frame.wants);
        // Honest ends request a record once, in answer to a description.
        self.ranges.len() <= MAX_PENDING
            && self.wants.len() <= MAX_PENDING
            && self.entries.len() <= MAX_PENDING + 2 * book.len_with_hidden()
    }

    /// Sends the leave of a node in return, because the partner showed a record of a node that
    /// left.
    pub(crate) fn offer(&mut self, id: EndpointId) {
        self.entries.push_back(id);
    }

    fn compare(&mut self, book: &Book, bounds: Bounds, theirs: &RangeContent) {
        match theirs {
            RangeContent::Skip => {}
            RangeContent::Fingerprint { hash, count } => {
                let (mine, _) = book.fingerprint(bounds);
                if mine == *hash {
                } else if *count == 0 {
                    let before = self.entries.len();
                    self.entries.extend(book.range(bounds).map(|(id, _)| id));
                    self.given += self.entries.len() - before;
                } else {
                    self.describe(book, bounds, true);
                }
            }
            RangeContent::List(theirs) => self.resolve(book, bounds, theirs),
        }
    }

    /// Describes what this node has in a range: by a list if it is short, or else by the
    /// fingerprints of its parts. Without `split`, one fingerprint stands for all of it.
    fn describe(&mut self, book: &Book, bounds: Bounds, split: bool) {
        let (hash, count) = book.fingerprint(bounds);
        if !split {
            self.ranges.push_back((bounds, RangeContent::Fingerprint { hash, count }));
        } else if count <= LIST_UP_TO {
            self.ranges.push_back((bounds, RangeContent::List(book.range(bounds).collect())));
        } else {
            let ids: Vec<_> = book.range(bounds).map(|(id, _)| id).collect();
            let mut start = bounds.0;
            for branch in 1..=BRANCHES {
                let at = usize::try_from(count * branch / BRANCHES).unwrap_or(ids.len());
                let end = ids.get(at).map_or(bounds.1, |id| Bound::Excluded(*id));
                let (hash, count) = book.fingerprint((start, end));
                self.ranges.push_back(((start, end), RangeContent::Fingerprint { hash, count }));
                start = match end {
                    Bound::Excluded(id) => Bound::Included(id),
                    other => other,
                };
            }
        }
    }

    /// Compares the partner's whole list of a range with this node's. Sends what the partner lacks,
    /// and wants what this node lacks.
    fn resolve(&mut self, book: &Book, bounds: Bounds, theirs: &[(EndpointId, u64)]) {
        let mut theirs = theirs.iter().copied().filter(|(id, _)| contains(bounds, id)).peekable();
        for (id, sequence) in book.range(bounds) {
            while let Some((other, their_sequence)) = theirs.next_if(|(other, _)| *other < id) {
                self.resolve_absent(book, other, their_sequence);
            }
            match theirs.next_if(|(other, _)| *other == id) {
                Some((_, their_sequence)) if their_sequence > sequence => self.wants.push_back(id),
                Some((_, their_sequence)) if their_sequence == sequence => {}
                _ => {
                    self.given += 1;
                    self.entries.push_back(id);
                }
            }
        }
        for (other, their_sequence) in theirs {
            self.resolve_absent(book, other, their_sequence);
        }
    }

    /// Handles a node that the partner has and that is not live here. Its record is wanted, unless
    /// a tombstone here is as new.
    fn resolve_absent(&mut self, book: &Book, id: EndpointId, sequence: u64) {
        match book.sequence(&id) {
            None => self.wants.push_back(id),
            Some(known) if sequence > known => self.wants.push_back(id),
            // The evidence is the signed leave if it left, and an accusation if it is dead. There
            // is none for a node that expired.
            Some(_) => self.entries.push_back(id),
        }
    }

    /// Returns the frames of one turn. `theirs` is the turn that the partner ended with.
    pub(crate) fn take_turn(
        &mut self,
        book: &Book,
        attached: bool,
        theirs: Turn,
        now: Instant,
    ) -> Vec<SyncFrame> {
        let mut frames = Vec::new();
        let mut asks = false;
        loop {
            let mut frame = SyncFrame {
                session: self.number,
                from_initiator: self.initiator,
                attached,
                turn: Turn::More,
                ranges: self.next_ranges(),
                entries: self.next_entries(book, now),
                wants: self.next_wants(),
                observer: false,
            };
            // Records are confirmed, so that a busy end knows which of its syncs still go on.
            asks |=
                !(frame.ranges.is_empty() && frame.wants.is_empty() && frame.entries.is_empty());
            let pending =
                !self.ranges.is_empty() || !self.entries.is_empty() || !self.wants.is_empty();
            frame.turn = match (pending, frames.len() + 1 < TURN_FRAMES) {
                (true, true) => Turn::More,
                (true, false) => Turn::Paused,
                (false, _) if asks || theirs == Turn::Paused => Turn::Yours,
                (false, _) => Turn::Done,
            };
            self.was_long |= pending;
            if frame.turn == Turn::Yours && self.was_long && frame.ranges.is_empty() {
                // If the other end's digest differs after this many frames, it requests the rest.
                self.was_long = false;
                self.ask_for_rest(book, &mut frame);
            }
            let last = frame.turn != Turn::More;
            frames.push(frame);
            if last {
                return frames;
            }
        }
    }

    /// Shows the digest of the whole book again, unless that brought nothing new the last
    /// [`IN_VAIN`] times. Two ends that disagree on who is dead would otherwise show each other the
    /// same records forever.
    fn ask_for_rest(&mut self, book: &Book, frame: &mut SyncFrame) {
        let (before, in_vain) = self.asked;
        self.asked = (self.news, if self.news > before { 0 } else { in_vain + 1 });
        if self.asked.1 <= IN_VAIN {
            let (hash, count) = book.fingerprint((Bound::Unbounded, Bound::Unbounded));
            let what = RangeContent::Fingerprint { hash, count };
            frame.ranges.push(Range { end: None, what });
        }
    }

    fn next_ranges(&mut self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        let mut listed = 0;
        while let Some((bounds, content)) = self.ranges.front() {
            let adds = if let RangeContent::List(list) = content { list.len() } else { 0 };
            // A range may need a skip before it.
            if ranges.len() + 2 > MAX_RANGES.min(64)
                || (listed > 0 && listed + adds > MAX_LISTED / 4)
            {
                break;
            }
            let end_so_far = ranges.last().map(|range| range.end);
            let rises = match (end_so_far, bounds.0) {
                (None, _) => true,
                (Some(Some(end)), Bound::Included(start)) => start >= end,
                _ => false,
            };
            if !rises {
                // Ids rise within a frame. This answer is about lower ids than what was left of the
                // turn before, so it begins another frame.
                break;
            }
            listed += adds;
            if let Bound::Included(start) = bounds.0
                && end_so_far != Some(Some(start))
            {
                ranges.push(Range { end: Some(start), what: RangeContent::Skip });
            }
            let (bounds, what) = self.ranges.pop_front().expect("looked at above");
            let end = if let Bound::Excluded(end) = bounds.1 { Some(end) } else { None };
            ranges.push(Range { end, what });
        }
        ranges
    }

    fn next_entries(&mut self, book: &Book, now: Instant) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut size = 0;
        while let Some(id) = self.entries.front()
            && size < MAX_SYNC_BYTES
        {
            if let Some((signed, age, accusation)) = book.testimony(id, now) {
                size += signed.bytes().len() + accusation.map_or(0, Bytes::len);
                let age_ms = u64::try_from(age.as_millis()).unwrap_or(MAX_AGE_MS);
                let record = signed.bytes().clone();
                entries.push(Entry { record, age_ms, accusation: accusation.cloned() });
            }
            self.entries.pop_front();
        }
        entries
    }

    fn next_wants(&mut self) -> Vec<EndpointId> {
        let count = self.wants.len().min(MAX_LISTED / 4);
        self.wants.drain(..count).collect()
    }
}

fn contains(bounds: Bounds, id: &EndpointId) -> bool {
    std::ops::RangeBounds::contains(&bounds, id)
}
