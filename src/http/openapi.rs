//! The document of the API, made from the code that serves it.

mod events;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, Content, ContentBuilder, HeaderBuilder, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, Required,
    ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::api::begun::{BeginResponse, EXPIRES_AT, FEE_SATS, NEXT_CURSOR, REQUEST_ID, SOURCE};
use super::api::deposits::STATES;
use super::api::send_view::SEND_STATES;
use super::api::{self, admin, examples, payments, problems};
use super::auth::WALLET_HEADERS;
use super::endpoint;
use super::problem::{Problem, WireProblem, entry};
use super::proxy;
use crate::flows::Code;

const ABOUT: &str = "A self-hosted gateway for bitcoin payments. The client keeps the keys: `begin` hands out a PSBT, the client \
signs it, `end` checks and broadcasts it. Money over Lightning is a balance that the operator owes; each payment of it needs a signed authorisation.\n\nEvery call names a wallet by three headers. Amounts are whole satoshis. Every answer \
that is not success is a problem with a stable code in `error`; all codes are on `/docs/errors`. Every POST that creates something \
takes an `Idempotency-Key` header: the same key with the same body, however that is written, is the same request, for ever.";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const EXAMPLE_XPUB_VAN: &str =
    "tpubDDfvzhdVV4unsoKt5aE6dcsNsfeWbTgmLZPi8LQDYU2xixrYemMfWJ3BaVneH3u7DBQePdTwhpybaKRU95pi6PMUtLPBJLVQRpzEnjfjZzX";
const EXAMPLE_XPUB_COL: &str =
    "tpubDDPLJfdVbDoGtnn6hSto3oCnm6hpfHe9uk2MxcANanxk87EuquhSVfSLQv7e5UykgzaFn41DUXaikjjVGcUSUTGNaJ9LcozfRwatKp1vTfC";

/// The whole document.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = api::endpoints().into_openapi();
    document.info = InfoBuilder::new()
        .title("Sluice")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build()))
        .build();
    // Whoever serves it. A page that shows it makes that the host of what can be pasted.
    document.servers = Some(vec![ServerBuilder::new().url("/").build()]);
    document.tags = Some(tags());
    let mut components = document.components.take().unwrap_or_default();
    add_components(&mut components);
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            complete(operation, &components);
        }
    }
    document.components = Some(components);
    document
}

/// The document as it is committed and served: the same bytes for the same code.
#[must_use]
pub fn document_json() -> String {
    // Through a value, whose keys are sorted: the order in which code registers things does not show.
    let value = serde_json::to_value(document()).unwrap_or(Value::Null);
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}

fn tags() -> Vec<utoipa::openapi::Tag> {
    [
        ("wallet", "Registering a wallet, what it has, and the older pair of calls that sends bitcoin."),
        ("receive", "Addresses and deposits."),
        ("send", "Sending, in two steps: begin and end."),
        ("lightning", "Invoices and payments over Lightning, and between wallets of this gateway."),
        ("settle", "Moving the wallet's coins off-chain."),
        ("history", "Balances, requests and events."),
        ("assets", "RGB assets on-chain: coins that carry them, issuing, receiving, sending, and leaving with them."),
        (admin::TAG, "The operator's own calls. They need a key with the scope `admin:read` or, where they change something, `admin:write`, and name no wallet; `admin` means both."),
        (proxy::TAG, "What wallets of RGB hand each other, in a dialect of its own."),
    ]
    .map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build())
    .to_vec()
}

fn add_components(components: &mut Components) {
    let (problem, begin) = (WireProblem::schema(), BeginResponse::schema());
    components.schemas.insert(WireProblem::name().into_owned(), problem);
    components.schemas.insert(BeginResponse::name().into_owned(), begin);
    for (name, schema) in &mut components.schemas {
        if let RefOr::T(Schema::Object(object)) = schema
            && !name.ends_with("RequestModel")
        {
            // What is empty is null and never left out, so every field of an answer is there.
            object.required = object.properties.keys().cloned().collect();
        }
    }
    events::add(components);
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
    components.security_schemes.insert("bearer".to_owned(), bearer.into());
    components.security_schemes.insert("basic".to_owned(), basic.into());
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post].into_iter().filter_map(Option::as_mut)
}

