//! The signed broadcast: a message of an application to all members of a topic, and its pace.
//!
//! It names the author's boot id and counts up with each broadcast of that life. So a member
//! delivers each broadcast at most once, however often it arrives.

use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use tokio::time::Instant;

use crate::{
    budget::{Budget, Rate},
    cbor::Value,
    channel::Channel,
    cose::{self, Envelope},
    error::Error,
    id::{EndpointId, TopicId},
};

/// Largest broadcast, in bytes. Every member holds it for some 10 s, for neighbors that may lack
/// it, and forwards it whole before the next one. Larger data belongs into a stream.
pub const MAX_BROADCAST: usize = 8 * 1024;
/// Longest signed broadcast, in bytes on the wire. Signing adds up to 245 bytes to the data.
pub(crate) const MAX_SIGNED: usize = MAX_BROADCAST + 512;

/// The pace that an author keeps for its own broadcasts.
const PACE: Rate = Rate { messages: (128.0, 256.0), bytes: (384.0 * 1024.0, 1024.0 * 1024.0) };
/// The rate that others accept from one author. It is higher, because the network bunches what was
/// spaced.
pub(crate) const OF_AUTHOR: Rate =
    Rate { messages: (160.0, 512.0), bytes: (512.0 * 1024.0, 2.0 * 1024.0 * 1024.0) };

const KIND: &str = "iroh-gossip-discovery/broadcast/1";
const BOOT_ID: i64 = 0;
const NUMBER: i64 = 1;
const DATA: i64 = 2;
const CHANNEL: i64 = 3;

/// The pace at which an application may broadcast in one topic: 128 messages and 384 KiB a second,
/// after a burst of 256 messages or 1 MiB. Others drop what comes much faster.
///
/// ```
/// use iroh_gossip_discovery_proto::Pace;
/// use tokio::time::Instant;
///
/// let now = Instant::now();
/// let mut pace = Pace::new(now);
/// assert_eq!((0..1000).filter(|_| pace.take(100, now).is_ok()).count(), 256);
/// let wait = pace.take(100, now).unwrap_err();
/// assert!(pace.take(100, now + wait).is_ok());
/// ```
#[derive(Debug)]
pub struct Pace(Budget);

impl Pace {
    /// Returns the pace of an author that was silent until now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Budget::new(PACE, now))
    }

    /// Takes one broadcast of `bytes` bytes from the budget.
    ///
    /// # Errors
    /// The time to wait before the next attempt.
    pub fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Duration> {
        self.0.take_or_wait(bytes, now)
    }
}

/// A broadcast whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broadcast {
    pub(crate) author: EndpointId,
    /// The author's life.
    pub(crate) boot_id: u64,
    /// Counts up from 0 with each broadcast of that life.
    pub(crate) number: u64,
    pub(crate) channel: Option<Channel>,
    pub(crate) data: Bytes,
}

impl Broadcast {
    /// Signs a broadcast without a channel, and returns its bytes.
    pub(crate) fn sign(
        key: &SigningKey,
        topic: &TopicId,
        boot_id: u64,
        number: u64,
        data: &[u8],
    ) -> Bytes {
        Self::sign_for(None, key, topic, boot_id, number, data)
    }

    /// Signs a broadcast in a channel or in none, and returns its bytes.
    pub(crate) fn sign_for(
        channel: Option<&Channel>,
        key: &SigningKey,
        topic: &TopicId,
        boot_id: u64,
        number: u64,
        data: &[u8],
    ) -> Bytes {
        let payload = [
            (Value::int(BOOT_ID), Value::uint(boot_id)),
            (Value::int(NUMBER), Value::uint(number)),
            (Value::int(DATA), Value::bytes(data)),
        ];
        let channel = channel.map(|name| (Value::int(CHANNEL), name.encode()));
        let payload = Value::map(payload.into_iter().chain(channel));
        cose::sign(key, KIND, topic, &payload.encode())
    }

    /// Parses a broadcast without verifying its signature.
    pub(crate) fn open(bytes: &Bytes) -> Result<Envelope, Error> {
        Envelope::open("broadcast", MAX_SIGNED, bytes)
    }

    /// Verifies and then decodes a broadcast. Keys of a later version are ignored.
    pub(crate) fn verify(envelope: &Envelope, topic: &TopicId) -> Result<Self, Error> {
        const WHAT: &str = "broadcast";
        let payload = envelope.verify(KIND, topic)?;
        let mut fields = Value::decode(WHAT, payload)?.into_keyed(WHAT)?;
        let data = fields.required(DATA, "data")?.into_bytes("data")?;
        if data.len() > MAX_BROADCAST {
            let reason = format!("{} bytes, the limit is {MAX_BROADCAST}", data.len());
            return Err(Error::malformed(WHAT, reason));
        }
        Ok(Self {
            author: envelope.claimed,
            boot_id: fields.required(BOOT_ID, "boot id")?.into_uint("boot id")?,
            number: fields.required(NUMBER, "number")?.into_uint("number")?,
            channel: fields.take(CHANNEL).map(Channel::decode).transpose()?,
            data: data.into(),
        })
    }
}

