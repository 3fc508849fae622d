//! Why there is no picture. What is said is what a stranger may know: of the network inside, nothing.

use super::resolve::NoAddress;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the image URL is not an `http://` or `https://` address of a host")]
    Invalid,
    #[error("the image URL has more than {bytes_max} bytes")]
    TooLong { bytes_max: usize },
    #[error("the image URL holds a user's name or a password; none is sent along")]
    Credentials,
    #[error("the image URL names a port; images are fetched from ports 80 and 443 alone")]
    Port,
    /// One and the same for names that are not known and for addresses that are not public: who asks must not
    /// learn which names there are inside.
    #[error("the host of the image URL has no address that images are fetched from")]
    Refused,
    #[error("the host of the image URL redirects {reason}")]
    Redirect { reason: &'static str },
    #[error("the host of the image URL answered {status}, not 200")]
    Status { status: u16 },
    #[error("the host of the image URL sends the image compressed, although that was not asked for")]
    Encoded,
    #[error("the image behind the URL has more than the {bytes_max} bytes accepted")]
    TooLarge { bytes_max: u64 },
    #[error("the image behind the URL did not arrive in time")]
    TooSlow,
    #[error("the image URL can't be fetched: its host can't be reached, or broke off")]
    Unreachable(#[source] reqwest::Error),
    #[error("too many images are being fetched; try again shortly")]
    Busy,
}

impl FetchError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid => "image_url_invalid",
            Self::TooLong { .. } => "image_url_too_long",
            Self::Credentials => "image_url_credentials",
            Self::Port => "image_url_port",
            Self::Refused => "image_url_refused",
            Self::Redirect { .. } => "image_url_redirect",
            Self::Status { .. } => "image_url_status",
            Self::Encoded => "image_url_encoded",
            Self::TooLarge { .. } => "image_url_too_large",
            Self::TooSlow => "image_url_too_slow",
            Self::Unreachable(_) => "image_url_unreachable",
            Self::Busy => "fetches_over_limit",
        }
    }

    /// Without the URL, which may be signed.
    pub(super) fn broken(error: reqwest::Error) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(at) = cause {
            if at.is::<NoAddress>() {
                return Self::Refused;
            }
            cause = at.source();
        }
        if error.is_timeout() { Self::TooSlow } else { Self::Unreachable(error.without_url()) }
    }
}
