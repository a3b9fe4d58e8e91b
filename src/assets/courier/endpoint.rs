//! What an invoice names as the place for its consignments: `rpc://host:port/path`, or `rpcs://` for TLS.

use std::net::IpAddr;

use reqwest::Url;
use url::Host;

use crate::domain::public_address::is_public;

/// Invoices are shown as pictures; a longer endpoint is none that anybody has meant.
const LONGEST: usize = 512;

/// Hosts, and ports of hosts, that the operator allows although they are not public.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed(Vec<(Host, Option<u16>)>);

/// An endpoint that may be called as far as that can be told from its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: Url,
    /// The operator has named it, so it may be anywhere.
    pub(super) is_allowed: bool,
}

impl Allowed {
    /// # Errors
    /// Which entry is no host and no port of a host.
    pub(super) fn parse(entries: &[String]) -> Result<Self, String> {
        let refuse = |entry: &String| format!("{entry:?} is neither a host nor host:port; write [::1] for IPv6");
        entries.iter().map(|entry| parse_entry(entry).ok_or_else(|| refuse(entry))).collect::<Result<_, _>>().map(Self)
    }

    fn has(&self, host: &Host<&str>, port: u16) -> bool {
        let names = |(allowed, of): &(Host, Option<u16>)| allowed == host && of.is_none_or(|allowed| allowed == port);
        self.0.iter().any(names)
    }
}

fn parse_entry(entry: &str) -> Option<(Host, Option<u16>)> {
    if let Ok(host) = Host::parse(entry) {
        return Some((host, None));
    }
    let (host, port) = entry.rsplit_once(':')?;
    Some((Host::parse(host).ok()?, Some(port.parse().ok()?)))
}

