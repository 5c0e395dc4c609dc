//! The actor's mailbox for the public handles: their requests, and how they wait for the answers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    access::Change,
    bootstrap::Bootstrap,
    door::admitted::Admitted,
    error::Error,
    link::handle::LinkGuard,
    proto::{Channel, EndpointId, Invitation, Profile, Revocation, TopicId},
    published::Published,
    topic::{JoinOptions, Topic},
};

pub(crate) type Reply = oneshot::Sender<Result<(), Error>>;
pub(crate) type JoinReply = oneshot::Sender<Result<Arc<Published>, Error>>;
pub(crate) type LinkReply = oneshot::Sender<Result<LinkGuard, Error>>;

/// Most commands that wait for the actor. If the channel is full, handles wait.
const COMMANDS: usize = 64;

/// A request of a handle to the actor.
#[derive(Debug)]
pub(crate) enum Command {
    Join { topic: Topic, options: Box<JoinOptions>, reply: JoinReply },
    Profile { topic: TopicId, reply: oneshot::Sender<Option<Profile>> },
    SetProfile { topic: TopicId, profile: Profile, reply: Reply },
    AddBootstrap { topic: TopicId, peers: Vec<Bootstrap>, reply: Reply },
    Broadcast { topic: TopicId, channel: Option<Channel>, data: Bytes, reply: Reply },
    Link { topic: TopicId, peer: EndpointId, reply: LinkReply },
    Leave { topic: TopicId, reply: oneshot::Sender<()> },
    Revoke { revocation: Box<Revocation>, reply: Reply },
    Renew { invitation: Box<Invitation>, reply: Reply },
    ChangeAccess { change: Change, peer: EndpointId, reply: Reply },
    Accepted(Admitted),
    Sever { reply: oneshot::Sender<()> },
    Shutdown { reply: oneshot::Sender<()> },
}

/// The sending end of the mailbox. Clones lead to the same actor.
#[derive(Debug, Clone)]
pub(crate) struct Commands(mpsc::Sender<Command>);

impl Commands {
    /// Returns the mailbox without what keeps the actor alive.
    pub(crate) fn downgrade(&self) -> WeakCommands {
        WeakCommands(self.0.downgrade())
    }

    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        (Self(commands), receiver)
    }

    /// Sends a request and waits for its answer. Returns [`Error::Closed`] once the actor has
    /// ended.
    pub(crate) async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await.map_err(|_| Error::Closed)?;
        self.answer(answer).await
    }

    /// A command that is sent while the actor drops its end may stay in the channel, unread, as
    /// long as there are handles. Its reply channel is never dropped then. So the end of the
    /// command channel is watched too.
    async fn answer<T>(&self, mut answer: oneshot::Receiver<T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = &mut answer => answer.map_err(|_| Error::Closed),
            () = self.0.closed() => answer.try_recv().map_err(|_| Error::Closed),
        }
    }

    /// Sends a command that gets no answer. If the actor has ended, the error returns the command.
    /// [`Self::is_closed`] shows if the actor ended just when the command was sent.
    pub(crate) async fn send(&self, command: Command) -> Result<(), Command> {
        self.0.send(command).await.map_err(|refused| refused.0)
    }

    /// Returns true if the actor has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// The mailbox of an actor, which may end meanwhile.
#[derive(Debug)]
pub(crate) struct WeakCommands(mpsc::WeakSender<Command>);

impl WeakCommands {
    /// Returns the mailbox, if anyone else still holds it.
    pub(crate) fn upgrade(&self) -> Option<Commands> {
        self.0.upgrade().map(Commands)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_request_at_the_very_end_of_the_actor_is_answered() {
        let (commands, receiver) = Commands::new();
        // A send has two steps, and the actor ends between them.
        let permit = commands.0.reserve().await.unwrap();
        drop(receiver);
        let (reply, answer) = oneshot::channel();
        permit.send(Command::Shutdown { reply });
        let answer = timeout(Duration::from_secs(5), commands.answer(answer)).await;
        assert!(matches!(answer, Ok(Err(Error::Closed))), "{answer:?}");
    }

    #[tokio::test]
    async fn an_answer_given_before_the_end_counts() {
        let (commands, mut receiver) = Commands::new();
        let actor = tokio::spawn(async move {
            if let Some(Command::Shutdown { reply }) = receiver.recv().await {
                reply.send(()).unwrap();
            }
        });
        commands.request(|reply| Command::Shutdown { reply }).await.unwrap();
        actor.await.unwrap();
        assert!(commands.is_closed());
    }
}
