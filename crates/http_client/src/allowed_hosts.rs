use std::{
    error, fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use tokio::task::JoinSet;
use url::Host;

/// Where calls may go: `otp_gateway.allowed_hosts`. The address that is connected to counts, and is looked at on each
/// connect, so that a name that has come to point elsewhere leads nowhere. An empty list allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    /// Host names, in lower case; `*.` before a name stands for all names below it.
    names: Vec<String>,
    networks: Vec<IpNet>,
}

impl AllowedHosts {
    /// Reads a list, separated by commas, of host names, addresses and networks. The error names the entry and the
    /// rule.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut allowed = Self::default();
        if text.trim().is_empty() {
            return Ok(allowed);
        }
        for entry in text.split(',').map(str::trim) {
            let read = match entry.split_once('/') {
                Some((address, length)) => network(address, length).map(|network| allowed.networks.push(network)),
                None => match entry.parse() {
                    Ok(address) => plain(address).map(|address| allowed.networks.push(address.into())),
                    Err(_) => name(entry).map(|name| allowed.names.push(name)),
                },
            };
            read.map_err(|why| format!("entry \"{entry}\" {why}"))?;
        }
        Ok(allowed)
    }

    /// Checks a URL with an address in place of a name, which no resolver ever sees.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Refused> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address),
            Some(Host::Ipv6(address)) => IpAddr::from(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.is_empty() || self.holds(address) {
            return Ok(());
        }
        Err(Refused(format!("{address}: list the address or its network")))
    }

    /// Checks a URL that a proxy takes the call to: the proxy alone looks its host up, so a name must itself be listed.
    pub(crate) fn check_behind_proxy(&self, url: &Url) -> Result<(), Refused> {
        match url.host() {
            Some(Host::Domain(host)) if !self.is_empty() && !self.names(host) => Err(Refused(format!(
                "{host}: list the host by its name, for behind a proxy nobody here sees its address"
            ))),
            _ => self.check(url),
        }
    }

    /// Returns those addresses of a host, named as a URL writes it, that may be connected to.
    fn keep(&self, host: &str, addresses: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
        let is_named = self.names(host);
        let may = |address: IpAddr| self.is_empty() || self.holds(address) || is_named && is_public(address);
        let kept: Vec<SocketAddr> = addresses.filter(|address| may(address.ip())).collect();
        if !kept.is_empty() {
            return Ok(kept);
        }
        // The address is not shown: whoever may write a base_url would learn what the names of this network stand for.
        Err(Refused(if is_named {
            format!("{host}, which is listed by name alone and resolves to no public address: list its network too")
        } else {
            format!("{host}: list the host, or the network of its address")
        }))
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.networks.is_empty()
    }

    fn names(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.names.iter().any(|name| match name.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == name,
        })
    }

    fn holds(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.networks.iter().any(|network| network.contains(&address))
    }
}

fn network(address: &str, length: &str) -> Result<IpNet, String> {
    let no_network = || "is no network: write an address and a prefix length, as in 10.1.0.0/16".to_owned();
    let address = plain(address.parse().map_err(|_| no_network())?)?;
    let network = length.parse().ok().and_then(|length| IpNet::new(address, length).ok()).ok_or_else(no_network)?;
    if network != network.trunc() {
        return Err(format!("has bits set beyond its prefix length: write {} or {address}", network.trunc()));
    }
    Ok(network)
}

fn plain(address: IpAddr) -> Result<IpAddr, String> {
    if canonical(address) == address {
        return Ok(address);
    }
    Err("is IPv4 in the form of IPv6: write the IPv4 address or network".to_owned())
}

