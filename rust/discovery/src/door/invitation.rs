//! The door of a swarm that is private by invitations: each end shows its own, the dialer first.

use bytes::Bytes;
use iroh::endpoint::{Connection, RecvStream, SendStream};

use super::{Inner, Refusal, ended};
use crate::{
    invited::{Invited, Wrong},
    proto::{EndpointId, MAX_INVITATION},
};

/// The version of the exchange: the first byte of either end. It is that of no exchange of proofs.
pub(super) const VERSION: u8 = 2;

impl Inner {
    /// Reads a dialer's invitation, and answers with the own one if it holds. Returns its end.
    pub(super) async fn check_invitation(
        &self,
        connection: &Connection,
        invited: &Invited,
    ) -> Result<u64, Refusal> {
        let (mut send, mut recv) = super::first_stream(connection).await?;
        let until = read(&mut recv, connection, invited).await?;
        write(&mut send, invited).await?;
        Ok(until)
    }

    /// Shows the own invitation to an acceptor, and checks that of the acceptor. Returns its end.
    pub(super) async fn show_invitation(
        &self,
        connection: &Connection,
        invited: &Invited,
    ) -> Result<u64, Refusal> {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|_| Refusal::Gone)?;
        write(&mut send, invited).await?;
        read(&mut recv, connection, invited).await
    }
}

/// Sends the own invitation, and ends the stream.
async fn write(send: &mut SendStream, invited: &Invited) -> Result<(), Refusal> {
    let own = invited.own();
    let length = u16::try_from(own.bytes().len()).expect("an invitation is short").to_be_bytes();
    let bytes = [&[VERSION], length.as_slice(), own.bytes()].concat();
    send.write_all(&bytes).await.map_err(|_| Refusal::Gone)?;
    send.finish().map_err(|_| Refusal::Gone)
}

/// Reads an invitation and the end of the stream after it, and checks that it lets the peer in.
async fn read(
    recv: &mut RecvStream,
    connection: &Connection,
    invited: &Invited,
) -> Result<u64, Refusal> {
    let mut head = [0; 3];
    recv.read_exact(&mut head).await.map_err(ended)?;
    let [version, length @ ..] = head;
    if version != VERSION {
        return Err(Refusal::Invitation(Wrong::Missing));
    }
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    if bytes.len() > MAX_INVITATION {
        return Err(Refusal::Malformed);
    }
    recv.read_exact(&mut bytes).await.map_err(ended)?;
    super::end_of(recv).await?;
    // The handshake proved the id, so an invitation that was recorded or stolen is of no use.
    let peer = EndpointId::from(connection.remote_id());
    invited.check(&Bytes::from(bytes), &peer).map_err(Refusal::Invitation)
}
