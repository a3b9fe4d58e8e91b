//! What a developer reads: the document, a page that shows it, and the list of errors. Nothing is loaded from elsewhere.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::openapi;
use super::problem::{ALL, entry};

/// The page's program, packed; see `web/scalar/README.md`.
static SCALAR: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/web/scalar/standalone.js.gz"));
static DOCUMENT: LazyLock<String> = LazyLock::new(openapi::document_json);
static ERRORS: LazyLock<String> = LazyLock::new(errors_page);

/// The page may talk to this gateway and to nobody else, and runs no script but ours.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                   font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Sluice API</title></head>
<body>
<noscript>This page needs JavaScript. The document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script id="api-reference" type="application/json" data-url="/openapi.json"
  data-configuration='{"withDefaultFonts":false,"telemetry":false,"hideClientButton":true,"agent":{"disabled":true},"mcp":{"disabled":true}}'></script>
<script src="/docs/scalar.js"></script>
</body>
</html>
"#;
const HTML: &str = "text/html; charset=utf-8";

/// The pages. They need no key: they say nothing about anybody.
pub fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/openapi.json", get(async || answer("application/json", DOCUMENT.as_str())))
        .route("/docs", get(async || answer(HTML, PAGE)))
        .route("/docs/errors", get(async || answer(HTML, ERRORS.as_str())))
        .route("/docs/scalar.js", get(scalar))
}

fn answer(kind: &'static str, body: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (headers, body).into_response()
}

async fn scalar() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CONTENT_ENCODING, "gzip"),
        (header::CACHE_CONTROL, "public, max-age=86400"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, SCALAR).into_response()
}

fn errors_page() -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Sluice: errors</title><style>\
         body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
         table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.4rem .8rem;border-bottom:1px solid #ccc}\
         tr:target{background:#ffc}</style></head><body><h1>Errors</h1>\
         <p>Every answer that is not success is <code>application/problem+json</code> with one of these codes in <code>error</code>.\
         </p><table><tr><th>Code</th><th>Status</th><th>What it means</th><th>What to do</th><th>Again?</th></tr>\n",
    );
    for code in ALL {
        let entry = entry(*code);
        let again = if entry.retryable { "may work later" } else { "no" };
        // Writing to a String does not fail.
        let _infallible = writeln!(
            page,
            "<tr id=\"{0}\"><td><code>{0}</code></td><td>{1}</td><td>{2}</td><td>{3}</td><td>{again}</td></tr>",
            entry.name, entry.status, entry.title, entry.advice
        );
    }
    page.push_str("</table></body></html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_can_be_linked_to() {
        let page = errors_page();
        for code in ALL {
            assert!(page.contains(&format!("id=\"{}\"", entry(*code).name)));
        }
    }

    #[test]
    fn the_pages_load_nothing_from_elsewhere() {
        assert!(!PAGE.contains("http") && !CSP.contains("http"));
        assert_eq!(SCALAR[..2], [0x1f, 0x8b], "gzip");
    }
}