fn name(entry: &str) -> Result<String, String> {
    let (wildcard, rest) = if let Some(rest) = entry.strip_prefix("*.") { ("*.", rest) } else { ("", entry) };
    let address = match Host::parse(rest.strip_suffix('.').unwrap_or(rest)) {
        Ok(Host::Domain(name)) if !name.contains('*') && !name.split('.').any(str::is_empty) => {
            return Ok(format!("{wildcard}{name}"));
        }
        Ok(Host::Ipv4(address)) => Some(IpAddr::from(address)),
        Ok(Host::Ipv6(address)) => Some(IpAddr::from(address)),
        _ => None,
    };
    Err(match address.filter(|_| wildcard.is_empty()) {
        Some(address) => format!("is an address in another form than the usual one: write {address}"),
        None => "is no host name, address or network: write host.example, *.example, 192.0.2.1 or 10.1.0.0/16; \
            no scheme, port or path, and nothing at all to allow every host"
            .to_owned(),
    })
}

/// The well-known prefix under which NAT64 shows IPv4 to hosts that speak IPv6 alone (RFC 6052).
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Returns the IPv4 address that an IPv6 address stands for; any other address as it is.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) if NAT64.contains(&six) => Ipv4Addr::from_bits(six.to_bits() as u32).into(),
        _ => address.to_canonical(),
    }
}

const fn four(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn six(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

/// The IPv4 networks that IANA's register of special-purpose addresses keeps from being reached across the Internet.
const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    four(0, 0, 0, 8),       // this network
    four(10, 0, 0, 8),      // private
    four(100, 64, 0, 10),   // carrier-grade NAT, and some clouds' metadata
    four(127, 0, 0, 8),     // loopback
    four(169, 254, 0, 16),  // link-local: most clouds' metadata
    four(172, 16, 0, 12),   // private
    four(192, 0, 0, 24),    // protocol assignments
    four(192, 0, 2, 24),    // documentation
    four(192, 88, 99, 24),  // 6to4 relays
    four(192, 168, 0, 16),  // private
    four(198, 18, 0, 15),   // benchmarks
    four(198, 51, 100, 24), // documentation
    four(203, 0, 113, 24),  // documentation
    four(224, 0, 0, 4),     // multicast
    four(240, 0, 0, 4),     // reserved, broadcast
];
/// The one network that global IPv6 addresses are given out from; below it, the parts of that network that are not
/// global.
const GLOBAL_V6: Ipv6Net = six(0x2000, 0, 3);
const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    six(0x2001, 0, 23),     // protocol assignments, Teredo
    six(0x2001, 0xdb8, 32), // documentation
    six(0x2002, 0, 16),     // 6to4
    six(0x3fff, 0, 20),     // documentation
];

/// Returns whether an address is reached across the Internet, and so is no host of this machine or its network.
fn is_public(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// Says, for the user, why there is no connection.
#[derive(Debug)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "otp_gateway.allowed_hosts does not allow {}", self.0)
    }
}

impl error::Error for Refused {}

