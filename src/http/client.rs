//! From where a call comes: whom the limits of calls without a key or a wallet count.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::{Extensions, HeaderMap};

/// Who is at the other end of the connection. The server notes it on every call.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// One client, as far as can be told: an address, or the network of IPv6 that a household is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

const FORWARDED_FOR: &str = "x-forwarded-for";

impl Client {
    /// Where a proxy in front of us is believed, its word is the last one of its header: those before it were sent by the caller.
    #[must_use]
    pub fn of(headers: &HeaderMap, extensions: &Extensions, believes_proxy: bool) -> Self {
        let peer = extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
        let said = headers.get_all(FORWARDED_FOR).iter().next_back().filter(|_| believes_proxy);
        let last = said.and_then(|value| value.to_str().ok()).and_then(|list| list.rsplit(',').next());
        Self(network(last.and_then(|text| text.trim().parse().ok()).unwrap_or(peer)))
    }
}

impl Client {
    /// It may be a proxy whose word is not believed, and so be everybody.
    #[must_use]
    pub const fn is_this_machine(&self) -> bool {
        self.0.is_loopback()
    }
}

/// Whoever has an address of IPv6 has all of its last 64 bits.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], believes_proxy: bool) -> Client {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let mut extensions = Extensions::new();
        extensions.insert(Peer(peer.parse().unwrap()));
        Client::of(&headers, &extensions, believes_proxy)
    }

    #[test]
    fn a_header_counts_only_where_a_proxy_is_believed_and_then_its_last_word() {
        let direct = client("198.51.100.7", &[], false);
        assert_eq!(client("198.51.100.7", &["203.0.113.9"], false), direct);
        assert_eq!(client("127.0.0.1", &["1.2.3.4", "203.0.113.9, 198.51.100.7"], true), direct);
        assert_eq!(client("198.51.100.7", &["no address"], true), direct);
    }

    #[test]
    fn neighbours_of_one_network_are_one_client() {
        let one = client("2001:db8:1:2::1", &[], false);
        assert_eq!(client("2001:db8:1:2:ffff::9", &[], false), one);
        assert_ne!(client("2001:db8:1:3::1", &[], false), one);
        assert_eq!(client("::ffff:198.51.100.7", &[], false), client("198.51.100.7", &[], false));
    }
}
