//! Which addresses belong to the public network. A stranger who names where the gateway is to call may name no others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is not the public network: first address, length of the prefix. From the registries of special addresses, of which nothing
/// is left out because it looks harmless: no proxy of a payee is there.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared behind a provider's NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // looks public, and is what a large cloud's machines ask for their secrets
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, and where clouds answer what they know of a machine
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // relays of 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, and broadcast
];

/// Where global unicast is. All else is loopback, link-local, site-local, unique local, multicast or not assigned.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is not public within that.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, benchmarking, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

/// Prefixes behind which an address of version 4 stands, and the number of bits before it.
const V4_WITHIN_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),    // mapped
    (Ipv6Addr::UNSPECIFIED, 96),                         // compatible
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96), // NAT64
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),    // 6to4
];

/// Whether an address belongs to the public network, in whatever form it is written.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match v4_within(address) {
            Some(inner) => is_public_v4(inner),
            None => is_within_v6(address, GLOBAL_V6) && !NOT_PUBLIC_V6.iter().any(|net| is_within_v6(address, *net)),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let differs = |(net, length): &(Ipv4Addr, u32)| (address.to_bits() ^ net.to_bits()) >> (32 - length) != 0;
    NOT_PUBLIC_V4.iter().all(differs)
}

fn is_within_v6(address: Ipv6Addr, (net, length): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ net.to_bits()) >> (128 - length) == 0
}

fn v4_within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (_, before) = V4_WITHIN_V6.into_iter().find(|net| is_within_v6(address, *net))?;
    let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d] = (address.to_bits() >> (96 - before)).to_be_bytes();
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn all(addresses: &[&str], public: bool) {
        for text in addresses {
            assert_eq!(is_public(text.parse().unwrap()), public, "{text}");
        }
    }

    #[test]
    fn what_is_beside_a_range_is_public() {
        all(&["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"], true);
        all(
            &["126.255.255.255", "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0"],
            true,
        );
        all(&["172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.1.255", "192.0.3.0"], true);
        all(&["192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0"], true);
        all(&["198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255", "8.8.8.8"], true);
    }

    #[test]
    fn both_ends_of_every_range_are_refused() {
        all(&["0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255"], false);
        all(&["127.0.0.0", "127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.0.0", "169.254.169.254"], false);
        all(&["169.254.255.255", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.255", "192.0.2.0"], false);
        all(&["192.0.2.255", "192.88.99.0", "192.88.99.255", "192.168.0.0", "192.168.255.255", "198.18.0.0"], false);
        all(&["198.19.255.255", "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255"], false);
        all(&["224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.254", "255.255.255.255"], false);
    }

    #[test]
    fn of_version_6_only_global_unicast_is_public() {
        all(&["2000::", "2001:200::", "2001:4860:4860::8888", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff"], true);
        all(&["2001:db9::", "2003::1", "2a00:1450::1", "3ffe::1", "3fff:1000::"], true);
        all(&["::", "::1", "100::1", "1fff:ffff::", "4000::", "5f00::1", "64:ff9b:1::808:808"], false);
        all(&["fbff::1", "fc00::", "fd00:ec2::254", "fdff:ffff::1", "fe00::1", "fe80::", "fe80::1", "febf::1"], false);
        all(&["fec0::1", "feff:ffff::1", "ff00::", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"], false);
        all(&["2001::", "2001::1", "2001:0:808:808::1", "2001:2::1", "2001:10::1", "2001:1ff:ffff::1"], false);
        all(&["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::", "3fff:fff:ffff::1"], false);
    }

    #[test]
    fn an_address_of_version_4_is_the_same_within_one_of_version_6() {
        for inner in
            ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1", "0.0.0.0", "255.255.255.255"]
        {
            all(&[&format!("::ffff:{inner}"), &format!("::{inner}"), &format!("64:ff9b::{inner}")], false);
        }
        all(&["2002:7f00:1::1", "2002:a00:1::", "2002:a9fe:a9fe::1", "2002:c0a8:101::ffff", "2002:6440:1::"], false);
        all(&["::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"], true);
        all(&["::fffe:8.8.8.8", "::1:808:808", "64:ff9b::1:808:808", "64:ff9a::808:808"], false);
    }
}
