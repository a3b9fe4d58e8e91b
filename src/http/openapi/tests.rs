use super::*;

fn each_operation(check: impl Fn(&str, &Value)) {
    let document = serde_json::to_value(document()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post"] {
            if let Some(operation) = item.get(method) {
                check(&format!("{method} {path}"), operation);
            }
        }
    }
}

/// Whether it names no wallet and asks for no key.
fn is_anybodys(operation: &Value) -> bool {
    operation["tags"][0] == proxy::TAG
}

#[test]
fn every_operation_is_described_and_has_thought_of_what_can_go_wrong() {
    each_operation(|name, operation| {
        let text = |field: &str| operation[field].as_str().unwrap_or_default().to_owned();
        assert!(!text("summary").is_empty() && text("description").len() > 20, "{name}");
        let is_told =
            problems::of(&text("operationId")).is_some() || told_by_signatures().contains(&text("operationId"));
        assert!(is_told, "{name}: say in problems.rs what it may answer");
        for status in ["200", "401", "404", "422", "429", "500", "503"] {
            if is_anybodys(operation) && !["200", "404", "500"].contains(&status) {
                continue;
            }
            if name.contains(" /admin/") && ["404", "422"].contains(&status) {
                continue;
            }
            let register = name == "post /wallet/register" && status == "404";
            assert!(register || operation["responses"].get(status).is_some(), "{name} {status}");
        }
    });
}

/// The operations that their handlers' signatures describe.
fn told_by_signatures() -> Vec<String> {
    let mut document = api::endpoints().into_openapi();
    let all = document.paths.paths.values_mut().flat_map(operations);
    all.filter(|operation| endpoint::is_complete(operation)).filter_map(|one| one.operation_id.clone()).collect()
}

#[test]
fn what_a_signature_tells_stands_in_no_table_that_is_keyed_by_a_name() {
    const TABLES: [&str; 2] = [include_str!("../openapi.rs"), include_str!("../api/problems.rs")];
    let told = told_by_signatures();
    assert!(told.len() >= 15, "{told:?}");
    for id in &told {
        assert!(problems::of(id).is_none(), "{id}: its codes are the constant beside its handler");
        assert!(!TABLES.iter().any(|table| table.contains(&format!("\"{id}\""))), "{id} stands in a table");
    }
    each_operation(|name, operation| {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        let is_new = ["halts", "keys", "wallets", "audit"].iter().any(|part| name.contains(&format!(" /admin/{part}")));
        assert!(!is_new || told.contains(&id), "{name}: route it with endpoint!");
    });
}

#[test]
fn a_signature_tells_headers_scopes_and_bodies() {
    let document = serde_json::to_value(document()).unwrap();
    let of = |path: &str, method: &str| document["paths"][path][method].clone();
    let has_key = |operation: &Value| operation["parameters"].to_string().contains("Idempotency-Key");
    let (raise, clear) = (of("/admin/halts", "post"), of("/admin/halts/{id}/clear", "post"));
    let (list, run) = (of("/admin/halts", "get"), of("/admin/audit", "post"));
    assert!(has_key(&raise) && has_key(&clear) && !has_key(&list) && !has_key(&run));
    assert_eq!((&raise["requestBody"]["required"], &clear["requestBody"]["required"]), (&json!(true), &json!(false)));
    let scope = |operation: &Value, scope: &str| operation["description"].to_string().contains(&format!("`{scope}`"));
    assert!(scope(&raise, "admin:write") && scope(&list, "admin:read"));
    assert!(clear["responses"].get("404").is_some() && list["responses"].get("404").is_none());
    assert!(raise["responses"]["422"].to_string().contains("idempotency_mismatch"));
}

#[test]
fn every_body_has_an_example() {
    let has_example = |content: &Value| content.get("example").is_some() || content.get("examples").is_some();
    each_operation(|name, operation| {
        if let Some(body) = operation.get("requestBody") {
            for content in body["content"].as_object().unwrap().values() {
                assert!(has_example(content), "{name}: request");
            }
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            for content in response["content"].as_object().unwrap().values() {
                assert!(has_example(content), "{name}: {status}");
            }
        }
    });
}

