//! Why a link or a connection ended, in words for users. What the other end says of it in words of
//! its own is left out, or shown as escapes: it may be meant to look like lines of our log.

use iroh::endpoint::{ApplicationClose, ConnectionError};
use tracing::debug;

use crate::proto::{CloseCode, LinkEnd};

/// The lists of a peer keep this node out.
pub(crate) const KEEPS_US_OUT: &str = "it keeps this node out";

/// Returns the code with which a peer closed a connection.
pub(crate) fn code_of(close: &ApplicationClose) -> CloseCode {
    u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX).into()
}

/// Returns how a link ended whose connection ended so.
pub(crate) fn end_of(error: &ConnectionError) -> LinkEnd {
    match error {
        ConnectionError::ApplicationClosed(close) => LinkEnd::Remote(code_of(close)),
        ConnectionError::LocallyClosed => LinkEnd::Local(CloseCode::Shutdown),
        ConnectionError::TimedOut => LinkEnd::TimedOut,
        error => {
            debug!(reason = %words(error), "link lost");
            LinkEnd::Lost
        }
    }
}

/// Says for a user why a connection ended.
pub(crate) fn text_of(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => text(LinkEnd::Remote(code_of(close))),
        error => words(error),
    }
}

fn words(error: &ConnectionError) -> String {
    error.to_string().escape_debug().to_string()
}

/// Says for a user why a link is gone.
pub(crate) fn text(end: LinkEnd) -> String {
    use CloseCode as Code;
    use LinkEnd::{Local, Lost, Remote, TimedOut};
    let why = match end {
        TimedOut | Lost | Local(Code::Unresponsive) => "the link to it broke",
        Remote(Code::Leave | Code::Shutdown) => "it left",
        Local(Code::Leave | Code::Shutdown) => "this node leaves",
        Remote(Code::NotAdmitted) => "it asks for the secret of its swarm, or for an invitation",
        Local(Code::NotAdmitted) => "it did not prove that it belongs to the swarm",
        Remote(Code::Denied) => KEEPS_US_OUT,
        Local(Code::Denied) => "the lists of this node keep it out",
        Remote(Code::Refused) => "it refused the link: no room, or no version in common",
        Local(Code::Refused) => "this node refused the link: no room, or no version in common",
        Remote(Code::Protocol) => "it closed the link: a frame of this node broke the protocol",
        Local(Code::Protocol) => "a frame of it broke the protocol",
        Remote(Code::Overflow) => "it closed the link: this node read too slowly",
        Local(Code::Overflow) => "it read too slowly",
        Remote(Code::Unresponsive) => "it closed the link: this node did not answer",
        Local(Code::Replaced) | Remote(Code::Replaced) => "another link took its place",
        Local(Code::Idle) | Remote(Code::Idle) => "the link was not used for a while",
        Local(Code::Unknown(code)) | Remote(Code::Unknown(code)) => {
            return format!(
                "the link was closed with code {code}, which this version does not know"
            );
        }
        _ => "the link was closed",
    };
    why.into()
}

#[cfg(test)]
mod tests {
    use iroh::endpoint::VarInt;

    use super::*;

    #[test]
    fn what_a_peer_says_of_the_end_is_no_part_of_the_text() {
        let close = |code: u32| {
            let reason = "\u{1b}[2J\n2026-12-01 WARNING all is lost".into();
            let close = ApplicationClose { error_code: VarInt::from_u32(code), reason };
            text_of(&ConnectionError::ApplicationClosed(close))
        };
        assert_eq!(close(CloseCode::Shutdown.into()), "it left");
        assert_eq!(close(CloseCode::Denied.into()), KEEPS_US_OUT);
        let later = "the link was closed with code 77, which this version does not know";
        assert_eq!(close(77), later);
        assert_eq!(text_of(&ConnectionError::TimedOut), "timed out");
    }
}
