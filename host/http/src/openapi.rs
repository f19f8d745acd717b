//! The OpenAPI document, made from the types and handlers.

use crate::state::App;
use crate::{
    auth, events, health, metrics, operator, operator_leases, operator_sales, orders, pay, pods,
    readiness, terminal,
};
use std::sync::{Arc, LazyLock};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(OpenApi)]
#[openapi(
    info(title = "Paygress", description = "SSH pods for Cashu tokens. Every problem is RFC 9457 with a stable `error_type`; unless a \
        `refund_token` comes with it, nothing was taken."),
    modifiers(&Security),
    tags((name = "customer", description = "Buying and using pods"), (name = "wallet", description = "Where wallets pay"),
        (name = "operator", description = "Running it"))
)]
struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let described = |scheme: HttpAuthScheme, description: &str| {
            let mut http = Http::new(scheme);
            http.description = Some(description.to_owned());
            SecurityScheme::Http(http)
        };
        let header = |description: &str| {
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "Authorization",
                description,
            )))
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "bearer",
            described(HttpAuthScheme::Bearer, "The bearer_token that came with the pod, or one of your own: 32 to 256 random characters"),
        );
        components
            .add_security_scheme("operator", described(HttpAuthScheme::Bearer, "OPERATOR_TOKEN"));
        components.add_security_scheme(
            "nip98",
            header("`Nostr` and a NIP-98 event in base64, with the body's hash in its tag payload"),
        );
        components.add_security_scheme("cashu", header("`Cashu` and the token that pays"));
    }
}

/// The routes with their description.
pub(crate) fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(orders::spawn))
        .routes(routes!(orders::top_up))
        .routes(routes!(orders::order))
        .routes(routes!(pods::offers))
        .routes(routes!(pods::list))
        .routes(routes!(pods::status, pods::stop))
        .routes(routes!(pods::access))
        .routes(routes!(events::events))
        .routes(routes!(terminal::terminal))
        .routes(routes!(auth::auth))
        .routes(routes!(pay::pay))
        .routes(routes!(operator::overview))
        .routes(routes!(operator::history))
        .routes(routes!(operator_leases::leases))
        .routes(routes!(operator_leases::end))
        .routes(routes!(operator_sales::sales, operator_sales::set_sales))
        .routes(routes!(metrics::metrics))
        .routes(routes!(health::healthz))
        .routes(routes!(readiness::readyz))
}

/// The OpenAPI document as JSON. It is made once.
#[must_use]
pub fn openapi() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let (_, document) = api().split_for_parts();
        document.to_pretty_json().unwrap_or_default()
    });
    &DOCUMENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_endpoint_is_described() {
        let document: serde_json::Value = serde_json::from_str(openapi()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let described = document["paths"].as_object().unwrap().keys().map(String::as_str);
        let expected = BTreeSet::from([
            "/auth",
            "/healthz",
            "/metrics",
            "/offers",
            "/operator/history",
            "/operator/leases",
            "/operator/leases/{name}",
            "/operator/overview",
            "/operator/sales",
            "/orders/{id}",
            "/pay",
            "/pods",
            "/pods/{name}",
            "/pods/{name}/access",
            "/pods/{name}/events",
            "/pods/{name}/terminal",
            "/readyz",
            "/spawn-pod",
            "/top-up-pod",
        ]);
        assert_eq!(described.collect::<BTreeSet<_>>(), expected);
        assert!(document["components"]["schemas"]["AccessDetails"].is_object());
    }

    #[test]
    fn the_type_of_each_response_is_described_as_it_is_sent() {
        let document: serde_json::Value = serde_json::from_str(openapi()).unwrap();
        for (tag, sent) in [
            ("AccessDetailsTag", "access_details"),
            ("TopUpResponseTag", "top_up_response"),
            ("StatusResponseTag", "status_response"),
            ("StopResponseTag", "stop_response"),
        ] {
            let described = &document["components"]["schemas"][tag]["enum"];
            assert_eq!(*described, serde_json::json!([sent]), "{tag}");
        }
    }
}
