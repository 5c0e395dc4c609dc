//! The frame of a sync: what the sender has in some ranges of ids, and what either end lacks.

use std::time::Duration;

use bytes::Bytes;

use super::{
    fields::{accusation, endpoint_id, list, record, sequence},
    limits::{MAX_AGE_MS, MAX_LISTED, MAX_RANGES, MAX_RECORDS},
};
use crate::{
    cbor::{Fields, Value},
    error::Error,
    id::EndpointId,
};

pub(super) const TAG: u64 = 15;

/// One frame of a sync: what the sender has in some ranges of ids, records that the receiver lacks,
/// and ids whose records the sender wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncFrame {
    /// The number of the session, which the initiator chooses. It rises on each link.
    pub(crate) session: u64,
    pub(crate) from_initiator: bool,
    /// True if the sender has a neighbor in the overlay. A node that has none is a newcomer.
    pub(crate) attached: bool,
    pub(crate) turn: Turn,
    pub(crate) ranges: Vec<Range>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) wants: Vec<EndpointId>,
    /// True if the sender only observes: it has no record, and no place in the overlay.
    pub(crate) observer: bool,
}

/// Which end speaks next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// More frames of this turn follow at once.
    More,
    /// It is the receiver's turn, and the sender has more for a later turn.
    Paused,
    /// It is the receiver's turn, and the sender has nothing more.
    Yours,
    /// Neither end has anything more: the session is over.
    Done,
}

impl Turn {
    fn encode(self) -> Value {
        Value::uint(match self {
            Self::More => 0_u64,
            Self::Paused => 1,
            Self::Yours => 2,
            Self::Done => 3,
        })
    }

    fn decode(value: Value) -> Result<Self, Error> {
        match value.into_uint::<u64>("sync")? {
            0 => Ok(Self::More),
            1 => Ok(Self::Paused),
            2 => Ok(Self::Yours),
            3 => Ok(Self::Done),
            turn => Err(Error::malformed("sync", format!("turn {turn} is not known"))),
        }
    }
}

/// A range of ids, from the end of the range before it up to `end`, which is not part of it. `None`
/// means no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) end: Option<EndpointId>,
    pub(crate) what: RangeContent,
}

/// What the sender says about a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RangeContent {
    /// Both ends agree on the range, or another frame describes it.
    Skip,
    Fingerprint {
        hash: [u8; 16],
        count: u64,
    },
    /// The ids and sequence numbers of all that the sender has there.
    List(Vec<(EndpointId, u64)>),
}

impl Range {
    fn encode(&self) -> Value {
        let end = self.end.map_or_else(Value::null, |id| Value::bytes(id.as_bytes()));
        match &self.what {
            RangeContent::Skip => Value::array([end]),
            RangeContent::Fingerprint { hash, count } => {
                Value::array([end, Value::bytes(hash), Value::uint(*count)])
            }
            RangeContent::List(list) => {
                let listed = list
                    .iter()
                    .map(|(id, sequence)| (Value::bytes(id.as_bytes()), Value::uint(*sequence)));
                Value::array([end, Value::map(listed)])
            }
        }
    }

    fn decode(item: Value) -> Result<Self, Error> {
        const WHAT: &str = "sync range";
        let mut fields = item.into_array(WHAT)?;
        let end = fields.take()?.optional();
        let end = end.map(|id| id.into_fixed(WHAT).map(EndpointId::from_bytes)).transpose()?;
        let Ok(content) = fields.take() else {
            return Ok(Self { end, what: RangeContent::Skip });
        };
        if content.is_bytes() {
            let hash = content.into_fixed(WHAT)?;
            let count = fields.take()?.into_uint(WHAT)?;
            return Ok(Self { end, what: RangeContent::Fingerprint { hash, count } });
        }
        // Canonical form sorts the ids and has each once.
        let listed = content.into_map(WHAT)?.into_iter();
        let listed = listed.map(|(id, listed)| Ok((endpoint_id(id)?, sequence(listed)?)));
        let listed = listed.collect::<Result<_, Error>>()?;
        Ok(Self { end, what: RangeContent::List(listed) })
    }
}

