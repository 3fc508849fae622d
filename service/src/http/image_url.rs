//! The `image_url` of a moderation request: a `data:` URL, or an address to fetch from where that is switched on.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::ApiError;
use super::{State, peer};
use crate::fetch::{Fetcher, Target};

#[derive(Debug, PartialEq)]
pub(super) enum Image {
    Bytes(Vec<u8>),
    Elsewhere(Target),
}

pub(super) fn read(url: &str, fetcher: Option<&Fetcher>) -> Result<Image, ApiError> {
    // As the parser of URLs will see it.
    let url = url.trim_matches(|c: char| c <= ' ');
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") {
        return Ok(Image::Elsewhere(fetcher.ok_or_else(not_fetched)?.target(url)?));
    }
    data_url(url, scheme).map(Image::Bytes)
}

/// `data:image/png;base64,…`: what it really is, the bytes say.
fn data_url(url: &str, scheme: &str) -> Result<Vec<u8>, ApiError> {
    let unreadable = "an `image_url` is not a base64 `data:` URL (`data:image/png;base64,…`)";
    if !scheme.eq_ignore_ascii_case("data") {
        return Err(invalid("image_url_invalid", unreadable));
    }
    let (kind, data) = url.split_once(',').ok_or_else(|| invalid("image_url_invalid", unreadable))?;
    if !kind.to_ascii_lowercase().ends_with(";base64") {
        return Err(invalid("image_url_invalid", unreadable));
    }
    STANDARD
        .decode(data.trim())
        .map_err(|_| invalid("image_url_invalid", "the base64 of an `image_url` is broken"))
}

fn not_fetched() -> ApiError {
    let detail = "this service fetches no image URLs; send the image as a `data:` URL, or have its operator \
                  start it with `--fetch-image-urls`";
    invalid("image_url_not_fetched", detail)
}

fn invalid(code: &'static str, detail: &str) -> ApiError {
    ApiError::malformed(code, detail).at("input")
}

/// The bytes, and their share of the memory that all bodies together may hold where they came just now.
pub(super) async fn bytes(
    state: &State,
    request: &HttpRequest,
    image: Image,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
    let target = match image {
        Image::Bytes(bytes) => return Ok((bytes, None)),
        Image::Elsewhere(target) => target,
    };
    let fetcher = state.fetcher.as_ref().ok_or_else(not_fetched)?;
    let fetch = async { state.bodies.read_fetched(fetcher.open(target).await?).await };
    let body = tokio::select! {
        biased;
        body = fetch => body?,
        () = peer::left(request) => {
            let detail = "the client closed the connection";
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "client_left", detail));
        }
    };
    Ok(body.into_parts())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_data_url_is_refused() {
        let code = |url| read(url, None).err().map_or("accepted", |error| error.code());
        for (url, expected) in [
            ("data:image/png;base64,AQID", "accepted"),
            (" DATA:;BASE64, AQID\n", "accepted"),
            ("http://example.org/a.png", "image_url_not_fetched"),
            ("\tHTTPS://example.org/a.png", "image_url_not_fetched"),
            ("ftp://example.org/a.png", "image_url_invalid"),
            ("data:image/png,abc", "image_url_invalid"),
            ("data:image/png;base64", "image_url_invalid"),
            ("data:image/png;base64,%%%", "image_url_invalid"),
            ("", "image_url_invalid"),
        ] {
            assert_eq!(code(url), expected, "{url}");
        }
    }
}
