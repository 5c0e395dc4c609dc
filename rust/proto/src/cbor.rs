//! Deterministic CBOR (RFC 8949 §4.2) on `serde_cbor`, which stays behind this module.
//!
//! Bytes from outside are checked before a decoder sees them: definite lengths, shortest forms,
//! sorted unique keys, no tags, no floats, at most [`MAX_DEPTH`] levels, no more items than a
//! message of that length needs, no trailing bytes. Whatever passes is decoded into memory in
//! proportion to its length.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_cbor::{Serializer, Value as Raw};

use crate::error::Error;

/// Deepest nesting of arrays and maps. Records travel as byte strings, within which the count
/// begins again.
pub(crate) const MAX_DEPTH: usize = 4;
/// Items that an encoding may have besides one for every two bytes. A tree of tiny items would take
/// many times its encoding in memory. The densest honest message is metadata with one-letter keys.
const SPARE_ITEMS: usize = 64;

/// A CBOR data item of the subset that the protocol speaks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value(Raw);

impl Value {
    pub(crate) fn uint(n: impl Into<u64>) -> Self {
        Self(Raw::Integer(i128::from(n.into())))
    }

    pub(crate) fn int(n: i64) -> Self {
        Self(Raw::Integer(i128::from(n)))
    }

    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self(Raw::Bytes(bytes.to_vec()))
    }

    pub(crate) fn text(text: &str) -> Self {
        Self(Raw::Text(text.to_owned()))
    }

    pub(crate) fn bool(b: bool) -> Self {
        Self(Raw::Bool(b))
    }

    pub(crate) fn null() -> Self {
        Self(Raw::Null)
    }

    pub(crate) fn array(items: impl IntoIterator<Item = Self>) -> Self {
        Self(Raw::Array(items.into_iter().map(|item| item.0).collect()))
    }

    pub(crate) fn map(entries: impl IntoIterator<Item = (Self, Self)>) -> Self {
        Self(Raw::Map(entries.into_iter().map(|(key, value)| (key.0, value.0)).collect()))
    }

    /// Returns the deterministic encoding. `serde_cbor` sorts maps by type, length and bytes. For
    /// keys that are integers or strings, that is the order of RFC 8949 §4.2.1.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(encoded_len(&self.0));
        self.0
            .serialize(&mut Serializer::new(&mut bytes))
            .expect("integers, strings and containers always encode");
        bytes
    }

    /// Decodes exactly one item in deterministic form.
    pub(crate) fn decode(what: &'static str, bytes: &[u8]) -> Result<Self, Error> {
        let mut walk = Walk { rest: bytes, spare: SPARE_ITEMS + bytes.len() / 2 };
        let end = |walk: &Walk| if walk.rest.is_empty() { Ok(()) } else { Err("trailing bytes") };
        walk.item(0).and_then(|()| end(&walk)).map_err(|reason| Error::malformed(what, reason))?;
        serde_cbor::from_slice(bytes)
            .map(Self)
            .map_err(|error| Error::malformed(what, error.to_string()))
    }

    pub(crate) fn into_array(self, what: &'static str) -> Result<Fields, Error> {
        match self.0 {
            Raw::Array(items) => Ok(Fields { what, items: items.into_iter() }),
            _ => Err(Error::malformed(what, "not an array")),
        }
    }

    pub(crate) fn into_map(self, what: &'static str) -> Result<Vec<(Self, Self)>, Error> {
        match self.0 {
            Raw::Map(map) => Ok(map.into_iter().map(|(k, v)| (Self(k), Self(v))).collect()),
            _ => Err(Error::malformed(what, "not a map")),
        }
    }

    /// Returns the entries of a map whose keys are integers. Other keys belong to a later version,
    /// and are left out.
    pub(crate) fn into_keyed(self, what: &'static str) -> Result<Keyed, Error> {
        let entries = self.into_map(what)?.into_iter();
        let entries = entries.filter_map(|(key, value)| Some((key.as_int()?, value))).collect();
        Ok(Keyed { what, entries })
    }

    pub(crate) fn into_bytes(self, what: &'static str) -> Result<Vec<u8>, Error> {
        match self.0 {
            Raw::Bytes(bytes) => Ok(bytes),
            _ => Err(Error::malformed(what, "not a byte string")),
        }
    }

    pub(crate) fn into_fixed<const N: usize>(self, what: &'static str) -> Result<[u8; N], Error> {
        <[u8; N]>::try_from(self.into_bytes(what)?)
            .map_err(|bytes| Error::malformed(what, format!("{} bytes, not {N}", bytes.len())))
    }

    pub(crate) fn into_text(self, what: &'static str) -> Result<String, Error> {
        match self.0 {
            Raw::Text(text) => Ok(text),
            _ => Err(Error::malformed(what, "not a text string")),
        }
    }

    pub(crate) fn into_bool(self, what: &'static str) -> Result<bool, Error> {
        match self.0 {
            Raw::Bool(b) => Ok(b),
            _ => Err(Error::malformed(what, "not a boolean")),
        }
    }

    pub(crate) fn into_uint<T: TryFrom<u64>>(self, what: &'static str) -> Result<T, Error> {
        match self.0 {
            Raw::Integer(n) => u64::try_from(n)
                .ok()
                .and_then(|n| T::try_from(n).ok())
                .ok_or_else(|| Error::malformed(what, format!("{n} is out of range"))),
            _ => Err(Error::malformed(what, "not an unsigned integer")),
        }
    }

    /// Returns the value, or `None` for null.
    pub(crate) fn optional(self) -> Option<Self> {
        if self.0 == Raw::Null { None } else { Some(self) }
    }

    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self.0, Raw::Bytes(_))
    }

    pub(crate) fn as_int(&self) -> Option<i128> {
        match &self.0 {
            Raw::Integer(n) => Some(*n),
            _ => None,
        }
    }
}

