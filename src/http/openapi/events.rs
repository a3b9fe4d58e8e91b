//! The events in the document: a list of their kinds, and a schema for what each tells.

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{
    AnyOf, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Components, Ref, RefOr};

use crate::flows::values::{EVENT_KINDS, EventField, EventPayload, EventShape};
use crate::http::api::examples;

/// The schema that lists all kinds.
const KIND: &str = "EventKind";
/// The schema of an event, whose data is described here.
const EVENT: &str = "Event";

/// What the schema of a payload is called.
fn name(payload: &EventPayload) -> String {
    format!("{}Data", payload.name)
}

pub fn add(components: &mut Components) {
    for kind in EVENT_KINDS {
        add_payload(components, kind.payload);
    }
    components.schemas.insert(KIND.to_owned(), kinds());
    if let Some(RefOr::T(Schema::Object(event))) = components.schemas.get_mut(EVENT) {
        event.properties.insert("kind".to_owned(), Ref::from_schema_name(KIND).into());
        event.properties.insert("data".to_owned(), any_data());
    }
}

fn kinds() -> RefOr<Schema> {
    let lines: Vec<String> = EVENT_KINDS
        .iter()
        .map(|kind| format!("- `{}` ({}): {}", kind.name, name(kind.payload), kind.about.trim()))
        .collect();
    let mut schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(EVENT_KINDS.iter().map(|kind| kind.name)))
        .description(Some(format!(
            "What happened, and in brackets the schema of its data. More kinds may be added.\n\n{}",
            lines.join("\n")
        )))
        .build();
    schema.example = EVENT_KINDS.first().map(|kind| kind.name.into());
    Schema::Object(schema).into()
}

fn any_data() -> RefOr<Schema> {
    let mut all: Vec<&EventPayload> = Vec::new();
    for kind in EVENT_KINDS {
        if !all.iter().any(|known| known.name == kind.payload.name) {
            all.push(kind.payload);
        }
    }
    let items = all.into_iter().map(|payload| Ref::from_schema_name(name(payload)).into()).collect();
    let about = "What the kind tells. Fields may be added.".to_owned();
    Schema::AnyOf(AnyOf { items, description: Some(about), ..AnyOf::new() }).into()
}

fn add_payload(components: &mut Components, payload: &EventPayload) {
    if components.schemas.contains_key(&name(payload)) {
        return;
    }
    for field in payload.fields {
        add_inner(components, &field.shape);
    }
    let mut object = ObjectBuilder::new().schema_type(Type::Object).description(Some(payload.about.trim()));
    for field in payload.fields {
        object = object.property(field.name, property(field));
        if !matches!(field.shape, EventShape::Nullable(_)) {
            object = object.required(field.name);
        }
    }
    let mut object = object.build();
    object.example = Some(example(payload));
    components.schemas.insert(name(payload), Schema::Object(object).into());
}

fn add_inner(components: &mut Components, shape: &EventShape) {
    match shape {
        EventShape::Object(payload) => add_payload(components, payload),
        EventShape::List(inner) | EventShape::Nullable(inner) => add_inner(components, inner),
        EventShape::Text
        | EventShape::Time
        | EventShape::Txid
        | EventShape::Uuid
        | EventShape::Hash
        | EventShape::Count
        | EventShape::Number
        | EventShape::Flag
        | EventShape::OneOf(_)
        | EventShape::Any => {}
    }
}

fn property(field: &EventField) -> RefOr<Schema> {
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

fn of(shape: &EventShape, is_nullable: bool) -> RefOr<Schema> {
    let text = |format: &str| plain(Type::String, is_nullable).format(Some(SchemaFormat::Custom(format.to_owned())));
    let whole = || plain(Type::Integer, is_nullable).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
    let object = match shape {
        EventShape::Text => plain(Type::String, is_nullable),
        EventShape::Time => text("date-time"),
        EventShape::Uuid => text("uuid"),
        EventShape::Txid | EventShape::Hash => plain(Type::String, is_nullable).pattern(Some("^[0-9a-f]{64}$")),
        EventShape::Count => whole().minimum(Some(0)),
        EventShape::Number => whole(),
        EventShape::Flag => plain(Type::Boolean, is_nullable),
        EventShape::OneOf(words) => plain(Type::String, is_nullable).enum_values(Some(words.iter().copied())),
        EventShape::Any => plain(Type::Object, is_nullable),
        EventShape::List(inner) => {
            let list = ArrayBuilder::new().items(of(inner, false));
            let list =
                if is_nullable { list.schema_type(SchemaType::from_iter([Type::Array, Type::Null])) } else { list };
            return Schema::Array(list.build()).into();
        }
        EventShape::Object(payload) => return Ref::from_schema_name(name(payload)).into(),
        EventShape::Nullable(inner) => return of(inner, true),
    };
    Schema::Object(object.build()).into()
}

fn example(payload: &EventPayload) -> Value {
    let fields: Map<String, Value> =
        payload.fields.iter().map(|field| (field.name.to_owned(), example_of(field.name, &field.shape))).collect();
    Value::Object(fields)
}

fn example_of(name: &str, shape: &EventShape) -> Value {
    match shape {
        EventShape::Text => json!(name),
        EventShape::Time => json!(examples::TIME),
        EventShape::Txid | EventShape::Hash => json!(examples::TXID),
        EventShape::Uuid => json!(examples::ID),
        EventShape::Count | EventShape::Number => json!(1_000),
        EventShape::Flag => json!(true),
        EventShape::OneOf(words) => json!(words.first()),
        EventShape::Any => json!({}),
        EventShape::List(inner) => json!([example_of(name, inner)]),
        EventShape::Object(payload) => example(payload),
        EventShape::Nullable(inner) => example_of(name, inner),
    }
}
