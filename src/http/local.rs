//! Whether a call was made on this machine, by a program of its owner. Where wallet headers alone are believed they are worth nothing
//! to whom they are told by somebody else: a proxy brings calls of others, and a web page is written by others.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, header};

/// Only what stands between a caller and the gateway writes these.
const WRITTEN_BY_PROXIES: [&str; 3] = ["forwarded", "via", "x-real-ip"];
const WRITTEN_BY_PROXIES_PREFIX: &str = "x-forwarded-";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The header by which a call gives away that it was not made here, and what is wrong with it.
///
/// # Errors
/// When there is one.
pub fn check(headers: &HeaderMap, allowed_origins: &[String]) -> Result<(), (String, &'static str)> {
    if let Some(name) = headers.keys().map(HeaderName::as_str).find(|name| is_of_proxy(name)) {
        return Err((name.to_owned(), "was written by a proxy"));
    }
    if headers.get_all(header::HOST).iter().any(|host| !host.to_str().is_ok_and(is_this_machine)) {
        return Err((header::HOST.to_string(), "names another host than this machine"));
    }
    if let Some(name) = of_foreign_page(headers, allowed_origins) {
        return Err((name.to_string(), "was sent by a web page that may not call"));
    }
    Ok(())
}

fn is_of_proxy(name: &str) -> bool {
    WRITTEN_BY_PROXIES.contains(&name) || name.starts_with(WRITTEN_BY_PROXIES_PREFIX)
}

/// The header by which a browser says that a call was made by a page of somebody else.
pub fn of_foreign_page(headers: &HeaderMap, allowed_origins: &[String]) -> Option<HeaderName> {
    let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
    if origins.peek().is_some() {
        let all_known = origins.all(|origin| origin.to_str().is_ok_and(|text| knows(text, headers, allowed_origins)));
        // A browser that names an origin we know has said all there is to say.
        return (!all_known).then_some(header::ORIGIN);
    }
    let of_others = |site: &[u8]| !matches!(site, b"same-origin" | b"none");
    headers.get_all(SEC_FETCH_SITE).iter().any(|site| of_others(site.as_bytes())).then_some(SEC_FETCH_SITE)
}

/// A page of an origin that the operator has named, or of the gateway itself.
fn knows(origin: &str, headers: &HeaderMap, allowed: &[String]) -> bool {
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    allowed.iter().any(|one| one == "*" || one == origin) || (host.is_some() && host == own)
}

/// Whether a Host header names this machine, with or without a port. A name of somebody else may lead here, too, as soon as its owner
/// wants it: that is how a web page would get around all that its browser forbids.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(inside, _port)| inside),
        None => host.split_once(':').map_or(host, |(name, _port)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let address = name.parse::<IpAddr>().map(|address| address.to_canonical());
    name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(sent: &[(&'static str, &str)]) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, value.parse().unwrap());
        }
        check(&headers, &["https://shop.example".to_owned()]).map_err(|(name, _)| name)
    }

    #[test]
    fn what_a_program_of_this_machine_sends_is_taken() {
        for host in ["localhost:8080", "127.0.0.1", "127.8.9.1:1", "[::1]:8080", "[::ffff:127.0.0.1]", "a.LOCALHOST."] {
            assert_eq!(checked(&[("host", host)]), Ok(()), "{host}");
        }
        assert_eq!(checked(&[]), Ok(()), "a client of HTTP/1.0 names no host");
        for page in ["https://shop.example", "http://localhost:8080"] {
            let sent = [("host", "localhost:8080"), ("origin", page), ("sec-fetch-site", "cross-site")];
            assert_eq!(checked(&sent), Ok(()), "{page}");
        }
        assert_eq!(checked(&[("sec-fetch-site", "same-origin")]), Ok(()));
    }

    #[test]
    fn what_comes_from_elsewhere_is_known_by_its_header() {
        for (name, value) in [
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "localhost"),
            ("via", "1.1 proxy"),
            ("x-real-ip", "127.0.0.1"),
            ("host", "gateway.example"),
            ("host", "127.0.0.1.rebind.example:8080"),
            ("host", "[2001:db8::1]"),
            ("host", "[::1"),
            ("host", "203.0.113.9:8080"),
            ("host", "0.0.0.0:8080"),
            ("host", ""),
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:9"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(checked(&[(name, value)]), Err(name.to_owned()), "{name}: {value}");
        }
        assert_eq!(checked(&[("host", "localhost"), ("host", "evil.example")]), Err("host".to_owned()));
        let both = [("origin", "https://shop.example"), ("origin", "https://evil.example")];
        assert_eq!(checked(&both), Err("origin".to_owned()));
    }
}
