//! `GET /docs`: the API's description as a page (Swagger UI, from the binary itself, so that it works offline).

use std::sync::{Arc, LazyLock};

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_SECURITY_POLICY;
use actix_web::{HttpResponse, get, web};
use utoipa_swagger_ui::Config;

use super::problem::ApiError;

/// Only from here: the page must work, and tell nobody anything, where there is no other network.
const FROM_HERE: &str =
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'";

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // The validator is a public server that would be sent the address of this one.
    Arc::new(Config::new(["/openapi.json"]).validator_url("none").persist_authorization(false))
});

#[get("/docs")]
pub(super) async fn docs() -> Result<HttpResponse, ApiError> {
    file("index.html")
}

#[get("/docs/{file:.*}")]
pub(super) async fn docs_file(name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    file(&name)
}

fn file(name: &str) -> Result<HttpResponse, ApiError> {
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)).map_err(|error| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "docs_unavailable", error.to_string())
    })?;
    let file = found.ok_or_else(|| {
        let detail = "the documentation has no such file; it begins at `/docs`";
        ApiError::new(StatusCode::NOT_FOUND, "no_such_route", detail)
    })?;
    let mut body = file.bytes;
    if file.content_type == "text/html" {
        // Its links are relative; `/docs` has no slash at its end for them to follow.
        let page = String::from_utf8_lossy(&body).replacen("<head>", "<head><base href=\"/docs/\">", 1);
        body = page.into_bytes().into();
    }
    Ok(HttpResponse::Ok()
        .content_type(file.content_type)
        .insert_header((CONTENT_SECURITY_POLICY, FROM_HERE))
        .body(body.into_owned()))
}
