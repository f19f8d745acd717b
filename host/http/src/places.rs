//! The places of connections: how many there are of each network, and which connection loses its own
//! to a new one.
//!
//! Whoever holds connections open without a request must not keep others of their network out, who may
//! be behind the same address. So a connection without a request loses its place to a newcomer where
//! there is no other, the one that has had none for longest first; and where all places are taken, of
//! the provider's network that has most of them: who is slow to send a request, and comes from
//! elsewhere, has the time for it. A request that is under way is never cut for that.

use crate::limits;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use ipnet::IpNet;
use paygress_core::networks::networks;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// A trusted proxy's connections are not limited by its networks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Direct,
    Proxy,
}

struct HeldPlace {
    networks: Vec<IpNet>,
    lost: Arc<Notify>,
    /// Of a connection without a request: its key in [`Table::idle`].
    idle: Option<u64>,
}

impl HeldPlace {
    fn provider(&self) -> Option<IpNet> {
        self.networks.last().copied()
    }
}

#[derive(Default)]
struct Table {
    /// The next key of either map.
    next: u64,
    entries: HashMap<u64, HeldPlace>,
    of_networks: HashMap<IpNet, usize>,
    /// Connections without a request, of each provider's network; the one that has had none for longest
    /// first.
    idle: HashMap<Option<IpNet>, BTreeMap<u64, u64>>,
}

impl Table {
    fn key(&mut self) -> u64 {
        let key = self.next;
        self.next = key.wrapping_add(1);
        key
    }

    fn count(&self, network: &IpNet) -> usize {
        self.of_networks.get(network).copied().unwrap_or(0)
    }

    fn insert(&mut self, networks: Vec<IpNet>) -> (u64, Arc<Notify>) {
        for network in &networks {
            let count = self.of_networks.entry(*network).or_default();
            *count = count.saturating_add(1);
        }
        let (id, idle, lost) = (self.key(), self.key(), Arc::new(Notify::new()));
        let entry = HeldPlace { networks, lost: Arc::clone(&lost), idle: Some(idle) };
        self.insert_idle(entry.provider(), idle, id);
        self.entries.insert(id, entry);
        (id, lost)
    }

    fn remove(&mut self, id: u64) -> Option<HeldPlace> {
        let entry = self.entries.remove(&id)?;
        if let Some(idle) = entry.idle {
            self.remove_idle(entry.provider(), idle);
        }
        for network in &entry.networks {
            if let Some(count) = self.of_networks.get_mut(network) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.of_networks.remove(network);
                }
            }
        }
        Some(entry)
    }

    fn insert_idle(&mut self, provider: Option<IpNet>, age: u64, id: u64) {
        self.idle.entry(provider).or_default().insert(age, id);
    }

    fn remove_idle(&mut self, provider: Option<IpNet>, age: u64) {
        if let Some(of_provider) = self.idle.get_mut(&provider) {
            of_provider.remove(&age);
            if of_provider.is_empty() {
                self.idle.remove(&provider);
            }
        }
    }

    /// The connection of this network, which is of this provider, that has had no request for longest.
    fn first_of(&self, provider: Option<IpNet>, network: &IpNet) -> Option<u64> {
        let is_in = |id: &u64| self.entries.get(id).is_some_and(|it| it.networks.contains(network));
        self.idle.get(&provider)?.values().copied().find(is_in)
    }

    /// The same of the provider with most connections. A trusted proxy's, which are of none, are the last.
    fn first_of_all(&self) -> Option<u64> {
        let (_, idle) = self.idle.iter().max_by_key(|(provider, idle)| {
            let count = provider.map_or(0, |network| self.count(&network));
            (count, Reverse(idle.keys().next().copied()))
        })?;
        idle.values().next().copied()
    }

    fn free(&mut self, id: u64) {
        if let Some(entry) = self.remove(id) {
            entry.lost.notify_one();
        }
    }

    /// One more connection of this address: where its networks or all have as many as they may, instead
    /// of another.
    fn admit(&mut self, address: IpAddr, client: Client) -> Option<(u64, Arc<Notify>)> {
        let networks = match client {
            Client::Direct => Vec::from(networks(address)),
            Client::Proxy => Vec::new(),
        };
        let mut limited = networks.iter().copied().zip(limits::CONNECTIONS_OF_ONE);
        // The narrowest that is full is within the others: one place that is free there is free in all.
        let full = limited.find(|(network, most)| self.count(network) >= *most);
        if let Some((full, _)) = full {
            self.free(self.first_of(networks.last().copied(), &full)?);
        } else if self.entries.len() >= limits::CONNECTIONS {
            self.free(self.first_of_all()?);
        }
        Some(self.insert(networks))
    }
}

