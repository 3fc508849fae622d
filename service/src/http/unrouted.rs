//! What no route takes: 404 for an address that nobody knows, 405 with `Allow` where only the method is wrong.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use utoipa::OpenApi as _;

use super::Document;
use super::problem::ApiError;

/// The methods of each route, as the API's description has them.
static ALLOWED: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let paths = Document::openapi().paths.paths.into_iter();
    paths.map(|(path, item)| (path, methods(&item))).collect()
});

fn methods(item: &utoipa::openapi::PathItem) -> String {
    let offered = [
        ("GET", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    let offered: Vec<&str> = offered.iter().filter(|(_, at)| at.is_some()).map(|(name, _)| *name).collect();
    offered.join(", ")
}

pub(super) async fn unrouted(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let Some(pattern) = request.match_pattern() else {
        let detail = "there is no such route; `GET /openapi.json` lists them";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_such_route", detail));
    };
    // Pages (`/`, `/docs`) stand in no description of the API.
    let allowed = ALLOWED.get(&pattern).map_or("GET", String::as_str);
    let detail = format!("this address does not take this method, but {allowed}");
    let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail);
    Err(error.allowing(allowed))
}