/// Returns how many bytes the encoding of a value takes.
fn encoded_len(value: &Raw) -> usize {
    let head = |argument: u64| match argument {
        0..24 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    };
    let string = |len: usize| head(len as u64) + len;
    match value {
        Raw::Integer(n) => {
            head(u64::try_from(if *n < 0 { -1 - n } else { *n }).unwrap_or(u64::MAX))
        }
        Raw::Bytes(bytes) => string(bytes.len()),
        Raw::Text(text) => string(text.len()),
        Raw::Array(items) => {
            head(items.len() as u64) + items.iter().map(encoded_len).sum::<usize>()
        }
        Raw::Map(map) => {
            let entries = map.iter().map(|(key, value)| encoded_len(key) + encoded_len(value));
            head(map.len() as u64) + entries.sum::<usize>()
        }
        // Only null and booleans are left.
        _ => 1,
    }
}

/// The items of an array, taken in turn. What is left over belongs to a later version.
pub(crate) struct Fields {
    what: &'static str,
    items: std::vec::IntoIter<Raw>,
}

impl Fields {
    pub(crate) fn take(&mut self) -> Result<Value, Error> {
        self.items.next().map(Value).ok_or_else(|| Error::malformed(self.what, "too few items"))
    }

    /// Takes the next item, if there is one. It is a field that a later version added.
    pub(crate) fn take_optional(&mut self) -> Option<Value> {
        self.items.next().map(Value)
    }

    /// Returns all remaining items, at most `limit`.
    pub(crate) fn list(self, limit: usize) -> Result<impl Iterator<Item = Value>, Error> {
        if self.items.len() > limit {
            return Err(Error::malformed(
                self.what,
                format!("{} items, the limit is {limit}", self.items.len()),
            ));
        }
        Ok(self.items.map(Value))
    }
}

/// The entries of a map, taken by their integer keys. What is left over belongs to a later version.
pub(crate) struct Keyed {
    what: &'static str,
    entries: BTreeMap<i128, Value>,
}

impl Keyed {
    /// Takes out the value of a key, if there is one.
    pub(crate) fn take(&mut self, key: i64) -> Option<Value> {
        self.entries.remove(&i128::from(key))
    }

    /// Takes out the value of a required key, which the error calls `name`.
    pub(crate) fn required(&mut self, key: i64, name: &'static str) -> Result<Value, Error> {
        self.take(key).ok_or_else(|| Error::malformed(self.what, format!("no {name}")))
    }
}

/// Walks an encoding without building anything.
struct Walk<'a> {
    rest: &'a [u8],
    spare: usize,
}

impl<'a> Walk<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8], &'static str> {
        let n = usize::try_from(n).map_err(|_| "a length beyond the end")?;
        let (head, tail) = self.rest.split_at_checked(n).ok_or("a length beyond the end")?;
        self.rest = tail;
        Ok(head)
    }

    /// Reads the next head, which has to be in shortest form. Returns its major type and argument.
    fn head(&mut self) -> Result<(u8, u64), &'static str> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        let width = match info {
            0..=23 => return Ok((major, u64::from(info))),
            24..=27 => 1_u64 << (info - 24),
            31 => return Err("an indefinite length"),
            _ => return Err("a reserved head"),
        };
        let argument = self.take(width)?.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        let least = match width {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            _ => 1 << 32,
        };
        if major != 7 && argument < least {
            return Err("not the shortest form");
        }
        Ok((major, argument))
    }

    fn item(&mut self, depth: usize) -> Result<(), &'static str> {
        self.spare = self.spare.checked_sub(1).ok_or("too many items for its length")?;
        let (major, argument) = self.head()?;
        match major {
            0 | 1 => Ok(()),
            2 => self.take(argument).map(drop),
            3 => std::str::from_utf8(self.take(argument)?)
                .map(drop)
                .map_err(|_| "text that is not UTF-8"),
            4 | 5 if depth == MAX_DEPTH => Err("nested too deeply"),
            4 => (0..argument).try_for_each(|_| self.item(depth + 1)),
            5 => {
                let mut last: &[u8] = &[];
                for _ in 0..argument {
                    let start = self.rest;
                    self.item(depth + 1)?;
                    let key = &start[..start.len() - self.rest.len()];
                    if key <= last {
                        return Err("map keys not sorted or not unique");
                    }
                    last = key;
                    self.item(depth + 1)?;
                }
                Ok(())
            }
            7 if (20..=22).contains(&argument) => Ok(()),
            6 => Err("a tag"),
            _ => Err("a float or simple value"),
        }
    }
}
