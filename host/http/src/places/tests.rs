use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A connection with a request that is under way.
type Busy = (Arc<Place>, UnderWay);

fn busy(places: &Places, address: IpAddr) -> Option<Busy> {
    let place = places.admit(address, PeerKind::Direct)?;
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
        assert!(table.waiting.is_empty(), "{name}");
    }
}

#[test]
fn a_connection_without_a_request_loses_its_place_to_a_newcomer_of_its_network() {
    let places = Places::default();
    let (own, other) = ("192.0.2.7".parse().unwrap(), "203.0.113.1".parse().unwrap());
    let admit = |address| places.admit(address, PeerKind::Direct);
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
    let proxy = places.admit("10.0.0.1".parse().unwrap(), PeerKind::Proxy).unwrap();
    let slow = places.admit("203.0.113.1".parse().unwrap(), PeerKind::Direct).unwrap();
    let mut flood = Vec::new();
    for number in 0..2 * u32::try_from(limits::CONNECTIONS).unwrap() {
        // Of 16 providers.
        let address = Ipv4Addr::from_bits(((64 + number % 16) << 24) | (number << 4));
        flood.push(places.admit(address.into(), PeerKind::Direct).unwrap());
    }
    assert_eq!(places.lock().entries.len(), limits::CONNECTIONS);
    assert!(has_place(&proxy) && has_place(&slow));
    assert!(!has_place(&flood[0]) && flood.last().is_some_and(|place| has_place(place)));
}

#[test]
fn a_connection_with_another_protocol_is_under_way_for_good() {
    let places = Places::default();
    let place = places.admit("192.0.2.7".parse().unwrap(), PeerKind::Proxy).unwrap();
    let waiting = || places.lock().waiting.len();
    for (status, expected) in [(StatusCode::OK, 1), (StatusCode::SWITCHING_PROTOCOLS, 0)] {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        let answer = place.begin().unwrap().until_end_of(response);
        place.flushed();
        assert_eq!(waiting(), 0, "{status}");
        drop(answer);
        place.flushed();
        assert_eq!(waiting(), expected, "{status}");
    }
}

/// A connection with a request whose body has not come, and is waited for.
fn receiving(places: &Places, address: IpAddr) -> (Busy, Receiving) {
    let busy = busy(places, address).unwrap();
    let mut receiving = busy.1.receive().unwrap();
    receiving.wait();
    (busy, receiving)
}

#[test]
fn of_requests_that_are_not_here_in_full_the_one_without_progress_for_longest_loses_its_place() {
    let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
    let admit = || places.admit(own, PeerKind::Direct).unwrap();
    let (busy, mut received): (Vec<Busy>, Vec<Receiving>) =
        (0..64).map(|_| receiving(&places, own)).unzip();
    let has = |number: usize| has_place(&busy[number].0);
    drop(received.remove(1));
    received[0].progress(1);
    received[0].wait();
    let newcomer = admit();
    assert!(has(0), "a piece has come");
    assert!(has(1), "it is here in full");
    assert!(!has(2) && busy[2].0.begin().is_none(), "the oldest");
    let more: Vec<Arc<Place>> = (0..61).map(|_| admit()).collect();
    assert!(has(0) && (3..64).all(|number| !has(number)));
    let last = admit();
    assert!(!has(0), "no piece has come since");
    assert!(has(1) && more.iter().chain([&newcomer, &last]).all(|place| has_place(place)));
    assert_eq!(places.lock().count(&networks(own)[0]), 64);
}

/// A handler works without it, or with what has come of it.
#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_waits_for_costs_its_connection_no_place() {
    let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
    let uploads: Vec<Busy> = (0..64).map(|_| busy(&places, own).unwrap()).collect();
    let mut received: Vec<Receiving> =
        uploads.iter().map(|(_, under_way)| under_way.receive().unwrap()).collect();
    let has = |number: usize| has_place(&uploads[number].0);
    assert!(places.admit(own, PeerKind::Direct).is_none(), "the service works for all");
    for body in &mut received[..2] {
        body.wait();
        body.progress(1);
    }
    tokio::time::advance(limits::STALLED).await;
    assert!(places.admit(own, PeerKind::Direct).is_none(), "with what has come");
    for body in received.iter_mut().rev() {
        body.wait();
    }
    let newcomers: Vec<Busy> = (0..63).map(|_| busy(&places, own).unwrap()).collect();
    assert!(has(0) && (1..64).all(|number| !has(number)), "it was waited for the shortest time");
    assert!(newcomers.iter().all(|(place, _)| has_place(place)));
}

