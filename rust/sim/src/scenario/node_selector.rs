//! Selects the nodes of a fault: a number of them, chosen by the seed; a share; or a list.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A choice of nodes.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeSelector {
    /// This many, chosen by the seed among those that the fault can hit.
    Count(usize),
    /// A share of those that the fault can hit, 0 to 1, at least one of them.
    Share(f64),
    /// These, by number from 0.
    These(Vec<usize>),
}

impl NodeSelector {
    /// Returns the greatest number among the named nodes.
    pub(crate) fn greatest(&self) -> Option<usize> {
        match self {
            Self::These(numbers) => numbers.iter().max().copied(),
            _ => None,
        }
    }

    /// Returns the largest number of nodes that it selects among `nodes`.
    pub(crate) fn most(&self, nodes: usize) -> usize {
        match self {
            Self::Count(count) => *count,
            Self::Share(_) => nodes,
            Self::These(numbers) => numbers.len(),
        }
    }
}

impl Serialize for NodeSelector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => count.serialize(serializer),
            Self::Share(share) => serializer.collect_str(&format_args!("{}%", share * 100.0)),
            Self::These(numbers) => numbers.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NodeSelector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = NodeSelector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("how many nodes (2), a share of them (\"10%\") or which ([0, 3])")
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<NodeSelector, E> {
                let count = usize::try_from(count).ok().filter(|count| *count > 0);
                count.map(NodeSelector::Count).ok_or_else(|| E::custom("at least one node"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NodeSelector, E> {
                let share = text.strip_suffix('%').and_then(|share| share.trim().parse().ok());
                match share {
                    Some(share) if (0.0..=100.0).contains(&share) => {
                        Ok(NodeSelector::Share(share / 100.0))
                    }
                    _ => Err(E::custom(format!("{text:?} is no share such as \"10%\""))),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<NodeSelector, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = seq.next_element::<usize>()? {
                    if numbers.contains(&number) {
                        let twice = format!("node {number} stands there twice");
                        return Err(de::Error::custom(twice));
                    }
                    numbers.push(number);
                }
                if numbers.is_empty() {
                    return Err(de::Error::custom("at least one node"));
                }
                Ok(NodeSelector::These(numbers))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
