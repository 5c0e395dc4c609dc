//! The hello: the first frame of a link, in both directions.

use super::limits::VERSIONS;
use crate::{cbor::Value, error::Error};

pub(super) const TAG: u64 = 0;

const MIN_VERSION: i64 = 0;
const MAX_VERSION: i64 = 1;
const BOOT_ID: i64 = 2;
const FEATURES: i64 = 3;

/// What each end of a link says of itself before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) min_version: u64,
    pub(crate) max_version: u64,
    pub(crate) boot_id: u64,
    /// A set of bits: [`Hello::REPLACES`].
    pub(crate) features: u64,
}

impl Hello {
    /// The end that dialed this link found the link before it silent, after its network changed.
    pub(crate) const REPLACES: u64 = 1;

    /// The highest version that both ends speak, or `None` if they have none in common.
    pub(crate) fn common_version(&self) -> Option<u64> {
        let highest = self.max_version.min(*VERSIONS.end());
        (highest >= self.min_version.max(*VERSIONS.start())).then_some(highest)
    }

    pub(super) fn encode(&self) -> Value {
        Value::map([
            (Value::int(MIN_VERSION), Value::uint(self.min_version)),
            (Value::int(MAX_VERSION), Value::uint(self.max_version)),
            (Value::int(BOOT_ID), Value::uint(self.boot_id)),
            (Value::int(FEATURES), Value::uint(self.features)),
        ])
    }

    pub(super) fn decode(value: Value) -> Result<Self, Error> {
        const WHAT: &str = "hello";
        let mut fields = value.into_keyed(WHAT)?;
        let features = fields.take(FEATURES).map(|features| features.into_uint(WHAT));
        Ok(Self {
            min_version: fields.required(MIN_VERSION, "lowest version")?.into_uint(WHAT)?,
            max_version: fields.required(MAX_VERSION, "highest version")?.into_uint(WHAT)?,
            boot_id: fields.required(BOOT_ID, "boot id")?.into_uint(WHAT)?,
            features: features.transpose()?.unwrap_or(0),
        })
    }
}