impl Endpoint {
    /// # Errors
    /// What is wrong with it, for people.
    pub(super) fn parse(text: &str, allowed: &Allowed) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("an endpoint has at most {LONGEST} characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("an endpoint has no spaces and only characters of ASCII".to_owned());
        }
        // Only now does the parser see it: for `http` it also knows the other ways to write an address.
        let url = match (text.strip_prefix("rpc://"), text.strip_prefix("rpcs://")) {
            (Some(rest), _) => Url::parse(&format!("http://{rest}")),
            (_, Some(rest)) => Url::parse(&format!("https://{rest}")),
            (None, None) => return Err("an endpoint begins with rpc:// or rpcs://".to_owned()),
        };
        let url = url.map_err(|error| format!("the endpoint can't be read: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("an endpoint has no user and no password".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("an endpoint ends with its path".to_owned());
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err("the endpoint names no host".to_owned());
        };
        let is_allowed = allowed.has(&host, port);
        let literal = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        };
        match literal.filter(|address| !is_allowed && !is_public(*address)) {
            Some(address) => Err(format!("{address} is not a public address")),
            None => Ok(Self { url, is_allowed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        Endpoint::parse(text, &Allowed::default()).map(|endpoint| endpoint.url.to_string())
    }

    fn at(host: &str) -> Result<String, String> {
        parse(&format!("rpc://{host}/json-rpc"))
    }

    #[test]
    fn an_endpoint_is_a_url_of_its_own_kind() {
        assert_eq!(parse("rpc://proxy.example:3000/json-rpc").unwrap(), "http://proxy.example:3000/json-rpc");
        assert_eq!(parse("rpcs://proxy.example/a/b").unwrap(), "https://proxy.example/a/b");
        assert_eq!(parse("rpcs://proxy.example:8443").unwrap(), "https://proxy.example:8443/");
        assert_eq!(parse("rpc://proxy.example/json-rpc").unwrap(), "http://proxy.example/json-rpc");
        assert_eq!(at("8.8.8.8:3000").unwrap(), format!("http://{}:3000/json-rpc", "8.8.8.8"));
        assert_eq!(at("[2001:4860::1]:1").unwrap(), "http://[2001:4860::1]:1/json-rpc");
        let long = format!("rpc://a/{}", "x".repeat(LONGEST - 8));
        assert!(parse(&long).is_ok() && parse(&format!("{long}x")).unwrap_err().contains("512"));
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_a_reason() {
        let kinds = [
            "",
            "http://a.example/",
            "https://a.example/",
            "storm://a/",
            "RPC://a/",
            "rpc:/a/",
            "rpc:a",
            "a.example",
            "file:///a",
        ];
        for text in kinds {
            assert!(parse(text).unwrap_err().contains("begins with"), "{text}");
        }
        for text in ["rpc://u@a.example/", "rpc://u:p@a.example/", "rpcs://:p@a.example/"] {
            assert!(parse(text).unwrap_err().contains("no user"), "{text}");
        }
        for text in ["rpc://a.example/#x", "rpc://a.example/#", "rpc://a.example/?x", "rpc://a.example?"] {
            assert!(parse(text).unwrap_err().contains("ends with its path"), "{text}");
        }
        for text in
            ["rpc://a.example/ x", " rpc://a.example/", "rpc://a.example/\n", "rpc://a\tb/", "rpc://\u{e9}.example/"]
        {
            assert!(parse(text).unwrap_err().contains("ASCII"), "{text}");
        }
        for text in [
            "rpc://",
            "rpc:///",
            "rpc://:80/",
            "rpc://a.example:65536/",
            "rpc://a.example:x/",
            "rpc://[::1/",
            "rpc://a%00b/",
        ] {
            assert!(parse(text).unwrap_err().contains("can't be read"), "{text}");
        }
    }

    #[test]
    fn an_address_that_is_not_public_is_found_in_every_spelling() {
        let spellings = [
            "127.0.0.1",
            "127.0.0.1:3000",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0x7F.0x0.0x0.0x1",
            "017700000001",
            "0177.0.0.1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "0",
            "0x0",
            "10.1",
            "192.168.257",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:a00:1]",
            "[64:ff9b::7f00:1]",
            "[fe80::1]",
            "[fd00::1]",
            "169.254.169.254",
            "0251.0376.0251.0376",
            "100.100.100.200",
            "255.255.255.255",
        ];
        for host in spellings {
            assert!(at(host).unwrap_err().contains("is not a public address"), "{host}");
            assert!(parse(&format!("rpcs://{host}/")).is_err(), "{host}");
        }
        // The address stands behind what looks like a user, or a path.
        assert!(at("proxy.example@127.1").is_err());
        assert!(parse("rpc:///127.1/x").unwrap_err().contains("is not a public address"));
        assert!(parse("rpc://\\127.1/x").unwrap_err().contains("is not a public address"));
    }

    #[test]
    fn an_operator_allows_hosts_and_ports_of_hosts() {
        let entries = ["127.0.0.1:3000", "10.0.0.7", "[::1]:80", "[fd00::1]", "proxy.example:3000", "Other.example"];
        let allowed = Allowed::parse(&entries.map(str::to_owned)).unwrap();
        let is_allowed = |text: &str| Endpoint::parse(text, &allowed).map(|endpoint| endpoint.is_allowed);
        for host in ["127.0.0.1:3000", "2130706433:3000", "10.0.0.7", "10.0.0.7:1", "[::1]", "[::1]:80", "[fd00::1]:9"]
        {
            assert_eq!(is_allowed(&format!("rpc://{host}/")), Ok(true), "{host}");
        }
        for host in ["127.0.0.1:3001", "127.0.0.1", "10.0.0.8", "[::1]:81", "[fd00::2]", "[::ffff:10.0.0.7]"] {
            assert!(is_allowed(&format!("rpc://{host}/")).is_err(), "{host}");
        }
        assert_eq!(is_allowed("rpc://proxy.example:3000/"), Ok(true));
        assert_eq!(is_allowed("rpc://PROXY.example:3000/"), Ok(true));
        assert_eq!(is_allowed("rpcs://other.example/"), Ok(true));
        assert_eq!(is_allowed("rpc://proxy.example/"), Ok(false));
        assert_eq!(is_allowed("rpc://a.proxy.example:3000/"), Ok(false));
        assert_eq!(is_allowed("rpcs://[::1]/").unwrap_err(), "::1 is not a public address");
        for entry in ["", "::1", "10.0.0.7:", "10.0.0.7:70000", "a b", "rpc://a/", "10.0.0.0/8", "a/b"] {
            assert!(Allowed::parse(&[entry.to_owned()]).unwrap_err().contains("host:port"), "{entry}");
        }
    }
}
