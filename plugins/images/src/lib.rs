//! The default images policy: an allowlist.
//!
//! An entry allows one image (`registry/repository:tag`), one digest
//! (`registry/repository@sha256:…`) or a whole repository (`registry/repository`). Images are
//! compared after they were made complete, so that `alpine`,
//! `docker.io/alpine` and `docker.io/library/alpine:latest` are the same, and `registry:5000/x` is
//! never taken for a tag.

#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::restriction)]
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
use paygress_plugin_settings::{Reader, cut};
use reference::Reference;

/// What runs when the customer names no image: the one that `cargo xtask ssh-image` makes.
const DEFAULT: &str = "paygress.local/ssh:1";

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Image allowlist",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "default": {
      "type": "string", "default": "paygress.local/ssh:1",
      "description": "The image of orders that name none; always allowed."
    },
    "allow": {
      "type": "array", "items": {"type": "string"}, "default": [],
      "description": "What customers may ask for: registry/repository:tag, registry/repository@sha256:… or registry/repository (every tag and digest of it)."
    }
  }
}"#;

/// The policy.
pub struct Policy;

#[derive(Debug, Clone)]
struct Settings {
    default: Reference,
    allow: Vec<Reference>,
}

paygress_plugin_settings::kept!(Policy, Settings, SCHEMA, read);

impl images::Guest for Policy {
    fn admit(order: Order, _: Context) -> Result<ImageRef, Refusal> {
        let settings = SETTINGS.with_borrow(Clone::clone);
        let Some(settings) = settings else {
            return Err(refuse("the image policy is not configured"));
        };
        admit(&settings, order.image.as_deref())
            .map(|reference| ImageRef { reference })
            .map_err(refuse)
    }
}

fn refuse(message: impl Into<String>) -> Refusal {
    Refusal { code: "image_not_allowed".to_owned(), message: cut(&message.into()) }
}

fn read(json: &str) -> Result<Settings, Vec<(String, String)>> {
    let mut reader = Reader::parse(json);
    let default = reader.text("default", DEFAULT, 512);
    let default = match Reference::parse(&default) {
        Ok(reference) => Some(reference.complete()),
        Err(why) => {
            reader.problem("default", why);
            None
        }
    };
    let mut allow = Vec::new();
    for (index, entry) in reader.texts("allow").unwrap_or_default().iter().enumerate() {
        match Reference::parse(entry) {
            Ok(reference) => allow.push(reference),
            Err(why) => reader.problem("allow", format!("entry {index}: {why}")),
        }
    }
    let problems = reader.problems();
    match default {
        Some(default) if problems.is_empty() => Ok(Settings { default, allow }),
        _ => Err(problems),
    }
}

/// The complete reference of the wanted image, if it is allowed.
fn admit(settings: &Settings, wanted: Option<&str>) -> Result<String, String> {
    let Some(wanted) = wanted else { return Ok(settings.default.to_string()) };
    let wanted = Reference::parse(wanted)?.complete();
    if wanted == settings.default || settings.allow.iter().any(|entry| entry.allows(&wanted)) {
        return Ok(wanted.to_string());
    }
    Err(format!(
        "that image is not on the operator's list; leave pod_image out to get {}; asked for was {wanted}",
        settings.default
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow: &[&str]) -> Settings {
        read(&serde_json::json!({"default": "example.com:5000/ssh:1", "allow": allow}).to_string())
            .unwrap()
    }

    #[test]
    fn what_is_told_is_short_enough_however_long_the_names_are() {
        let long = format!("registry.example/{}", "a".repeat(490));
        let settings = read(&serde_json::json!({"default": long}).to_string()).unwrap();
        let told = refuse(admit(&settings, Some(&long.replace('a', "b"))).unwrap_err());
        assert!(told.message.len() <= 500 && told.message.ends_with('…'), "{}", told.message);
        let many: serde_json::Map<_, _> =
            (0..5_000).map(|n| (format!("ü{n}"), serde_json::json!(1))).collect();
        let problems = read(&serde_json::Value::Object(many).to_string()).unwrap_err();
        assert_eq!(problems.len(), 64);
    }

    #[test]
    fn no_wish_is_the_default() {
        assert_eq!(admit(&settings(&[]), None).unwrap(), "example.com:5000/ssh:1");
        assert_eq!(admit(&read("{}").unwrap(), None).unwrap(), DEFAULT);
    }

    #[test]
    fn an_exact_entry_allows_that_tag_only() {
        let settings = settings(&["alpine:3.20"]);
        assert_eq!(
            admit(&settings, Some("docker.io/library/alpine:3.20")).unwrap(),
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
    fn a_digest_entry_allows_that_digest_whatever_the_tag_claims() {
        let digest = format!("sha256:{}", "b".repeat(64));
        let settings = settings(&[&format!("alpine@{digest}")]);
        let admitted = admit(&settings, Some(&format!("alpine:any@{digest}"))).unwrap();
        assert_eq!(
            admitted,
            format!("docker.io/library/alpine@{digest}"),
            "the tag, which means nothing, is dropped"
        );
        assert!(admit(&settings, Some(&format!("alpine@sha256:{}", "c".repeat(64)))).is_err());
        assert!(admit(&settings, Some("alpine")).is_err());
    }

    #[test]
    fn settings_tell_all_problems_at_once() {
        let problems = read(r#"{"default": "UPPER", "allow": ["ok", "bad image", 3], "typo": 1}"#)
            .unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["/default", "/allow/2", "/allow", "/typo"]);
        assert!(
            serde_json::from_str::<serde_json::Value>(SCHEMA).unwrap()["properties"]["allow"]
                .is_object()
        );
    }
}