/// Nor is one cut for it that is as slow as it may be.
#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_makes_no_progress() {
    let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
    let (busy, mut received): (Vec<Busy>, Vec<Receiving>) =
        (0..64).map(|_| receiving(&places, own)).unzip();
    for _ in 0..8 {
        for body in &mut received {
            body.wait();
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        received[0].progress(1_000);
        received[1].progress(1);
    }
    received[0].wait();
    received[1].wait();
    let has = |number: usize| has_place(&busy[number].0);
    let newcomers: Vec<Arc<Place>> =
        (0..63).map(|_| places.admit(own, PeerKind::Direct).unwrap()).collect();
    assert!(has(0), "it sends as much as it must");
    assert!((1..64).all(|number| !has(number)));
    assert!(newcomers.iter().all(|place| has_place(place)));
}

/// A terminal's, whose client sends no hello. A body that comes with its request is none.
#[test]
fn a_connection_with_another_protocol_may_be_lost_until_its_client_has_logged_in() {
    let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
    let upgraded = |_| {
        let ((place, under_way), body) = receiving(&places, own);
        let mut login = place.receive();
        login.wait();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        drop(body);
        drop(under_way.until_end_of(response));
        place.flushed();
        (place, login)
    };
    let (upgraded, mut logins): (Vec<Arc<Place>>, Vec<Receiving>) = (0..64).map(upgraded).unzip();
    drop(logins.remove(0));
    let newcomers: Vec<Busy> = (0..63).map(|_| busy(&places, own).unwrap()).collect();
    assert!(has_place(&upgraded[0]) && !upgraded[1..].iter().any(|place| has_place(place)));
    assert!(busy(&places, own).is_none() && newcomers.iter().all(|(place, _)| has_place(place)));
}

#[test]
fn the_body_of_an_earlier_request_is_none_of_the_next_ones() {
    let places = Places::default();
    let ((place, _first), earlier) = receiving(&places, "192.0.2.7".parse().unwrap());
    let second = place.begin().unwrap();
    let mut body = second.receive().unwrap();
    body.wait();
    assert_eq!(places.lock().waiting.len(), 1);
    drop(earlier);
    assert_eq!(places.lock().waiting.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_loses_its_place_and_one_that_reads_keeps_it() {
    let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
    let unread: Vec<Busy> = (0..64).map(|_| busy(&places, own).unwrap()).collect();
    let has = |number: usize| has_place(&unread[number].0);
    for (place, _) in &unread {
        place.set_unread(Some(Instant::now()));
    }
    assert!(places.admit(own, PeerKind::Direct).is_none(), "each may be about to read");
    tokio::time::advance(limits::STALLED).await;
    unread[0].0.set_unread(None);
    unread[1].0.set_unread(None);
    unread[1].0.set_unread(Some(Instant::now()));
    let newcomers: Vec<Busy> = (0..62).map(|_| busy(&places, own).unwrap()).collect();
    assert!(has(0) && has(1) && (2..64).all(|number| !has(number)));
    assert!(places.admit(own, PeerKind::Direct).is_none(), "the service works for all");
    tokio::time::advance(limits::STALLED).await;
    let last = places.admit(own, PeerKind::Direct).unwrap();
    assert!(has(0) && !has(1), "it has read nothing more");
    assert!(newcomers.iter().all(|(place, _)| has_place(place)) && has_place(&last));
}

/// It is behind after each piece that it has read.
#[tokio::test(start_paused = true)]
async fn a_client_that_reads_a_trickle_loses_its_place_before_those_with_progress() {
    let (places, own) = (Places::default(), "192.0.2.7".parse().unwrap());
    let (slow, _answer) = busy(&places, own).unwrap();
    let since = Instant::now();
    slow.set_unread(Some(since));
    let idle: Vec<Arc<Place>> =
        (1..64).map(|_| places.admit(own, PeerKind::Direct).unwrap()).collect();
    tokio::time::advance(limits::STALLED).await;
    slow.set_unread(None);
    slow.set_unread(Some(since));
    let newcomer = places.admit(own, PeerKind::Direct).unwrap();
    assert!(!has_place(&slow), "it has read a little");
    assert!(idle.iter().chain([&newcomer]).all(|place| has_place(place)));
}

/// All places are taken, by four providers in equal parts.
#[test]
fn newcomers_take_the_places_of_their_own_network_before_those_of_one_with_as_many() {
    let places = Places::default();
    let address = |provider: u32, number: u32| {
        IpAddr::from(Ipv4Addr::from_bits(((64 + provider) << 24) | (number << 7)))
    };
    let uploads: Vec<(Busy, Receiving)> =
        (0..512).map(|number| receiving(&places, address(0, number))).collect();
    let mut others = Vec::new();
    for provider in 1..4 {
        for number in 0..512 {
            others.push(places.admit(address(provider, number), PeerKind::Direct).unwrap());
        }
    }
    assert_eq!(places.lock().entries.len(), limits::CONNECTIONS);
    for number in 0..1_024 {
        others.push(places.admit(address(1, number % 512), PeerKind::Direct).unwrap());
    }
    assert_eq!(places.lock().entries.len(), limits::CONNECTIONS);
    assert!(uploads.iter().all(|((place, _), _)| has_place(place)));
}
