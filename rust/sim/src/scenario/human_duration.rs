//! A duration in a scenario: `"1.5s"`, `"200ms"`, `"2m"`, or a number of seconds.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units, largest first, in seconds.
const UNITS: [(&str, f64); 7] = [
    ("y", 365.25 * 86_400.0),
    ("d", 86_400.0),
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
    ("ms", 0.001),
    ("us", 0.000_001),
];
/// A hundred years.
const LONGEST: f64 = 100.0 * 365.25 * 86_400.0;

/// A duration as a scenario writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// Makes a duration of whole milliseconds.
    #[must_use]
    pub const fn ms(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// Returns true if the duration is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

impl From<HumanDuration> for Duration {
    fn from(span: HumanDuration) -> Self {
        span.0
    }
}

impl From<HumanDuration> for Option<Duration> {
    fn from(span: HumanDuration) -> Self {
        Some(span.0)
    }
}

fn seconds(value: f64) -> Result<HumanDuration, String> {
    if (0.0..=LONGEST).contains(&value) {
        Ok(HumanDuration(Duration::from_secs_f64(value)))
    } else {
        Err("a duration is 0 to 100 years".to_owned())
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        match (number.trim().parse::<f64>(), factor) {
            (Ok(number), Some(factor)) => seconds(number * factor),
            _ => Err(format!(
                "{text:?} is no duration: a number and one of y, d, h, m, s, ms, us, as in \"1.5s\""
            )),
        }
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros.is_multiple_of(1_000_000) {
            write!(f, "{}s", micros / 1_000_000)
        } else if micros.is_multiple_of(1000) {
            write!(f, "{}ms", micros / 1000)
        } else {
            write!(f, "{micros}us")
        }
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = HumanDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"1.5s\", or a number of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<HumanDuration, E> {
                seconds(value).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<HumanDuration, E> {
                let value = u32::try_from(value).map_err(|_| E::custom("no such duration"))?;
                seconds(f64::from(value)).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
