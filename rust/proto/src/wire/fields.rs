//! Decoding of single fields, each with its limit.

use bytes::Bytes;

use super::limits::{MAX_ACCUSATION, MAX_ROUND};
use crate::{
    cbor::Value,
    error::Error,
    id::EndpointId,
    invitation::MAX_INVITATION,
    record::{MAX_RECORD, MAX_SEQUENCE},
};

/// Decodes an array of at most `limit` items, each by `item`.
pub(super) fn list<T>(
    what: &'static str,
    value: Value,
    limit: usize,
    item: impl FnMut(Value) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    value.into_array(what)?.list(limit)?.map(item).collect()
}

/// Encodes a list of byte strings, such as signed records.
pub(super) fn bytes_list(list: &[Bytes]) -> Value {
    Value::array(list.iter().map(|bytes| Value::bytes(bytes)))
}

pub(super) fn endpoint_id(value: Value) -> Result<EndpointId, Error> {
    value.into_fixed("endpoint id").map(EndpointId::from_bytes)
}

pub(super) fn accusation(value: Value) -> Result<Bytes, Error> {
    bounded_bytes("accusation", value, MAX_ACCUSATION)
}

pub(super) fn revocation(value: Value) -> Result<Bytes, Error> {
    bounded_bytes("revocation", value, MAX_INVITATION)
}

pub(super) fn record(value: Value) -> Result<Bytes, Error> {
    bounded_bytes("record", value, MAX_RECORD)
}

pub(super) fn bounded_bytes(
    what: &'static str,
    value: Value,
    limit: usize,
) -> Result<Bytes, Error> {
    let bytes = value.into_bytes(what)?;
    if bytes.len() > limit {
        return Err(Error::malformed(what, format!("{} bytes, the limit is {limit}", bytes.len())));
    }
    Ok(bytes.into())
}

/// Decodes a sequence number, which is below 2⁶² in every message.
pub(crate) fn sequence(value: Value) -> Result<u64, Error> {
    let sequence = value.into_uint("sequence")?;
    if sequence >= MAX_SEQUENCE {
        return Err(Error::malformed("sequence", "not below 2^62"));
    }
    Ok(sequence)
}

/// Decodes the number of hops that a broadcast has made, clamped to its limit.
pub(super) fn round(value: Value) -> Result<u16, Error> {
    value.into_uint::<u64>("round").map(|round| clamp(round, MAX_ROUND))
}

pub(super) fn clamp(n: u64, limit: u16) -> u16 {
    u16::try_from(n).unwrap_or(limit).min(limit)
}