/// Adds what every operation has: headers, security, examples, problems. What its signature told is there already.
fn complete(operation: &mut Operation, components: &Components) {
    if !endpoint::is_complete(operation) {
        return complete_by_name(operation, components);
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        for content in body.content.values_mut() {
            copy_example(content, components);
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        for content in response.content.values_mut() {
            copy_example(content, components);
        }
    }
}

/// How a caller says who it is.
pub(super) fn security(by_key: bool, by_wallet_headers: bool) -> Vec<SecurityRequirement> {
    let no_scopes = || Vec::<String>::new();
    let mut all = Vec::new();
    if by_key {
        all.push(SecurityRequirement::new("bearer", no_scopes()));
        all.push(SecurityRequirement::new("basic", no_scopes()));
    }
    if by_wallet_headers {
        // The empty one stands for a gateway on one's own machine, which believes the wallet headers.
        all.push(SecurityRequirement::default());
    }
    all
}

/// What tables that are keyed by an operation's name say of it. Operations of `endpoint!` are in none.
fn complete_by_name(operation: &mut Operation, components: &Components) {
    let id = operation.operation_id.clone().unwrap_or_default();
    let (is_operators, is_public) = (is_operators(operation), is_public(operation));
    let parameters = operation.parameters.get_or_insert_default();
    if !is_operators && !is_public {
        parameters.extend(wallet_headers());
    }
    if takes_idempotency_key(&id) {
        parameters.push(idempotency_header(&id).into());
    }
    operation.security = Some(security(!is_public, !is_public && !is_operators));
    name_the_states(operation, &id);
    let has_body = operation.request_body.is_some();
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        if takes_no_body_too(&id) {
            body.required = Some(Required::False);
        }
        for content in body.content.values_mut() {
            copy_example(content, components);
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        // A bare string or number is JSON, too: it stands in quotes where JSON wants them.
        if let Some(bare) = response.content.swap_remove("text/plain") {
            response.content.insert(JSON.to_owned(), bare);
        }
        for content in response.content.values_mut() {
            copy_example(content, components);
        }
        if id.ends_with("Begin") && has_body {
            describe_begin(response, &id);
        }
        if matches!(
            id.as_str(),
            "walletListUnspents" | "walletListTransactions" | "walletListTransfers" | "listLightningTransfers"
        ) {
            let about = "Where the next page begins; left out on the last page";
            response.headers.insert(NEXT_CURSOR.to_string(), text_header(about));
        }
    }
    add_problems_by_name(operation, &id, has_body);
}

/// Which words a parameter of a list takes depends on the list.
fn words_of(id: &str, parameter: &str) -> Option<&'static [&'static str]> {
    match (id, parameter) {
        ("deposits", "state") => Some(&STATES),
        ("onchainSendList", "state") => Some(&SEND_STATES),
        ("listPayments", "status") => Some(&payments::STATUSES),
        ("listPayments", "direction") => Some(&payments::DIRECTIONS),
        _ => None,
    }
}

fn name_the_states(operation: &mut Operation, id: &str) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && let Some(words) = words_of(id, &parameter.name)
        {
            // The empty one is what a form sends for any.
            let words = std::iter::once("").chain(words.iter().copied());
            let state = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
            parameter.schema = Some(state.build().into());
        }
    }
}

fn is_operators(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| tag == admin::TAG)
}

fn is_public(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| tag == proxy::TAG)
}

fn takes_no_body_too(id: &str) -> bool {
    matches!(
        id,
        "onchainReceiveNew"
            | "receive"
            | "adminCloseChannel"
            | "walletBlindReceive"
            | "walletWitnessReceive"
            | "walletListTransfers"
            | "listLightningTransfers"
            | "walletFailTransfers"
    )
}

fn takes_idempotency_key(id: &str) -> bool {
    matches!(
        id,
        "onchainReceiveNew"
            | "receive"
            | "walletSendBtcBegin"
            | "onchainSendBegin"
            | "payBegin"
            | "onchainSendBumpBegin"
            | "createInvoice"
            | "payInvoiceBegin"
            | "settleBegin"
            | "payInvoice"
            | "adminOpenChannel"
            | "adminResolve"
            | "walletCreateUtxosBegin"
            | "walletIssueAssetNia"
            | "walletBlindReceive"
            | "walletWitnessReceive"
            | "walletSendBegin"
            | "walletBeginExport"
    )
}

fn wallet_headers() -> impl Iterator<Item = RefOr<utoipa::openapi::path::Parameter>> {
    let about = [
        "The account xpub of the wallet's bitcoin keychain, depth 3",
        "The account xpub of the wallet's asset keychain, depth 3",
        "The fingerprint of the wallet's master key, 8 hexadecimal characters",
    ];
    let example = [EXAMPLE_XPUB_VAN, EXAMPLE_XPUB_COL, "1f5bd7df"];
    WALLET_HEADERS.into_iter().zip(about).zip(example).map(|((name, about), example)| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(about))
            .schema(Some(text()))
            .example(Some(json!(example)))
            .build()
            .into()
    })
}

pub(super) fn idempotency_header(id: &str) -> utoipa::openapi::path::Parameter {
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "1 to 255 printable ASCII characters. The same key with the same JSON value as its body is the same request, for ever",
        ))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255))
                .pattern(Some("^[ -~]+$"))
                .build(),
        ))
        // A key stands for one request of a wallet: no two examples share one.
        .example(Some(json!(format!("{id}-1842"))))
        .build()
}

fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).build().into()
}

fn text_header(about: &str) -> RefOr<utoipa::openapi::Header> {
    HeaderBuilder::new().schema(Some(text())).description(Some(about)).build().into()
}