#[test]
fn every_operation_names_the_wallet_but_the_operators() {
    each_operation(|name, operation| {
        if is_anybodys(operation) {
            assert!(!operation.to_string().contains("xpub-van") && operation["security"] == json!([]), "{name}");
            return;
        }
        if name.contains(" /admin/") {
            let text = operation.to_string();
            assert!(!text.contains("xpub-van") && operation["security"].as_array().unwrap().len() == 2, "{name}");
            return;
        }
        let names: Vec<_> = operation["parameters"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
        for header in WALLET_HEADERS {
            assert!(names.contains(&json!(header)), "{name} {header}");
        }
    });
}

#[test]
fn operation_ids_and_references_are_sound() {
    let document = serde_json::to_value(document()).unwrap();
    let ids = std::cell::RefCell::new(std::collections::HashSet::new());
    each_operation(|name, operation| {
        assert!(ids.borrow_mut().insert(operation["operationId"].clone()), "{name}");
    });
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    assert_eq!(document["openapi"], "3.1.0");
}

/// By this name is told that a field may be left out.
#[test]
fn what_is_asked_has_the_name_of_a_request() {
    each_operation(|name, operation| {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let of_one = std::slice::from_ref(schema);
        for one in schema["oneOf"].as_array().map_or(of_one, Vec::as_slice) {
            if let Some(reference) = one["$ref"].as_str() {
                assert!(reference.ends_with("RequestModel"), "{name}: {reference}");
            }
        }
    });
}

#[test]
fn every_tag_is_described() {
    let described: Vec<String> = tags().into_iter().map(|tag| tag.name).collect();
    each_operation(|name, operation| {
        let tag = operation["tags"][0].as_str().unwrap();
        assert!(described.iter().any(|one| one == tag), "{name}: nobody says what {tag} is");
    });
}

/// The functions of a file, by name: each with its text, which ends where the next one begins.
fn functions(text: &str) -> std::collections::HashMap<&str, &str> {
    let starts: Vec<usize> = text.match_indices("fn ").map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let name = |at: usize| text[at + 3..].split(['(', '<']).next().unwrap();
    starts.iter().zip(ends).map(|(start, end)| (name(*start), &text[*start..end])).collect()
}

/// Whether a function, or one of its file that it calls, takes what a caller's key stands for.
fn takes_key(function: &str, all: &std::collections::HashMap<&str, &str>, depth: usize) -> bool {
    let Some(text) = all.get(function) else { return false };
    let calls = |name: &str| name != function && text.contains(&format!(" {name}("));
    text.contains(".idempotency")
        || (depth > 0 && all.keys().any(|name| calls(name) && takes_key(name, all, depth - 1)))
}

/// The id of each operation in a file of handlers, and the function that answers it.
fn handlers(text: &str) -> Vec<(&str, &str)> {
    let after = |text: &'static str| move |rest: &'_ str| rest.find(text).map(|at| at + text.len());
    let mut found = Vec::new();
    for part in text.split("#[utoipa::path(").skip(1) {
        let id = after("operation_id = \"")(part).map(|at| part[at..].split('"').next().unwrap());
        let handler = after("async fn ")(part).map(|at| part[at..].split('(').next().unwrap());
        found.extend(id.zip(handler));
    }
    found
}

fn sources(folder: &std::path::Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else {
            all.push(std::fs::read_to_string(path).unwrap());
        }
    }
    all
}

#[test]
fn whoever_takes_an_idempotency_key_says_so_and_nobody_else() {
    let declared = std::cell::RefCell::new(std::collections::HashMap::new());
    each_operation(|_, operation| {
        let mut parameters = operation["parameters"].as_array().into_iter().flatten();
        let has_it = parameters.any(|parameter| parameter["name"] == "Idempotency-Key");
        declared.borrow_mut().insert(operation["operationId"].as_str().unwrap().to_owned(), has_it);
    });
    let (declared, mut seen) = (declared.into_inner(), 0);
    for text in sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/api")) {
        let all = functions(&text);
        for (id, handler) in handlers(&text) {
            assert_eq!(
                declared.get(id),
                Some(&takes_key(handler, &all, 2)),
                "{id}, {handler}: taken and declared differ"
            );
            seen += 1;
        }
    }
    // The consignment proxy has a dialect of its own.
    assert_eq!(seen + 1, declared.len());
}

/// Whole numbers that are no amounts of an asset.
const NO_ASSET_AMOUNTS: [&str; 14] = [
    "precision",
    "batch_transfer_idx",
    "idx",
    "kind",
    "status",
    "height",
    "created_at",
    "updated_at",
    "added_at",
    "timestamp",
    "expiration",
    "expiration_timestamp",
    "confirmations_left",
    "expires_at",
];

#[test]
fn an_amount_of_an_asset_is_told_as_text_too() {
    let document = serde_json::to_value(document()).unwrap();
    let mut told = 0;
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let Some(properties) = schema["properties"].as_object() else { continue };
        let is_of_asset = name.contains("Asset") || name.contains("Rgb") || properties.contains_key("asset_id");
        // What is asked has a number or a text; only readers of answers lose digits. This one stands in both.
        if !is_of_asset || name.ends_with("RequestModel") || name == "LightningAsset" {
            continue;
        }
        for (property, of) in properties {
            let is_number = of["type"].to_string().contains("integer");
            let is_bitcoin = ["_sats", "_sat", "_msat"].iter().any(|unit| property.ends_with(unit));
            if !is_number || is_bitcoin || NO_ASSET_AMOUNTS.contains(&property.as_str()) {
                continue;
            }
            let text = &properties.get(&format!("{property}_str")).unwrap_or(&Value::Null)["type"];
            assert!(text.to_string().contains("string"), "{name}.{property} has no {property}_str");
            told += 1;
        }
    }
    assert!(told >= 14, "{told}");
    // Where an answer has an amount beside the name of its asset it is not the shape that calls have.
    each_operation(|name, operation| {
        let text = operation["responses"].to_string();
        assert!(!text.contains("schemas/LightningAsset\""), "{name}");
    });
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let is_asked = name.ends_with("RequestModel");
        assert!(is_asked || !schema.to_string().contains("schemas/LightningAsset\""), "{name}");
    }
}

#[test]
fn the_same_code_makes_the_same_bytes() {
    assert_eq!(document_json(), document_json());
    assert!(document_json().ends_with("}\n"));
}

/// With SLUICE_WRITE_OPENAPI set it writes the document instead of comparing it.
#[test]
fn the_committed_document_is_this_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/sluice.json");
    if std::env::var_os("SLUICE_WRITE_OPENAPI").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, document_json()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == document_json(), "openapi/sluice.json differs; write it again with `make openapi`");
}