/// Resolves names as reqwest does by itself, and drops the addresses that are not allowed.
pub struct Resolver(pub Arc<AllowedHosts>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            // The set is for its drop: a caller that gives up waiting leaves no look-up behind that has not begun.
            let mut looking = JoinSet::new();
            looking.spawn_blocking(move || (host.as_str(), 0).to_socket_addrs());
            let found = looking.join_next().await.ok_or_else(|| io::Error::other("no look-up"))???;
            Ok(Box::new(allowed.keep(name.as_str(), found)?.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> AllowedHosts {
        AllowedHosts::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    /// Returns those of a host's addresses that are allowed.
    fn kept(text: &str, host: &str, addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0));
        list(text)
            .keep(host, addresses)
            .map_or_else(|_| Vec::new(), |kept| kept.iter().map(|address| address.ip().to_string()).collect())
    }

    fn may(text: &str, host: &str, address: &str) -> bool {
        !kept(text, host, &[address]).is_empty()
    }

    fn may_call(text: &str, url: &str) -> bool {
        list(text).check(&Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn nothing_listed_allows_everything() {
        for text in ["", "  ", "\n\t"] {
            assert!(may(text, "localhost", "127.0.0.1") && may(text, "x.example", "169.254.169.254"));
            assert!(may_call(text, "http://127.0.0.1/") && may_call(text, "http://[::1]/"));
        }
    }

    #[test]
    fn networks_hold_addresses_whatever_the_name() {
        assert!(may("10.1.0.0/16", "x.example", "10.1.255.255"));
        assert!(!may("10.1.0.0/16", "x.example", "10.2.0.0"));
        assert!(may("8.8.8.8", "x.example", "8.8.8.8") && !may("8.8.8.8", "x.example", "8.8.4.4"));
        assert!(may("fd00:1::/32", "x.example", "fd00:1::9") && !may("fd00:1::/32", "x.example", "fd00:2::9"));
        assert!(may(" 192.168.0.0/16 ,\n10.0.0.0/8", "x.example", "10.9.9.9"));
        assert!(may("0.0.0.0/0", "x.example", "127.0.0.1") && !may("0.0.0.0/0", "x.example", "::1"));
        assert!(may("::/0", "x.example", "::1") && !may("::/0", "x.example", "127.0.0.1"));
    }

    #[test]
    fn ipv4_in_the_form_of_ipv6_is_ipv4() {
        for address in ["::ffff:10.1.2.3", "64:ff9b::10.1.2.3"] {
            assert!(may("10.0.0.0/8", "x.example", address), "{address}");
            assert!(!may("::/0", "x.example", address), "{address}");
            assert!(!may("x.example", "x.example", address), "{address}");
        }
        assert!(may("x.example", "x.example", "64:ff9b::8.8.8.8") && may("x.example", "x.example", "::ffff:8.8.8.8"));
        assert!(may_call("127.0.0.1", "http://[::ffff:127.0.0.1]/"));
        assert!(!may_call("::/0", "http://[::ffff:127.0.0.1]/"));
    }

    #[test]
    fn names_are_exact_or_of_a_domain() {
        let public = "8.8.8.8";
        for (text, host, expected) in [
            ("vendor.example", "vendor.example", true),
            ("Vendor.EXAMPLE", "vendor.example", true),
            ("vendor.example.", "vendor.example", true),
            ("vendor.example", "vendor.example.", true),
            ("vendor.example", "api.vendor.example", false),
            ("vendor.example", "evilvendor.example", false),
            ("vendor.example", "vendor.example.evil.example", false),
            ("*.vendor.example", "api.vendor.example", true),
            ("*.vendor.example", "a.b.vendor.example", true),
            ("*.vendor.example", "vendor.example", false),
            ("*.vendor.example", ".vendor.example", false),
            ("*.vendor.example", "evilvendor.example", false),
            ("b\u{fc}cher.example", "xn--bcher-kva.example", true),
            ("a.example, b.example", "b.example", true),
        ] {
            assert_eq!(may(text, host, public), expected, "{text} and {host}");
        }
    }

    #[test]
    fn a_name_allows_public_addresses_alone() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!may("x.example", "x.example", address), "{address}");
            assert!(
                may(&format!("x.example, {}", canonical(address.parse().unwrap())), "x.example", address),
                "{address}"
            );
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2400:cb00::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(may("x.example", "x.example", address), "{address}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_dropped_and_the_rest_is_kept() {
        let addresses = ["10.0.0.1", "8.8.8.8", "::1", "1.1.1.1"];
        assert_eq!(kept("x.example", "x.example", &addresses), ["8.8.8.8", "1.1.1.1"]);
        assert_eq!(kept("10.0.0.0/8, ::1", "x.example", &addresses), ["10.0.0.1", "::1"]);
        assert_eq!(kept("y.example", "x.example", &addresses), [""; 0]);
    }

    #[test]
    fn an_address_in_the_url_needs_an_entry_of_its_own() {
        for url in
            ["http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1./", "http://127.0.0.%31/"]
        {
            assert!(may_call("127.0.0.1", url), "{url}");
            assert!(!may_call("127.0.0.2, localhost, *.example", url), "{url}");
        }
        // The name of a public host does not make every public address allowed.
        assert!(!may_call("x.example", "https://8.8.8.8/"));
        assert!(may_call("::1", "http://[::1]/") && !may_call("::2", "http://[0:0:0:0:0:0:0:1]/"));
        // Names are checked when they are resolved.
        assert!(may_call("y.example", "https://x.example/"));
    }

    #[test]
    fn behind_a_proxy_a_name_has_to_be_listed() {
        let may = |text: &str, url: &str| list(text).check_behind_proxy(&Url::parse(url).unwrap()).is_ok();
        assert!(may("", "https://x.example/") && may("", "https://10.0.0.1/"));
        assert!(may("*.example", "https://x.example:8443/path") && may("10.0.0.0/8", "https://10.0.0.1/"));
        for (text, url) in [
            ("10.0.0.0/8", "https://x.example/"),
            ("0.0.0.0/0", "https://localhost/"),
            ("y.example", "https://x.example/"),
            ("x.example", "https://10.0.0.1/"),
            ("x.example", "https://8.8.8.8/"),
        ] {
            assert!(!may(text, url), "{text} {url}");
        }
    }

    #[test]
    fn a_malformed_entry_is_named_with_its_rule() {
        for (text, entry, rule) in [
            ("10.0.0.0/8,,x.example", "\"\"", "no host name"),
            ("10.0.0.0/8,", "\"\"", "no host name"),
            ("10.0.0.1/8", "\"10.0.0.1/8\"", "write 10.0.0.0/8 or 10.0.0.1"),
            ("10.0.0.0/33", "\"10.0.0.0/33\"", "prefix length"),
            ("10.0.0.0/", "\"10.0.0.0/\"", "prefix length"),
            ("10.0.0.0/255.0.0.0", "\"10.0.0.0/255.0.0.0\"", "prefix length"),
            ("::/129", "\"::/129\"", "prefix length"),
            ("010.0.0.0/8", "\"010.0.0.0/8\"", "prefix length"),
            ("010.0.0.1", "\"010.0.0.1\"", "write 8.0.0.1"),
            ("127.1", "\"127.1\"", "write 127.0.0.1"),
            ("[::1]", "\"[::1]\"", "write ::1"),
            ("10.0.0.256", "\"10.0.0.256\"", "no host name"),
            ("::ffff:10.0.0.0/104", "\"::ffff:10.0.0.0/104\"", "IPv4"),
            ("::ffff:10.0.0.1", "\"::ffff:10.0.0.1\"", "IPv4"),
            ("64:ff9b::/96", "\"64:ff9b::/96\"", "IPv4"),
            ("x.example, https://y.example", "\"https://y.example\"", "no network"),
            ("x.example:443", "\"x.example:443\"", "no scheme, port or path"),
            ("x.example/path", "\"x.example/path\"", "no network"),
            ("*", "\"*\"", "nothing at all to allow every host"),
            ("*.", "\"*.\"", "no host name"),
            ("*.1", "\"*.1\"", "no host name"),
            ("*.*.example", "\"*.*.example\"", "no host name"),
            ("api*.example", "\"api*.example\"", "no host name"),
            ("a..example", "\"a..example\"", "no host name"),
            ("x.example y.example", "\"x.example y.example\"", "no host name"),
            ("user@x.example", "\"user@x.example\"", "no host name"),
        ] {
            let why = AllowedHosts::parse(text).expect_err(text);
            assert!(why.contains(entry) && why.contains(rule), "{text}: {why}");
        }
    }

    #[test]
    fn refusals_say_what_to_list() {
        let refused = |text: &str, host: &str| {
            let addresses = [SocketAddr::from(([10, 0, 0, 1], 0))];
            list(text).keep(host, addresses.into_iter()).expect_err("refused").to_string()
        };
        let unlisted = refused("8.8.8.8", "x.example");
        assert!(
            unlisted.starts_with("otp_gateway.allowed_hosts does not allow x.example: list the host"),
            "{unlisted}"
        );
        let named = refused("x.example", "x.example");
        assert!(named.contains("x.example") && named.contains("list its network too"), "{named}");
        assert!(!unlisted.contains("10.0.0.1") && !named.contains("10.0.0.1"));
        let literal = list("8.8.8.8").check(&Url::parse("http://127.1/").unwrap()).expect_err("refused").to_string();
        assert!(literal.contains("127.0.0.1: list the address"), "{literal}");
    }
}
