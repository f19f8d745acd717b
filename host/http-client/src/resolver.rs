//! Resolving the names of servers. What a name leads to is checked here, on the addresses that are
//! then connected to.

use crate::address::Reach;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;
use tower_service::Service;

/// The system's resolver, within a [`Reach`].
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    reach: Reach,
    system: GaiResolver,
}

impl Resolver {
    pub(crate) fn new(reach: Reach) -> Self {
        Self { reach, system: GaiResolver::new() }
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.system.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (reach, resolving) = (self.reach, self.system.call(name));
        Box::pin(async move {
            let addresses = reach.check(resolving.await?.collect())?;
            Ok(addresses.into_iter())
        })
    }
}
