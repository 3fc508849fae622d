//! Where a fetch may go: a URL that says no more than scheme, host, path and query, and no refused address.

use std::net::IpAddr;

use reqwest::Url;

use super::{FetchError, Rule};

/// Signed URLs of object stores have some 1,500 bytes.
const URL_BYTES_MAX: usize = 4096;

/// A URL that was held against the [`Rule`], as far as it can be without a look-up.
#[derive(Debug, Clone, PartialEq)]
pub struct Target(Url);

impl Target {
    /// Read as browsers read it: what `127.1`, `0x7f.1` and `2130706433` mean is known from here on.
    pub(super) fn parse(text: &str, rule: &dyn Rule) -> Result<Self, FetchError> {
        if text.len() > URL_BYTES_MAX {
            return Err(FetchError::TooLong { bytes_max: URL_BYTES_MAX });
        }
        Self::check(Url::parse(text).map_err(|_| FetchError::Invalid)?, rule)
    }

    fn check(url: Url, rule: &dyn Rule) -> Result<Self, FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Invalid);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Credentials);
        }
        if !url.port_or_known_default().is_some_and(|port| rule.port(port)) {
            return Err(FetchError::Port);
        }
        // An address passes no resolver on its way to the connection.
        if url.domain().is_none() {
            let address = url.host_str().map(|host| host.trim_matches(['[', ']']));
            let address: Option<IpAddr> = address.and_then(|address| address.parse().ok());
            if !address.is_some_and(|address| rule.address(address)) {
                return Err(FetchError::Refused);
            }
        }
        Ok(Self(url))
    }

    pub(super) fn redirected(&self, location: Option<&str>, rule: &dyn Rule) -> Result<Self, FetchError> {
        let refuse = |reason| FetchError::Redirect { reason };
        let location = location.filter(|location| location.len() <= URL_BYTES_MAX);
        let next = location.and_then(|location| self.0.join(location).ok());
        let next = next.ok_or(refuse("and says no address to go to"))?;
        if self.0.scheme() == "https" && next.scheme() == "http" {
            return Err(refuse("from https to http"));
        }
        Self::check(next, rule).map_err(|error| match error {
            FetchError::Invalid => refuse("to what is neither http nor https"),
            FetchError::Credentials => refuse("to an address with a user's name or a password"),
            FetchError::Port => refuse("to another port than 80 and 443"),
            error => error,
        })
    }

    pub(super) fn url(&self) -> Url {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Public;
    use super::*;

    fn code(url: &str) -> &'static str {
        Target::parse(url, &Public).map_or_else(|error| error.code(), |_| "good")
    }

    #[test]
    fn every_spelling_of_an_address_inside_is_refused() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "0x7f.1",
            "0x7f000001",
            "0X7F.0.0.0X1",
            "0177.0.0.1",
            "017700000001",
            "2130706433",
            "127.0.0.1.",
            "127.1.",
            "0",
            "0.0.0.0",
            "１２７.０.０.１",
            "127。0。0。1",
            "①②⑦.0.0.1",
            "%31%32%37.0.0.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "[::]",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:169.254.169.254]",
            "[::FFFF:A9FE:A9FE]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[fd00:ec2::254]",
            "[fe80::1]",
        ] {
            for url in [
                format!("http://{host}/"),
                format!("https://{host}/a.png?x#y"),
                format!("HtTp:\\\\{host}\\"),
                format!(" http:{host}\n"),
                format!("http://{host}:80/"),
            ] {
                assert_eq!(code(&url), "image_url_refused", "{url}");
            }
        }
    }

    #[test]
    fn everything_else_has_its_reason() {
        let long = format!("http://example.org/{}", "a".repeat(URL_BYTES_MAX));
        for (url, expected) in [
            ("http://example.org", "good"),
            ("HTTPS://EXAMPLE.org.:443/ä b?c", "good"),
            ("http://bücher.example/", "good"),
            ("http://8.8.8.8/", "good"),
            ("http://[2606:4700::1111]/", "good"),
            ("http://user@example.org/", "image_url_credentials"),
            ("http://:pass@example.org/", "image_url_credentials"),
            ("http://example.org@127.0.0.1/", "image_url_credentials"),
            ("http://example.org:8080/", "image_url_port"),
            ("https://example.org:22/", "image_url_port"),
            ("http://127.0.0.1:6379/", "image_url_port"),
            ("http://example.org:0/", "image_url_port"),
            ("http://example.org:65536/", "image_url_invalid"),
            ("http://", "image_url_invalid"),
            ("http:///", "image_url_invalid"),
            ("http://256.0.0.1/", "image_url_invalid"),
            ("http://1.2.3.4.5/", "image_url_invalid"),
            ("http://[::1%25lo]/", "image_url_invalid"),
            ("http://a b/", "image_url_invalid"),
            ("http://a\0b/", "image_url_invalid"),
            ("file:///etc/passwd", "image_url_invalid"),
            ("gopher://127.0.0.1:6379/_", "image_url_invalid"),
            ("example.org/a.png", "image_url_invalid"),
            (&long, "image_url_too_long"),
        ] {
            assert_eq!(code(url), expected, "{url}");
        }
    }

    #[test]
    fn a_redirect_is_a_new_target() {
        let go = |from: &str, to: Option<&str>| {
            let from = Target::parse(from, &Public).expect("good");
            from.redirected(to, &Public).map_or_else(|error| error.code().to_owned(), |to| to.0.to_string())
        };
        assert_eq!(go("http://a.example/b/c", Some("d?e")), "http://a.example/b/d?e");
        assert_eq!(go("http://a.example/", Some("//b.example")), "http://b.example/");
        assert_eq!(go("http://a.example/", Some("https://b.example")), "https://b.example/");
        for to in ["http://127.1/", "//[::1]/", "http://169.254.169.254/latest/meta-data/"] {
            assert_eq!(go("http://a.example/", Some(to)), "image_url_refused", "{to}");
        }
        let long = "a".repeat(URL_BYTES_MAX + 1);
        for to in [
            None,
            Some("file:///etc/passwd"),
            Some("http://u@b.example"),
            Some("//b.example:22"),
            Some(&long),
        ] {
            assert_eq!(go("http://a.example/", to), "image_url_redirect", "{to:?}");
        }
        assert_eq!(go("https://a.example/", Some("http://a.example/")), "image_url_redirect");
    }
}
