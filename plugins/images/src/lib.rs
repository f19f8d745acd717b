//! The default images policy: an allowlist.
//!
//! An entry allows one image (`registry/repository:tag`), one digest
//! (`registry/repository@sha256:…`) or a whole repository (`registry/repository`). Images are
//! compared in their complete form: `alpine`, `docker.io/alpine` and
//! `docker.io/library/alpine:latest` are the same image, and the port in `registry:5000/x` is never
//! mistaken for a tag.

#[allow(unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/1.0", world: "images-policy" });
}

#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)]
mod component {
    use super::{Policy, bindings};
    bindings::export!(Policy with_types_in bindings);
}

mod reference;

use bindings::exports::paygress::policy::{images, settings};
use bindings::paygress::policy::types::{Context, ImageRef, Order, Problem, Refusal};
use paygress_plugin_settings::{SettingsReader, truncate_message};
use reference::{MAX_NAME_BYTES, Reference};

/// The image that `cargo xtask images` builds.
const DEFAULT_IMAGE: &str = "paygress.local/ssh:1";

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Image allowlist",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "default": {
      "type": "string", "default": "paygress.local/ssh:1",
      "description": "The image of orders that do not name one; always allowed."
    },
    "allow": {
      "type": "array", "items": {"type": "string"}, "default": [],
      "description": "The images that customers may choose: registry/repository:tag, registry/repository@sha256:… or registry/repository (all its tags and digests)."
    }
  }
}"#;

pub struct Policy;

#[derive(Debug, Clone)]
struct Settings {
    default: Reference,
    allow: Vec<Reference>,
}

paygress_plugin_settings::export_settings!(Policy, Settings, SCHEMA, parse_settings);

impl images::Guest for Policy {
    fn admit(order: Order, _: Context) -> Result<ImageRef, Refusal> {
        let settings = SETTINGS.with_borrow(Clone::clone);
        let Some(settings) = settings else {
            return Err(refuse("the images policy is not configured"));
        };
        let reference = admit(&settings, order.image.as_deref())?.to_string();
        Ok(ImageRef { reference })
    }
}

fn refuse(message: impl std::fmt::Display) -> Refusal {
    let message = truncate_message(&message.to_string());
    Refusal { code: "image_not_allowed".to_owned(), message }
}

fn parse_settings(json: &str) -> Result<Settings, Vec<paygress_plugin_settings::Problem>> {
    let mut reader = SettingsReader::parse(json);
    let default = reader.string("default", DEFAULT_IMAGE, MAX_NAME_BYTES);
    let default = match Reference::parse(&default) {
        Ok(reference) => Some(reference.complete()),
        Err(error) => {
            reader.problem("default", error.to_string());
            None
        }
    };
    let mut allow = Vec::new();
    for (index, entry) in reader.strings("allow").unwrap_or_default().iter().enumerate() {
        match Reference::parse(entry) {
            Ok(reference) => allow.push(reference),
            Err(error) => reader.problem("allow", format!("entry {index}: {error}")),
        }
    }
    match default {
        Some(default) => reader.finish(Settings { default, allow }),
        None => Err(reader.into_problems()),
    }
}

/// The complete reference of the requested image, if it is allowed.
fn admit(settings: &Settings, requested: Option<&str>) -> Result<Reference, Refusal> {
    let Some(requested) = requested else { return Ok(settings.default.clone()) };
    let requested = Reference::parse(requested).map_err(refuse)?.complete();
    if requested == settings.default || settings.allow.iter().any(|entry| entry.allows(&requested))
    {
        return Ok(requested);
    }
    // The remedy first: a long name may be cut off.
    Err(refuse(format!(
        "this image is not on the operator's list; leave pod_image out to get {}; requested was {requested}",
        settings.default
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow: &[&str]) -> Settings {
        parse_settings(
            &serde_json::json!({"default": "example.com:5000/ssh:1", "allow": allow}).to_string(),
        )
        .unwrap()
    }

    #[test]
    fn messages_keep_to_the_limit_of_the_contract() {
        let long = format!("registry.example/{}", "a".repeat(490));
        let settings = parse_settings(&serde_json::json!({"default": long}).to_string()).unwrap();
        let refusal = admit(&settings, Some(&long.replace('a', "b"))).unwrap_err();
        let message = refusal.message;
        assert!(message.len() <= 500 && message.ends_with('…'), "{message}");
        let many: serde_json::Map<_, _> =
            (0..5_000).map(|n| (format!("ü{n}"), serde_json::json!(1))).collect();
        let problems = parse_settings(&serde_json::Value::Object(many).to_string()).unwrap_err();
        assert_eq!(problems.len(), 64);
    }

    #[test]
    fn an_order_without_an_image_gets_the_default() {
        assert_eq!(admit(&settings(&[]), None).unwrap().to_string(), "example.com:5000/ssh:1");
        assert_eq!(admit(&parse_settings("{}").unwrap(), None).unwrap().to_string(), DEFAULT_IMAGE);
    }

    #[test]
    fn an_entry_with_a_tag_allows_that_tag_only() {
        let settings = settings(&["alpine:3.20"]);
        assert_eq!(
            admit(&settings, Some("docker.io/library/alpine:3.20")).unwrap().to_string(),
            "docker.io/library/alpine:3.20"
        );
        let digest = format!("alpine:3.20@sha256:{}", "a".repeat(64));
        for bad in [
            "alpine",
            "alpine:latest",
            "alpine:3.20.1",
            "evil/alpine:3.20",
            "alpine.evil:3.20/x",
            digest.as_str(),
        ] {
            assert!(admit(&settings, Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_repository_entry_allows_its_tags_and_digests() {
        let settings = settings(&["registry.example:5000/team/tools"]);
        let digest = format!("registry.example:5000/team/tools@sha256:{}", "0".repeat(64));
        for good in [
            "registry.example:5000/team/tools",
            "registry.example:5000/team/tools:v1",
            digest.as_str(),
        ] {
            assert!(admit(&settings, Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "registry.example/team/tools",
            "registry.example:5001/team/tools",
            "team/tools",
            "registry.example:5000/team/tools/x",
            "registry.example:5000/team/toolsx",
        ] {
            assert!(admit(&settings, Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_entry_with_a_digest_allows_that_digest_whatever_the_tag() {
        let digest = format!("sha256:{}", "b".repeat(64));
        let settings = settings(&[&format!("alpine@{digest}")]);
        let admitted = admit(&settings, Some(&format!("alpine:any@{digest}"))).unwrap();
        assert_eq!(
            admitted.to_string(),
            format!("docker.io/library/alpine@{digest}"),
            "a tag beside a digest is dropped"
        );
        assert!(admit(&settings, Some(&format!("alpine@sha256:{}", "c".repeat(64)))).is_err());
        assert!(admit(&settings, Some("alpine")).is_err());
    }

    #[test]
    fn all_problems_of_the_settings_are_reported_at_once() {
        let problems =
            parse_settings(r#"{"default": "UPPER", "allow": ["ok", "bad image", 3], "typo": 1}"#)
                .unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["/default", "/allow/2", "/allow", "/typo"]);
        assert!(
            serde_json::from_str::<serde_json::Value>(SCHEMA).unwrap()["properties"]["allow"]
                .is_object()
        );
    }
}
