//! How an endpoint asks its application which peers may be members: the callback, what it is asked,
//! and the answers that do not hold yet.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{
    newcomer::Admit,
    proto::{EndpointId, TopicId},
    questions::Questions,
};

/// The questions to the application, and where the looks for more of them are.
pub(crate) struct Inquiry {
    pub(crate) admit: Admit,
    pub(crate) questions: Questions,
    /// The last id that was looked at in the book of each topic, if the look is not complete.
    pub(crate) cursors: BTreeMap<TopicId, EndpointId>,
    /// The answers that were yes and that do not hold yet: they are carried out together, as each
    /// time takes as long as there are members.
    pub(crate) admitted: Vec<EndpointId>,
}

impl Inquiry {
    pub(crate) fn new(admit: Admit, questions: Questions) -> Self {
        Self { admit, questions, cursors: BTreeMap::new(), admitted: Vec::new() }
    }

    pub(crate) fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// When questions without an answer are asked again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.questions.lock().due()
    }
}
