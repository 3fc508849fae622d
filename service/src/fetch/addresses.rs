//! Which addresses are public: those that IANA's registries of special-purpose addresses leave over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// What may be connected to.
pub trait Rule: Send + Sync + 'static {
    fn port(&self, port: u16) -> bool;
    fn address(&self, address: IpAddr) -> bool;
}

/// Ports of the web, on addresses that anybody can reach and that are not this machine's.
///
/// Where a network translates IPv6 to IPv4 by a prefix of its own (RFC 6052), nothing in an address says so:
/// there, the network has to keep this service from what is inside.
#[derive(Debug, Clone, Copy)]
pub struct Public;

impl Rule for Public {
    fn port(&self, port: u16) -> bool {
        matches!(port, 80 | 443)
    }

    fn address(&self, address: IpAddr) -> bool {
        let public = match address {
            IpAddr::V4(address) => is_public_v4(address),
            IpAddr::V6(address) => is_public_v6(address),
        };
        public && !is_own(address)
    }
}

/// Network and length of its prefix.
const REFUSED_V4: [(Ipv4Addr, u32); 19] = [
    // "This" network; Linux takes 0.0.0.0 for itself.
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Behind carriers' NAT; 100.100.100.200 is a cloud's metadata.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // The metadata of an Azure machine and its agent: a public address that never leaves the host.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    // Link-local, with most clouds' metadata at 169.254.169.254.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    // IETF protocols; 192.0.0.192 is a cloud's metadata.
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // Documentation, here and below.
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    // AS112, a sink for look-ups of private addresses.
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    // Relays: AMT, and 6to4.
    (Ipv4Addr::new(192, 52, 193, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // AS112 again.
    (Ipv4Addr::new(192, 175, 48, 0), 24),
    // Benchmarks.
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, and what is reserved above it with the broadcast address at its end.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Of 2000::/3, which alone is global unicast.
const REFUSED_V6: [(Ipv6Addr, u32); 5] = [
    // IETF protocols: Teredo, benchmarks, ORCHID and others.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4: an IPv4 address follows, and no relay is left that would be needed.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let within = |(network, length): &(Ipv4Addr, u32)| {
        (address.to_bits() ^ network.to_bits()).checked_shr(32 - length).unwrap_or(0) == 0
    };
    !REFUSED_V4.iter().any(within)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let within = |(network, length): &(Ipv6Addr, u32)| {
        (address.to_bits() ^ network.to_bits()).checked_shr(128 - length).unwrap_or(0) == 0
    };
    match translated(address) {
        Some(address) => is_public_v4(address),
        None => within(&(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)) && !REFUSED_V6.iter().any(within),
    }
}

/// The IPv4 address that a connection would really go to: mapped, or through NAT64 by the well-known prefix.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let nat64 = || match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    };
    address.to_ipv4_mapped().or_else(nat64)
}

/// A public address of this machine, behind whose firewall we stand. The kernel answers with the same address
/// for what is its own; nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 443))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "
        0.0.0.0 0.1.2.3 0.255.255.255   # this network
        10.0.0.0 10.255.255.255   # private
        100.64.0.0 100.100.100.200 100.127.255.255   # behind carriers' NAT
        127.0.0.0 127.0.0.1 127.255.255.255
        168.63.129.16   # metadata
        169.254.0.0 169.254.169.254 169.254.170.2 169.254.255.255   # link-local, metadata
        172.16.0.0 172.31.255.255
        192.0.0.0 192.0.0.192 192.0.0.255
        192.0.2.0 192.0.2.255 198.51.100.7 203.0.113.7   # documentation
        192.31.196.1 192.52.193.1 192.88.99.1 192.175.48.1
        192.168.0.0 192.168.255.255
        198.18.0.0 198.19.255.255   # benchmarks
        224.0.0.0 224.0.0.251 239.255.255.255   # multicast
        240.0.0.0 255.255.255.254 255.255.255.255
        :: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::ffff   # unspecified, loopback, IPv4-compatible
        ::ffff:0.0.0.0 ::ffff:10.1.2.3 ::ffff:127.0.0.1 ::ffff:169.254.169.254   # IPv4-mapped
        ::ffff:a9fe:a9fe ::ffff:192.168.1.1 ::ffff:255.255.255.255
        ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8   # translated by SIIT
        64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::100.64.0.1   # NAT64
        64:ff9b:1:: 64:ff9b:1::8.8.8.8 64:ff9b:1:ffff::1 64:ff9b:0:1::8.8.8.8   # NAT64 with a local prefix
        100:: 100::1 100:0:0:1::1 5f00::1   # discard, dummy, segment routing
        2001:: 2001:0:7f00:1:: 2001:0:4136:e378:8000:63bf:3fff:fdd2   # Teredo
        2001:2::1 2001:3::1 2001:4:112::1 2001:10::1 2001:20::1 2001:1ff:ffff::1 2620:4f:8000::1
        2001:db8::1 2001:db8:ffff::1 3fff::1 3fff:fff:ffff::1   # documentation
        2002:: 2002:7f00:1:: 2002:a9fe:a9fe::1 2002:808:808::1 2002:ffff::1   # 6to4
        fc00:: fc00::1 fd00:ec2::254 fd20:ce::254 fdff:ffff::1   # unique-local, metadata
        fe80:: fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 feff::1   # link-local, site-local
        ff00::1 ff02::1 ffff::1   # multicast
        1::1 200::1 400::1 1000::1 1fff::1 4000::1 8000::1 e000::1   # not given out
    ";

    const PUBLIC: &str = "
        1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
        168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255
        192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255
        198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
        ::ffff:8.8.8.8 64:ff9b::8.8.8.8
        2000::1 2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2400:cb00::1
        2606:4700:4700::1111 2620:4f:7fff::1 2a00:1450::1 3ffe::1 3fff:1000::1
    ";

    fn listed(lines: &str) -> Vec<IpAddr> {
        let words =
            lines.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
        words.map(|word| word.parse().expect("an address")).collect()
    }

    #[test]
    fn what_is_inside_or_special_is_refused() {
        let wrong: Vec<IpAddr> =
            listed(REFUSED).into_iter().filter(|address| Public.address(*address)).collect();
        assert!(wrong.is_empty() && listed(REFUSED).len() > 100, "must be refused: {wrong:?}");
    }

    #[test]
    fn what_anybody_can_reach_is_not() {
        let wrong: Vec<IpAddr> =
            listed(PUBLIC).into_iter().filter(|address| !Public.address(*address)).collect();
        assert!(wrong.is_empty() && listed(PUBLIC).len() > 30, "must not be refused: {wrong:?}");
    }

    /// Whatever addresses this machine has, this one is its own.
    #[test]
    fn this_machine_s_addresses_are_known_without_a_list_of_them() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_own(Ipv4Addr::new(8, 8, 8, 8).into()));
    }

    #[test]
    fn only_the_web_s_ports_are() {
        let ports: Vec<u16> = (0..=u16::MAX).filter(|port| Public.port(*port)).collect();
        assert_eq!(ports, [80, 443]);
    }
}
