//! The content of a gossip frame: records and accusations, or one broadcast of an application.

use bytes::Bytes;

use super::{
    fields::{accusation, bounded_bytes, list, record},
    limits::MAX_RECORDS,
};
use crate::{broadcast::MAX_SIGNED, cbor::Value, error::Error};

const RECORD: u64 = 0;
const ACCUSATION: u64 = 1;
const BROADCAST: u64 = 2;

/// One item of a broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Record(Bytes),
    Accusation(Bytes),
}

impl Item {
    pub(crate) fn bytes(&self) -> &Bytes {
        let (Self::Record(bytes) | Self::Accusation(bytes)) = self;
        bytes
    }
}

/// Encodes the content of a broadcast: a list of `[kind, bytes]`.
pub(crate) fn encode_content<'a>(items: impl IntoIterator<Item = &'a Item>) -> Bytes {
    let item = |item: &Item| {
        let (kind, bytes) = match item {
            Item::Record(bytes) => (RECORD, bytes),
            Item::Accusation(bytes) => (ACCUSATION, bytes),
        };
        Value::array([Value::uint(kind), Value::bytes(bytes)])
    };
    Value::array(items.into_iter().map(item)).encode().into()
}

/// Decodes the content of a broadcast. An unknown kind is an error, because what can't be verified
/// must not be forwarded.
pub(crate) fn decode_content(content: &[u8]) -> Result<Vec<Item>, Error> {
    list("content", Value::decode("content", content)?, MAX_RECORDS, |item| {
        let mut pair = item.into_array("content")?;
        match pair.take()?.into_uint::<u64>("content kind")? {
            RECORD => record(pair.take()?).map(Item::Record),
            ACCUSATION => accusation(pair.take()?).map(Item::Accusation),
            kind => Err(Error::malformed("content", format!("kind {kind} is not known"))),
        }
    })
}

/// Returns true if a content carries a broadcast of an application: one item, of kind 2. That has
/// one form in deterministic CBOR. The item may get more fields in later versions.
pub(crate) fn is_broadcast(content: &[u8]) -> bool {
    matches!(content, [0x81, 0x82..=0x97, 0x02, ..])
}

/// Encodes the content that carries an application's broadcast: alone, so that it takes a lane of
/// its own.
pub(crate) fn encode_broadcast(signed: &[u8]) -> Bytes {
    let item = Value::array([Value::uint(BROADCAST), Value::bytes(signed)]);
    Value::array([item]).encode().into()
}

/// Returns the signed broadcast in a content for which [`is_broadcast`] is true.
pub(crate) fn decode_broadcast(content: &[u8]) -> Result<Bytes, Error> {
    const WHAT: &str = "content";
    let mut items = Value::decode(WHAT, content)?.into_array(WHAT)?;
    let mut item = items.take()?.into_array(WHAT)?;
    item.take()?;
    bounded_bytes("broadcast", item.take()?, MAX_SIGNED)
}