/// What stands with a shape as its example stands with each body of that shape.
fn copy_example(content: &mut RefOr<Content>, components: &Components) {
    let RefOr::T(content) = content else { return };
    if content.example.is_none()
        && let Some(schema) = &content.schema
    {
        content.example = example_of(schema, components);
    }
}

fn example_of(schema: &RefOr<Schema>, components: &Components) -> Option<Value> {
    match schema {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next()?;
            example_of(components.schemas.get(name)?, components)
        }
        RefOr::T(Schema::Object(object)) => object.examples.first().cloned().or_else(|| object.example.clone()),
        RefOr::T(Schema::Array(array)) => match &array.items {
            utoipa::openapi::schema::ArrayItems::RefOrSchema(items) => {
                example_of(items, components).map(|item| json!([item]))
            }
            utoipa::openapi::schema::ArrayItems::False => None,
        },
        // A body that may be left out: null or the shape.
        RefOr::T(Schema::OneOf(one_of)) => one_of.items.iter().find_map(|item| example_of(item, components)),
        RefOr::T(_) => None,
    }
}

fn describe_begin(response: &mut utoipa::openapi::Response, id: &str) {
    let (source, fee) = match id {
        "payInvoiceBegin" => ("offchain", "What routing may cost at most, in satoshis"),
        "payBegin" => (
            "onchain or offchain",
            "What the transaction pays to miners, or what routing may cost at most, in satoshis",
        ),
        _ => ("onchain", "What the transaction pays to miners, in satoshis"),
    };
    let source = format!("Whose money it moves: {source}");
    for (name, about) in [
        (REQUEST_ID, "Names the request from now on"),
        (EXPIRES_AT, "Until when the signature is waited for"),
        (SOURCE, source.as_str()),
        (FEE_SATS, fee),
    ] {
        response.headers.insert(name.to_string(), text_header(about));
    }
    let object = Ref::from_schema_name(BeginResponse::name());
    let psbt = if id == "payInvoiceBegin" { examples::AUTHORIZATION } else { examples::PSBT };
    let mut example = json!({
        "psbt": psbt, "request_id": examples::ID, "expires_at": examples::TIME, "source": "onchain", "fee_sats": 420, "message": null,
    });
    if id == "payInvoiceBegin" {
        example["source"] = json!("offchain");
        example["fee_sats"] = json!(50);
        example["message"] = json!(examples::MESSAGE);
    }
    if let Some(RefOr::T(content)) = response.content.get_mut(JSON) {
        let one_of = utoipa::openapi::schema::OneOfBuilder::new().item(text()).item(object).build();
        content.schema = Some(Schema::OneOf(one_of).into());
        content.example = None;
        let named = |summary: &str, value| RefOr::T(ExampleBuilder::new().summary(summary).value(Some(value)).build());
        content.examples = BTreeMap::from([
            ("bare".to_owned(), named("Unless asked otherwise", json!(psbt))),
            ("object".to_owned(), named("With Accept: application/json; profile=object", example)),
        ]);
    }
}

fn add_problems_by_name(operation: &mut Operation, id: &str, has_body: bool) {
    let own = problems::of(id).unwrap_or_default();
    let is_public = is_public(operation);
    let with_body: &[Code] = if has_body && !is_public { problems::WITH_BODY } else { &[] };
    let common = match (is_operators(operation), is_public) {
        (true, _) => problems::OPERATOR,
        (false, true) => problems::PUBLIC,
        (false, false) => problems::COMMON,
    };
    let is_impossible = |code: &Code| id == "walletRegister" && *code == Code::WalletNotRegistered;
    let all = common.iter().chain(with_body).chain(&own).copied().filter(|code| !is_impossible(code));
    add_problems(operation, &all.collect::<Vec<_>>());
}

/// How an operation refuses: an answer for each status, with an example for each code.
pub(super) fn add_problems(operation: &mut Operation, codes: &[Code]) {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes.iter().copied() {
        let codes = by_status.entry(entry(code).status).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    for (status, codes) in by_status {
        let examples = codes.iter().map(|code| (entry(*code).name, problem_example(*code)));
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(WireProblem::name())))
            .examples_from_iter(examples)
            .build();
        let names: Vec<_> = codes.iter().map(|code| format!("`{}`", entry(*code).name)).collect();
        let mut response = ResponseBuilder::new().description(names.join(", ")).content(PROBLEM, content);
        if codes.iter().any(|code| entry(*code).retry_after.is_some()) {
            let whole = ObjectBuilder::new().schema_type(Type::Integer).build();
            let header = HeaderBuilder::new().schema(Some(whole)).description(Some("Seconds to wait")).build();
            response = response.header("Retry-After", header);
        }
        operation.responses.responses.insert(status.to_string(), RefOr::T(response.build()));
    }
}

fn problem_example(code: Code) -> RefOr<Example> {
    let problem = Problem::plain(code);
    let value = serde_json::to_value(problem.wire("0198c0f29d7c4f6ea1c20d3be5a90b47", None)).ok();
    RefOr::T(ExampleBuilder::new().summary(entry(code).title).value(value).build())
}

#[cfg(test)]
mod tests;
