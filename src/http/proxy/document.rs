//! The proxy in the document of the API: one operation with an example of every method. The other path is in no document.

use serde_json::{Value, json};
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, OpenApi, RefOr, Required, ResponseBuilder};

use super::ROUTE;
use super::fault::{
    CANNOT_CHANGE_ACK, CANNOT_CHANGE_FILE, FULL, Fault, INVALID_TXID, MISSING_FILE, NO_CONSIGNMENT, NO_SUCH_METHOD,
    NOT_THEIR_ACK, too_large,
};

/// How the operation is marked in the document.
pub const TAG: &str = "consignments";
pub const OPERATION: &str = "jsonRpc";

const ABOUT: &str = "JSON-RPC 2.0 as wallets of RGB speak it to a proxy, protocol version 0.2. It names no wallet and asks for no key. \
Every answer has the status 200, errors too; an `id` of null is answered as any other. The two methods that bring a file take a form, whose \
texts (`params` is JSON) and file come in any order.\n\n\
| Method | Params | Result |\n|---|---|---|\n\
| `server.info` | | `protocol_version`, `version`, `uptime` in seconds |\n\
| `consignment.post`, a form | `recipient_id`, `txid`, `vout`? | true: stored; false: the same is there; error -101: another is |\n\
| `consignment.get` | `recipient_id` | `consignment` in base64, `txid`, `vout`?; error -400: there is none |\n\
| `ack.post` | `recipient_id`, `ack` | true: set; false: the same was said; error -100: the other was; -400: no consignment |\n\
| `ack.get` | `recipient_id` | true, false, or null; error -400: no consignment |\n\
| `media.post`, a form | `attachment_id` | true, false, error -101 |\n\
| `media.get` | `attachment_id` | base64; error -401: there is none |\n\n\
What is the same has the same bytes, and for a consignment the same `txid` and `vout`. For a recipient of this gateway's own invoices `ack.post` is \
answered -100: only the gateway acknowledges for them.\n\n\
Other errors: -200 invalid ack, -201 attachment id, -202 recipient id, -203 txid, -204 vout; -300 missing ack, -301 attachment id, -302 recipient id, \
-303 file or txid; -32700, -32600, -32601, -32602, -32603 as JSON-RPC has them; -32000 too large (the message says the limit), -32001 no more can be \
stored, -32002 too many calls, -32003 too much at the same time, -32004 called by a web page of an origin that is not allowed, -32005 an invoice of this gateway that takes nothing any more. \
Media are taken only where the operator wants them, else `media.post` and `media.get` are answered -32601. Ids are 1 to 255 printable ASCII characters, a txid has 64 hexadecimal digits. What \
a wallet that is no customer stores is forgotten after a while.";

/// Adds the operation.
pub fn add_to(document: &mut OpenApi) {
    let operation = OperationBuilder::new()
        .operation_id(Some(OPERATION))
        .summary(Some("Exchange consignments"))
        .description(Some(ABOUT))
        .tag(TAG)
        .request_body(Some(
            RequestBodyBuilder::new()
                .content("application/json", json_content())
                .content("multipart/form-data", form_content())
                .required(Some(Required::True))
                .build(),
        ))
        .response(
            "200",
            ResponseBuilder::new().description("A result or an error").content("application/json", answers()).build(),
        )
        .build();
    document.paths.add_path_operation(ROUTE, vec![HttpMethod::Post], operation);
}

fn json_content() -> utoipa::openapi::Content {
    let schema = ObjectBuilder::new()
        .property("jsonrpc", text("Always 2.0"))
        .property("id", id())
        .property("method", text("One of those above"))
        .property("params", ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::Null])).build())
        .required("jsonrpc")
        .required("method")
        .build();
    let call = |method: &str, params: Value| {
        let value = json!({ "jsonrpc": "2.0", "id": null, "method": method, "params": params });
        (method.to_owned(), example(method, value))
    };
    let recipient = json!({ "recipient_id": RECIPIENT });
    ContentBuilder::new()
        .schema(Some(Schema::from(schema)))
        .examples_from_iter([
            call("server.info", Value::Null),
            call("consignment.get", recipient.clone()),
            call("ack.post", json!({ "recipient_id": RECIPIENT, "ack": true })),
            call("ack.get", recipient),
            call("media.get", json!({ "attachment_id": ATTACHMENT })),
        ])
        .build()
}