/// The numbers that were heard from one life: the highest, and which of those just below it. This
/// is the anti-replay window of RFC 6479. Older numbers count as heard.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// One above the highest number that was heard.
    end: u64,
    heard: [u64; WORDS],
}

const WORDS: usize = 32;

impl Window {
    /// The width of the window: 16 s at full pace, which is longer than members hold a broadcast
    /// for others.
    pub(crate) const SIZE: u64 = WORDS as u64 * 64;

    /// Returns true if a number may be new.
    pub(crate) fn is_new(&self, number: u64) -> bool {
        if number >= self.end {
            return number < u64::MAX;
        }
        self.end - number <= Self::SIZE && self.heard[Self::word(number)] & Self::bit(number) == 0
    }

    /// Marks a number as heard.
    pub(crate) fn insert(&mut self, number: u64) {
        if number >= self.end {
            if number - self.end >= Self::SIZE {
                self.heard = [0; WORDS];
            } else {
                for skipped in self.end..number {
                    self.heard[Self::word(skipped)] &= !Self::bit(skipped);
                }
            }
            self.end = number + 1;
        }
        self.heard[Self::word(number)] |= Self::bit(number);
        debug_assert!(number < self.end && !self.is_new(number), "a heard number is not new");
    }

    fn word(number: u64) -> usize {
        usize::try_from(number % Self::SIZE / 64).expect("one of 32")
    }

    fn bit(number: u64) -> u64 {
        1 << (number % 64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Returns how many messages of `bytes` each a budget lets through in `seconds` of constant
    /// attempts.
    fn passed(take: &mut dyn FnMut(usize, Instant) -> bool, bytes: usize, seconds: u64) -> usize {
        let start = Instant::now();
        let asked = (0..seconds * 1000).map(|ms| start + Duration::from_millis(ms));
        asked.map(|now| (0..1100).take_while(|_| take(bytes, now)).count()).sum()
    }

    #[test]
    fn the_pace_is_what_is_said_of_it_and_others_take_it_even_where_it_is_bunched() {
        let start = Instant::now();
        for (bytes, at_once, a_second) in [(16, 256, 128), (MAX_BROADCAST, 128, 48)] {
            let mut pace = Pace::new(start);
            let take = |pace: &mut Pace, bytes, now| pace.take(bytes, now).is_ok();
            let all = passed(&mut |bytes, now| take(&mut pace, bytes, now), bytes, 60);
            let expected = at_once + 60 * a_second;
            assert!((expected - 2..=expected).contains(&all), "{all} of {bytes} bytes");

            // Each second's messages come at once, and the first second also brings the whole
            // burst.
            let mut pace = Pace::new(start);
            let mut of_author = Budget::new(OF_AUTHOR, start);
            for second in 1..=60 {
                let now = start + Duration::from_secs(second);
                let mut said = 0;
                for ms in 0..1000 {
                    let then = start + Duration::from_millis(second * 1000 - 1000 + ms);
                    while take(&mut pace, bytes, then) {
                        said += 1;
                    }
                }
                let taken = (0..said).filter(|_| of_author.take(bytes, now)).count();
                assert_eq!(taken, said, "of {bytes} bytes in second {second}");
            }
        }
    }

    #[test]
    fn an_author_that_sends_much_more_than_its_pace_is_limited() {
        for (bytes, at_once, a_second) in [(16, 512, 160), (MAX_BROADCAST, 256, 64)] {
            let mut of_author = Budget::new(OF_AUTHOR, Instant::now());
            let all = passed(&mut |bytes, now| of_author.take(bytes, now), bytes, 60);
            let expected = at_once + 60 * a_second;
            assert!((expected - 2..=expected).contains(&all), "{all} of {bytes} bytes");
        }
    }

    #[test]
    fn a_window_takes_each_number_once_and_nothing_that_is_too_old() {
        let mut window = Window::default();
        let mut taken = BTreeSet::new();
        // Numbers that jump forward by all sizes, and back within and beyond the window.
        let mut random = 1_u64;
        let mut highest = 0;
        for _ in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let jump = if random >> 60 == 0 { 5000 } else { 3 };
            let number = (highest + (random >> 32) % jump).saturating_sub((random >> 20) % 3000);
            let too_old = highest >= Window::SIZE && number <= highest - Window::SIZE;
            let new = !taken.contains(&number) && !too_old;
            assert_eq!(window.is_new(number), new, "{number} after {highest}");
            if new {
                window.insert(number);
                taken.insert(number);
                highest = highest.max(number);
            }
        }
        assert!(taken.len() > 10_000, "{}", taken.len());
    }

    #[test]
    fn the_last_number_of_all_is_refused_and_the_one_before_it_is_not() {
        let mut window = Window::default();
        assert!(!window.is_new(u64::MAX));
        assert!(window.is_new(u64::MAX - 1));
        window.insert(u64::MAX - 1);
        assert!(!window.is_new(u64::MAX - 1));
        assert!(!window.is_new(0));
    }
}
