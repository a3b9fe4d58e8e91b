//! The document of the API as a judge: whether an answer has a status, a code and a shape that it promises.

use std::sync::LazyLock;

use reqwest::Method;
use serde_json::Value;

use super::client::Answer;

/// The document as the gateway serves it.
pub static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&sluice::http::openapi::document_json()).expect("the document is JSON"));

/// An operation of the document.
#[derive(Clone, Debug)]
pub struct Operation {
    pub method: Method,
    /// With its parameters in braces.
    pub path: String,
    pub spec: &'static Value,
}

impl Operation {
    pub fn id(&self) -> &'static str {
        self.spec["operationId"].as_str().unwrap_or_default()
    }

    pub fn takes_id(&self) -> bool {
        self.path.contains('{')
    }

    /// The path with an id in the place of its parameter.
    pub fn path_with(&self, id: &str) -> String {
        self.path.split('/').map(|part| if part.starts_with('{') { id } else { part }).collect::<Vec<_>>().join("/")
    }

    /// The example of its body; null where it takes none.
    pub fn example(&self) -> Value {
        self.spec["requestBody"]["content"]["application/json"]["example"].clone()
    }

    /// The shape of its body, if it has a described one.
    pub fn body_schema(&self) -> Option<&'static Value> {
        let schema = &self.spec["requestBody"]["content"]["application/json"]["schema"];
        let schema = resolve(schema);
        let alternatives = schema.get("oneOf").and_then(Value::as_array).map(|all| all.iter().map(resolve));
        let schema = match alternatives {
            Some(mut all) => all.find(|one| one.get("properties").is_some())?,
            None => schema,
        };
        schema.get("properties").is_some().then_some(schema)
    }

    /// Whether it is for the operator, and for no wallet.
    pub fn is_operators(&self) -> bool {
        self.spec["tags"][0] == "operator"
    }

    /// Whether it names no wallet and asks for no key.
    pub fn is_anybodys(&self) -> bool {
        self.spec["tags"][0] == "consignments"
    }

    /// Whether it needs an engine for assets.
    pub fn is_about_assets(&self) -> bool {
        self.spec["tags"][0] == "assets"
    }
}

/// Every operation that is for a wallet.
pub fn operations() -> Vec<Operation> {
    let others = |operation: &Operation| operation.is_operators() || operation.is_anybodys();
    every_operation().into_iter().filter(|operation| !others(operation)).collect()
}

/// Every operation that asks for something: for a wallet, or for the operator's key.
pub fn guarded_operations() -> Vec<Operation> {
    every_operation().into_iter().filter(|operation| !operation.is_anybodys()).collect()
}

/// Every operation, those of the operator and of nobody in particular too.
pub fn every_operation() -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object().expect("paths") {
        for (name, method) in [("get", Method::GET), ("post", Method::POST)] {
            if let Some(spec) = item.get(name) {
                all.push(Operation { method, path: path.clone(), spec });
            }
        }
    }
    assert!(all.len() > 50, "the document has {} operations", all.len());
    all
}

/// Fails unless the document has this answer. Paths that are not in it are none of its business.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let path = path.split('?').next().unwrap_or_default();
    let Some(item) = find(path) else { return };
    let Some(operation) = item.get(method.as_str().to_ascii_lowercase()) else { return };
    assert!(answer.header("x-request-id").is_some(), "{answer}: no x-request-id");
    let documented = &operation["responses"][answer.status.to_string()];
    assert!(!documented.is_null(), "{answer}: the document has no such status for this operation");
    if answer.status != 200 {
        check_problem(answer, documented);
        return;
    }
    if !documented["content"]["application/octet-stream"].is_null() {
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"), "{}", answer.asked);
        return;
    }
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")), "{answer}");
    let schema = &documented["content"]["application/json"]["schema"];
    if let Err(why) = conforms(&answer.body, schema, "$") {
        panic!("{answer}: {why}");
    }
}

fn check_problem(answer: &Answer, documented: &'static Value) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer}");
    let content = &documented["content"]["application/problem+json"];
    let codes = content["examples"].as_object().expect("a code is an example");
    assert!(codes.contains_key(answer.code()), "{answer}: the document has no such code for this operation");
    if let Err(why) = conforms(&answer.body, &content["schema"], "$") {
        panic!("{answer}: {why}");
    }
    let text = |name: &str| answer.body[name].as_str().unwrap_or_default();
    assert!(!text("detail").is_empty() && text("detail") == text("message"), "{answer}");
    assert_eq!(answer.body["status"], answer.status, "{answer}");
    assert_eq!(answer.header("x-request-id"), Some(text("trace_id")), "{answer}");
    if answer.body["retryable"] == true {
        assert!(answer.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s > 0)), "{answer}");
    }
}

fn find(path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object()?;
    if let Some(item) = paths.get(path) {
        return Some(item);
    }
    let parts: Vec<&str> = path.split('/').collect();
    paths.iter().find_map(|(template, item)| {
        let wanted: Vec<&str> = template.split('/').collect();
        let fits = wanted.len() == parts.len()
            && wanted.iter().zip(&parts).all(|(want, part)| want.starts_with('{') || want == part);
        fits.then_some(item)
    })
}

/// Follows a reference to what it names.
pub fn resolve(schema: &'static Value) -> &'static Value {
    let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return schema };
    let pointer = reference.strip_prefix('#').expect("a reference into this document");
    resolve(DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{reference} names nothing")))
}

/// Whether a value has a shape: the keywords that our document uses, no others. Fields beyond those described are refused,
/// which is stricter than JSON schema: what is answered is described.
pub fn conforms(value: &Value, schema: &'static Value, at: &str) -> Result<(), String> {
    let schema = resolve(schema);
    if let Some(alternatives) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array) {
        let errors: Vec<String> = alternatives.iter().filter_map(|one| conforms(value, one, at).err()).collect();
        return if errors.len() < alternatives.len() { Ok(()) } else { Err(errors.join("; or ")) };
    }
    if let Some(types) = schema.get("type")
        && !has_type(value, types)
    {
        return Err(format!("{at} is {value}, not {types}"));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        return Err(format!("{at} is {value}, not one of {allowed:?}"));
    }
    if let Some(least) = schema.get("minimum").and_then(Value::as_f64)
        && value.as_f64().is_some_and(|n| n < least)
    {
        return Err(format!("{at} is {value}, less than {least}"));
    }
    match value {
        Value::Array(items) => match schema.get("items") {
            Some(item) => items.iter().enumerate().try_for_each(|(n, v)| conforms(v, item, &format!("{at}[{n}]"))),
            None => Ok(()),
        },
        Value::Object(fields) => object_conforms(fields, schema, at),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn object_conforms(fields: &serde_json::Map<String, Value>, schema: &'static Value, at: &str) -> Result<(), String> {
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Err(format!("{at}.{name} is missing"));
        }
    }
    let Some(described) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
    for (name, value) in fields {
        let Some(schema) = described.get(name) else { return Err(format!("{at}.{name} is not described")) };
        conforms(value, schema, &format!("{at}.{name}"))?;
    }
    Ok(())
}

fn has_type(value: &Value, types: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the document has a type {other}"),
    };
    match types {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        other => panic!("the document has a type {other}"),
    }
}