const RECIPIENT: &str = "bcrt:utxob:2FGs9vEx-8kS4wNL-3CqSKqN-LzFRT3D-9hMwDmC-vP9Vd1m";
const TXID: &str = "6e0ca57954d0a4f1b5c0a1f0bb2f4a5d3c88c5fb9a8d6f4f0a3e5f1d2c7b9a80";
const ATTACHMENT: &str = "9a271f2a916b0b6ee6cecb2426f0b3206ef074578be55d9bc94f6f3fe3ab86aa";

fn form_content() -> utoipa::openapi::Content {
    let file = ObjectBuilder::new().schema_type(Type::String).content_media_type("application/octet-stream");
    let schema = ObjectBuilder::new()
        .property("jsonrpc", text("Always 2.0"))
        .property("id", text("The word null, or what is to be sent back"))
        .property("method", text("consignment.post or media.post"))
        .property("params", text("An object, as JSON"))
        .property("file", file.description(Some("The bytes")).build())
        .required("jsonrpc")
        .required("method")
        .required("params")
        .required("file")
        .build();
    let call = |method: &str, params: Value| {
        let value = json!({ "jsonrpc": "2.0", "id": "null", "method": method, "params": params.to_string(), "file": "the bytes" });
        (method.to_owned(), example(method, value))
    };
    ContentBuilder::new()
        .schema(Some(Schema::from(schema)))
        .examples_from_iter([
            call("consignment.post", json!({ "recipient_id": RECIPIENT, "txid": TXID, "vout": 1 })),
            call("media.post", json!({ "attachment_id": ATTACHMENT })),
        ])
        .build()
}

fn answers() -> utoipa::openapi::Content {
    let any = || ObjectBuilder::new().schema_type(SchemaType::AnyValue).build();
    let envelope = || ObjectBuilder::new().property("jsonrpc", text("Always 2.0")).property("id", id());
    let success = envelope().property("result", any()).required("jsonrpc").required("id").required("result");
    let error = ObjectBuilder::new()
        .property("code", ObjectBuilder::new().schema_type(Type::Integer).build())
        .property("message", text("For a person"))
        .required("code")
        .required("message");
    let failure = envelope().property("error", error.build()).required("jsonrpc").required("id").required("error");
    let schema = OneOfBuilder::new().item(success.build()).item(failure.build()).build();
    let ok = |name: &str, result: Value| {
        (name.to_owned(), example(name, json!({ "jsonrpc": "2.0", "id": null, "result": result })))
    };
    let info = json!({ "protocol_version": "0.2", "version": env!("CARGO_PKG_VERSION"), "uptime": 86_400 });
    let consignment = json!({ "consignment": "dGhlIGJ5dGVz", "txid": TXID, "vout": 1 });
    let results = [
        ok("server.info", info),
        ok("consignment.post", json!(true)),
        ok("consignment.get", consignment),
        ok("ack.post", json!(true)),
        ok("ack.get", Value::Null),
        ok("media.post", json!(false)),
        ok("media.get", json!("dGhlIGJ5dGVz")),
    ];
    let faults = [
        ("error -100", CANNOT_CHANGE_ACK),
        ("error -100 for an invoice of this gateway", NOT_THEIR_ACK),
        ("error -101", CANNOT_CHANGE_FILE),
        ("error -203", INVALID_TXID),
        ("error -303", MISSING_FILE),
        ("error -400", NO_CONSIGNMENT),
        ("error -32000", too_large("a consignment", 16_777_216)),
        ("error -32001", FULL),
        ("error -32601", NO_SUCH_METHOD),
    ];
    let errors = faults.into_iter().map(|(name, Fault { code, message, .. })| {
        let value = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } });
        (name.to_owned(), example(name, value))
    });
    ContentBuilder::new()
        .schema(Some(Schema::OneOf(schema)))
        .examples_from_iter(results.into_iter().chain(errors))
        .build()
}

fn id() -> utoipa::openapi::Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Integer, Type::Null]))
        .description(Some("Sent back as it came"))
        .build()
}

fn text(about: &str) -> utoipa::openapi::Object {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about)).build()
}

fn example(summary: &str, value: Value) -> RefOr<Example> {
    RefOr::T(ExampleBuilder::new().summary(summary).value(Some(value)).build())
}
