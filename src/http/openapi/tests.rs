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
        assert!(problems::of(&text("operationId")).is_some(), "{name}: say in problems.rs what it may answer");
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