/// All places.
#[derive(Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Table>>);

impl Places {
    /// A place for a connection that has no request yet; none if all others have one under way.
    pub(crate) fn admit(&self, address: IpAddr, client: Client) -> Option<Arc<Place>> {
        let (id, lost) = self.lock().admit(address, client)?;
        let is_answered = AtomicBool::new(false);
        Some(Arc::new(Place { places: self.clone(), id, lost, is_answered }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, as long as anything of the connection is in use.
pub(crate) struct Place {
    places: Places,
    id: u64,
    lost: Arc<Notify>,
    /// The last answer is complete, and may not have been sent.
    is_answered: AtomicBool,
}

impl Place {
    /// Waits until another connection has got this place.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// A request begins; none if the place is lost, so that nobody would get its answer.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<UnderWay> {
        let mut table = self.places.lock();
        let entry = table.entries.get_mut(&self.id)?;
        let (idle, provider) = (entry.idle.take(), entry.provider());
        if let Some(idle) = idle {
            table.remove_idle(provider, idle);
        }
        self.is_answered.store(false, Ordering::Relaxed);
        drop(table);
        Some(UnderWay { place: Some(Arc::clone(self)) })
    }

    /// What was written has been sent.
    fn flushed(&self) {
        if !self.is_answered.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut table = self.places.lock();
        let key = table.key();
        let Some(entry) = table.entries.get_mut(&self.id) else { return };
        let (before, provider) = (entry.idle.replace(key), entry.provider());
        table.insert_idle(provider, key, self.id);
        if let Some(before) = before {
            table.remove_idle(provider, before);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.id);
    }
}

/// A request, until its answer is complete.
pub(crate) struct UnderWay {
    /// None: for good, since the connection has another protocol now.
    place: Option<Arc<Place>>,
}

impl UnderWay {
    /// Until the body of this answer ends.
    pub(crate) fn until_end_of(mut self, response: Response) -> hyper::Response<AnswerBody> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.place = None;
        }
        response.map(|body| AnswerBody { body, _under_way: self })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.is_answered.store(true, Ordering::Relaxed);
        }
    }
}

/// The body of an answer. It is dropped when it has been written, which is before it is sent.
pub(crate) struct AnswerBody {
    body: Body,
    _under_way: UnderWay,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        hyper::body::Body::poll_frame(Pin::new(&mut self.body), context)
    }

    fn is_end_stream(&self) -> bool {
        hyper::body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        hyper::body::Body::size_hint(&self.body)
    }
}

/// A connection's socket, by which its place knows when an answer has been sent: hyper flushes when
/// nothing is left to write.
pub(crate) struct PlacedStream<S> {
    stream: S,
    place: Arc<Place>,
}

