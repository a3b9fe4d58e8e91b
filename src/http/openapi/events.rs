//! The events in the document: a list of their kinds, and a schema for what each tells.

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{
    AnyOf, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Components, Ref, RefOr};

use crate::domain::event::KINDS;
use crate::domain::event::shape::{Field, Payload, Shape};
use crate::http::api::examples;

/// The schema that lists all kinds.
const KIND: &str = "EventKind";
/// The schema of an event, whose data is described here.
const EVENT: &str = "Event";

/// What the schema of a payload is called.
fn name(payload: &Payload) -> String {
    format!("{}Data", payload.name)
}

pub fn add(components: &mut Components) {
    for kind in KINDS {
        add_payload(components, kind.payload);
    }
    components.schemas.insert(KIND.to_owned(), kinds());
    if let Some(RefOr::T(Schema::Object(event))) = components.schemas.get_mut(EVENT) {
        event.properties.insert("kind".to_owned(), Ref::from_schema_name(KIND).into());
        event.properties.insert("data".to_owned(), any_data());
    }
}

fn kinds() -> RefOr<Schema> {
    let lines: Vec<String> =
        KINDS.iter().map(|kind| format!("- `{}` ({}): {}", kind.name, name(kind.payload), kind.about.trim())).collect();
    let mut schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(KINDS.iter().map(|kind| kind.name)))
        .description(Some(format!(
            "What happened, and in brackets the schema of its data. More kinds may be added.\n\n{}",
            lines.join("\n")
        )))
        .build();
    schema.example = KINDS.first().map(|kind| kind.name.into());
    Schema::Object(schema).into()
}

fn any_data() -> RefOr<Schema> {
    let mut all: Vec<&Payload> = Vec::new();
    for kind in KINDS {
        if !all.iter().any(|known| known.name == kind.payload.name) {
            all.push(kind.payload);
        }
    }
    let items = all.into_iter().map(|payload| Ref::from_schema_name(name(payload)).into()).collect();
    let about = "What the kind tells. Fields may be added.".to_owned();
    Schema::AnyOf(AnyOf { items, description: Some(about), ..AnyOf::new() }).into()
}

fn add_payload(components: &mut Components, payload: &Payload) {
    if components.schemas.contains_key(&name(payload)) {
        return;
    }
    for field in payload.fields {
        add_inner(components, &field.shape);
    }
    let mut object = ObjectBuilder::new().schema_type(Type::Object).description(Some(payload.about.trim()));
    for field in payload.fields {
        object = object.property(field.name, property(field));
        if !matches!(field.shape, Shape::Nullable(_)) {
            object = object.required(field.name);
        }
    }
    let mut object = object.build();
    object.example = Some(example(payload));
    components.schemas.insert(name(payload), Schema::Object(object).into());
}

fn add_inner(components: &mut Components, shape: &Shape) {
    match shape {
        Shape::Object(payload) => add_payload(components, payload),
        Shape::List(inner) | Shape::Nullable(inner) => add_inner(components, inner),
        Shape::Text
        | Shape::Time
        | Shape::Txid
        | Shape::Uuid
        | Shape::Hash
        | Shape::Count
        | Shape::Number
        | Shape::Flag
        | Shape::OneOf(_)
        | Shape::Any => {}
    }
}

fn property(field: &Field) -> RefOr<Schema> {
    let mut schema = of(&field.shape, false);
    if let (RefOr::T(Schema::Object(object)), false) = (&mut schema, field.about.is_empty()) {
        object.description = Some(field.about.trim().to_owned());
    }
    schema
}

fn plain(kind: Type, is_nullable: bool) -> ObjectBuilder {
    let schema_type = if is_nullable { SchemaType::from_iter([kind, Type::Null]) } else { SchemaType::Type(kind) };
    ObjectBuilder::new().schema_type(schema_type)
}

fn of(shape: &Shape, is_nullable: bool) -> RefOr<Schema> {
    let text = |format: &str| plain(Type::String, is_nullable).format(Some(SchemaFormat::Custom(format.to_owned())));
    let whole = || plain(Type::Integer, is_nullable).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
    let object = match shape {
        Shape::Text => plain(Type::String, is_nullable),
        Shape::Time => text("date-time"),
        Shape::Uuid => text("uuid"),
        Shape::Txid | Shape::Hash => plain(Type::String, is_nullable).pattern(Some("^[0-9a-f]{64}$")),
        Shape::Count => whole().minimum(Some(0)),
        Shape::Number => whole(),
        Shape::Flag => plain(Type::Boolean, is_nullable),
        Shape::OneOf(words) => plain(Type::String, is_nullable).enum_values(Some(words.iter().copied())),
        Shape::Any => plain(Type::Object, is_nullable),
        Shape::List(inner) => {
            let list = ArrayBuilder::new().items(of(inner, false));
            let list =
                if is_nullable { list.schema_type(SchemaType::from_iter([Type::Array, Type::Null])) } else { list };
            return Schema::Array(list.build()).into();
        }
        Shape::Object(payload) => return Ref::from_schema_name(name(payload)).into(),
        Shape::Nullable(inner) => return of(inner, true),
    };
    Schema::Object(object.build()).into()
}

fn example(payload: &Payload) -> Value {
    let fields: Map<String, Value> =
        payload.fields.iter().map(|field| (field.name.to_owned(), example_of(field.name, &field.shape))).collect();
    Value::Object(fields)
}

fn example_of(name: &str, shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!(name),
        Shape::Time => json!(examples::TIME),
        Shape::Txid | Shape::Hash => json!(examples::TXID),
        Shape::Uuid => json!(examples::ID),
        Shape::Count | Shape::Number => json!(1_000),
        Shape::Flag => json!(true),
        Shape::OneOf(words) => json!(words.first()),
        Shape::Any => json!({}),
        Shape::List(inner) => json!([example_of(name, inner)]),
        Shape::Object(payload) => example(payload),
        Shape::Nullable(inner) => example_of(name, inner),
    }
}
