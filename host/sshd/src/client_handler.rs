//! What a server gets from a client of ours beside what it is sent: nothing.

use russh::ChannelOpenFailure::AdministrativelyProhibited;
use russh::client::{ChannelOpenHandle, Handler, Msg, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Channel, Error};

/// Whether a server is the one that is meant.
pub(crate) trait ServerCheck: Send + 'static {
    fn accepts(&mut self, key: &PublicKey) -> bool;
}

/// Rejects every channel that the server opens. russh's own answer is to accept it, and to keep it: a
/// server could fill the client's memory.
pub(crate) struct ClientHandler<C>(pub(crate) C);

impl<C: ServerCheck> Handler for ClientHandler<C> {
    type Error = Error;

    async fn check_server_key(&mut self, server: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(self.0.accepts(&server.public_key()))
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reject(reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reject(reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reject(reply).await
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reject(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reject(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reject(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reject(reply).await
    }
}

async fn reject(reply: ChannelOpenHandle) -> Result<(), Error> {
    reply.reject(AdministrativelyProhibited).await;
    Ok(())
}
