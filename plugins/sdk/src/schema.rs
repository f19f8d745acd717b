//! The JSON Schema of a struct of settings.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The schema: without references, and without what says nothing to an operator. Lines of a comment
/// are joined; a setting that may be left out may not be null.
#[must_use]
pub fn schema<S: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<S>().to_value();
    simplify(&mut schema);
    schema
}

fn simplify(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    if let Some(Value::String(format)) = keywords.remove("format") {
        match format.as_str() {
            "uint32" if !keywords.contains_key("maximum") => {
                keywords.insert("maximum".to_owned(), u32::MAX.into());
            }
            _ if format.contains("int") => {}
            _ => drop(keywords.insert("format".to_owned(), format.into())),
        }
    }
    if let Some(kind) = keywords.get_mut("type")
        && let Value::Array(kinds) = kind
    {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            *kind = only.clone();
        }
    }
    if let Some(Value::Array(values)) = keywords.get_mut("enum") {
        values.retain(|value| !value.is_null());
        keywords.remove("type");
    }
    if keywords.get("default").is_some_and(Value::is_null) {
        keywords.remove("default");
    }
    if let Some(Value::String(description)) = keywords.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = keywords.get_mut(keyword) {
            simplify(inner);
        }
    }
    if let Some(Value::Object(properties)) = keywords.get_mut("properties") {
        properties.values_mut().for_each(simplify);
    }
}
