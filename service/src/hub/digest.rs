//! The digests by which the Hub names files: SHA-256 of large ones, git's SHA-1 of a blob for the rest.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// What a file's bytes must have. As hex it is the blob's name in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    Sha256(String),
    /// `blob LENGTH\0` comes before the bytes.
    Git(String),
}

impl Expected {
    /// None: no digest, so no name for a file either.
    pub(super) fn sha256(hex: &str) -> Option<Self> {
        is_hex(hex, 64).then(|| Self::Sha256(hex.to_owned()))
    }

    pub(super) fn git(hex: &str) -> Option<Self> {
        is_hex(hex, 40).then(|| Self::Git(hex.to_owned()))
    }

    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git SHA-1",
        }
    }
}

/// Lower case, as the Hub writes it: one digest is one name.
pub(super) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[derive(Debug, Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// For a file of `bytes`.
    pub(super) fn new(expected: &Expected, bytes: u64) -> Self {
        match expected {
            Expected::Sha256(_) => Self::Sha256(Sha256::new()),
            Expected::Git(_) => Self::Git(Sha1::new_with_prefix(format!("blob {bytes}\0"))),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn hex(self) -> String {
        let bytes = match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Git(hasher) => hasher.finalize().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_hubs() {
        let of = |expected: Expected| {
            let mut hasher = Hasher::new(&expected, 6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            (hasher.hex(), expected.hex().to_owned())
        };
        // `git hash-object` and `sha256sum` of "hello\n".
        let (is, expected) = of(Expected::git("ce013625030ba8dba906f756967f9e9ca394464a").unwrap());
        assert_eq!(is, expected);
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let (is, expected) = of(Expected::sha256(sha256).unwrap());
        assert_eq!(is, expected);
    }

    #[test]
    fn what_is_no_digest_names_no_file() {
        for bad in ["", "../../x", &"g".repeat(64), &"A".repeat(64), &"a".repeat(63), &"/".repeat(64)] {
            assert_eq!(Expected::sha256(bad), None, "{bad}");
        }
        assert_eq!(Expected::git(&"a".repeat(64)), None);
    }
}