impl<S> PlacedStream<S> {
    pub(crate) fn new(stream: S, place: Arc<Place>) -> Self {
        Self { stream, place }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PlacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.place.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// A connection with a request that is under way.
    type Busy = (Arc<Place>, UnderWay);

    fn busy(places: &Places, address: IpAddr) -> Option<Busy> {
        let place = places.admit(address, Client::Direct)?;
        let request = place.begin().expect("a newcomer's");
        Some((place, request))
    }

    /// Every address has as many requests under way as it may; how many that are.
    fn held(addresses: impl Iterator<Item = IpAddr>, places: &Places) -> Vec<Busy> {
        addresses.flat_map(|address| (0..100).map_while(move |_| busy(places, address))).collect()
    }

    fn has_place(place: &Place) -> bool {
        place.places.lock().entries.contains_key(&place.id)
    }

    #[test]
    fn no_network_holds_all_connections() {
        let v6 = |subnet: u128| Ipv6Addr::from_bits((0x2001_0db8_0001_u128 << 80) | (subnet << 64));
        let v4 = |host: u32| Ipv4Addr::from_bits((192 << 24) | (2 << 8) | host);
        let provider = |site: u128| Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | (site << 80));
        let networks: [(&str, Vec<IpAddr>, usize); 6] = [
            ("an address", vec![v4(1).into()], 64),
            ("a /64", vec![v6(1).into(), v6(1).into()], 64),
            ("a /59", (0..32).map(|subnet| v6(subnet).into()).collect(), 256),
            ("a /48", (0..2_000).map(|subnet| v6(subnet).into()).collect(), 256),
            ("a /24", (0..256).map(|host| v4(host).into()).collect(), 256),
            ("a /32 of IPv6", (0..2_000).map(|site| provider(site).into()).collect(), 1_024),
        ];
        for (name, addresses, expected) in networks {
            let places = Places::default();
            let held = held(addresses.into_iter(), &places);
            println!("{name} holds {} of {} connections", held.len(), limits::CONNECTIONS);
            assert_eq!(held.len(), expected, "{name}");
            let other = ["203.0.113.1", "2a00:1::1"].map(|address| address.parse().unwrap());
            for other in other {
                assert!(busy(&places, other).is_some(), "{name} keeps {other} out");
            }
            drop(held);
            let table = places.lock();
            assert!(table.entries.is_empty() && table.of_networks.is_empty(), "{name}");
            assert!(table.idle.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_connection_without_a_request_loses_its_place_to_a_newcomer_of_its_network() {
        let places = Places::default();
        let (own, other) = ("192.0.2.7".parse().unwrap(), "203.0.113.1".parse().unwrap());
        let admit = |address| places.admit(address, Client::Direct);
        let elsewhere = admit(other).unwrap();
        let idle: Vec<Arc<Place>> = (0..64).map(|_| admit(own).unwrap()).collect();
        let request = idle[0].begin().unwrap();
        let newcomer = admit(own).unwrap();
        assert!(has_place(&idle[0]), "it has a request under way");
        assert!(!has_place(&idle[1]), "the oldest without one");
        assert!(idle[1].begin().is_none(), "and it gets none any more");
        assert!(idle[2..].iter().chain([&elsewhere, &newcomer]).all(|place| has_place(place)));

        // It is the youngest once its answer is sent, and not before.
        drop(request);
        let more: Vec<Arc<Place>> = (0..63).map(|_| admit(own).unwrap()).collect();
        assert!(has_place(&idle[0]) && !has_place(&newcomer));
        idle[0].flushed();
        let _last: Vec<Arc<Place>> = (0..64).map(|_| admit(own).unwrap()).collect();
        assert!(!has_place(&idle[0]) && !more.iter().any(|place| has_place(place)));
        assert_eq!(places.lock().count(&networks(own)[0]), 64);
    }

    /// As many as fill all places twice, each from a network that is not full.
    #[test]
    fn newcomers_from_some_networks_take_no_place_of_who_is_slow_elsewhere() {
        let places = Places::default();
        let proxy = places.admit("10.0.0.1".parse().unwrap(), Client::Proxy).unwrap();
        let slow = places.admit("203.0.113.1".parse().unwrap(), Client::Direct).unwrap();
        let mut flood = Vec::new();
        for number in 0..2 * u32::try_from(limits::CONNECTIONS).unwrap() {
            // Of 16 providers.
            let address = Ipv4Addr::from_bits(((64 + number % 16) << 24) | (number << 4));
            flood.push(places.admit(address.into(), Client::Direct).unwrap());
        }
        assert_eq!(places.lock().entries.len(), limits::CONNECTIONS);
        assert!(has_place(&proxy) && has_place(&slow));
        assert!(!has_place(&flood[0]) && flood.last().is_some_and(|place| has_place(place)));
    }

    #[test]
    fn a_connection_with_another_protocol_is_under_way_for_good() {
        let places = Places::default();
        let place = places.admit("192.0.2.7".parse().unwrap(), Client::Proxy).unwrap();
        let idle = || places.lock().idle.len();
        for (status, expected) in [(StatusCode::OK, 1), (StatusCode::SWITCHING_PROTOCOLS, 0)] {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            let answer = place.begin().unwrap().until_end_of(response);
            place.flushed();
            assert_eq!(idle(), 0, "{status}");
            drop(answer);
            place.flushed();
            assert_eq!(idle(), expected, "{status}");
        }
    }
}