/// A record, and the time since its holder last heard its owner. If the holder suspects the owner
/// or holds it to be dead, the accusation comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) record: Bytes,
    pub(crate) age_ms: u64,
    pub(crate) accusation: Option<Bytes>,
}

impl Entry {
    /// Returns how old the record is.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_millis(self.age_ms)
    }

    fn encode(&self) -> Value {
        let accusation = self.accusation.as_ref().map(|bytes| Value::bytes(bytes));
        let known = [Value::bytes(&self.record), Value::uint(self.age_ms)];
        Value::array(known.into_iter().chain(accusation))
    }

    fn decode(item: Value) -> Result<Self, Error> {
        let mut fields = item.into_array("sync entry")?;
        let record = record(fields.take()?)?;
        let age_ms = fields.take()?.into_uint::<u64>("age")?.min(MAX_AGE_MS);
        let accusation = fields.take().ok().map(accusation).transpose()?;
        Ok(Self { record, age_ms, accusation })
    }
}

impl SyncFrame {
    /// Returns about how many bytes the frame takes on the wire.
    pub(crate) fn weight(&self) -> usize {
        let range = |range: &Range| match &range.what {
            RangeContent::Skip => 36,
            RangeContent::Fingerprint { .. } => 56,
            RangeContent::List(list) => 40 + 43 * list.len(),
        };
        let entry = |entry: &Entry| {
            12 + entry.record.len() + entry.accusation.as_ref().map_or(0, |bytes| 3 + bytes.len())
        };
        let ranges: usize = self.ranges.iter().map(range).sum();
        let entries: usize = self.entries.iter().map(entry).sum();
        16 + ranges + entries + 34 * self.wants.len()
    }

    pub(super) fn encode(&self) -> Vec<Value> {
        let mut fields = vec![
            Value::uint(self.session),
            Value::bool(self.from_initiator),
            Value::bool(self.attached),
            self.turn.encode(),
            Value::array(self.ranges.iter().map(Range::encode)),
            Value::array(self.entries.iter().map(Entry::encode)),
            Value::array(self.wants.iter().map(|id| Value::bytes(id.as_bytes()))),
        ];
        if self.observer {
            fields.push(Value::bool(true));
        }
        fields
    }

    pub(super) fn decode(fields: &mut Fields) -> Result<Self, Error> {
        const WHAT: &str = "sync";
        Ok(Self {
            session: fields.take()?.into_uint(WHAT)?,
            from_initiator: fields.take()?.into_bool(WHAT)?,
            attached: fields.take()?.into_bool(WHAT)?,
            turn: Turn::decode(fields.take()?)?,
            ranges: decode_ranges(fields.take()?)?,
            entries: list("sync entries", fields.take()?, MAX_RECORDS, Entry::decode)?,
            wants: list("sync wants", fields.take()?, MAX_LISTED, endpoint_id)?,
            // What another type may mean to a later release, nobody knows: it is ignored.
            observer: fields.take_optional().is_some_and(|item| item.into_bool(WHAT) == Ok(true)),
        })
    }
}

/// Decodes ranges. Their ends rise, and only the last one may have no end, so that together they
/// cover each id at most once.
fn decode_ranges(value: Value) -> Result<Vec<Range>, Error> {
    let mut listed = 0;
    let mut last = None;
    list("sync ranges", value, MAX_RANGES, |item| {
        let range = Range::decode(item)?;
        if matches!(last, Some(None)) || (range.end.is_some() && last.flatten() >= range.end) {
            return Err(Error::malformed("sync range", "ends do not rise"));
        }
        last = Some(range.end);
        if let RangeContent::List(list) = &range.what {
            listed += list.len();
        }
        if listed > MAX_LISTED {
            return Err(Error::malformed("sync range", format!("over {MAX_LISTED} ids listed")));
        }
        Ok(range)
    })
}
