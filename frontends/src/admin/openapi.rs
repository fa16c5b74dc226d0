//! The OpenAPI document, made from the table of routes.

use serde_json::{Map, Value, json};

use super::routes::ROUTES;

/// The description of every route.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let mut responses = Map::new();
        for (status, content, meaning) in route.answers {
            let schema = if *content == "application/json" {
                json!({ "type": "object" })
            } else {
                json!({ "type": "string" })
            };
            responses.insert(
                status.to_string(),
                json!({ "description": meaning, "content": { *content: { "schema": schema } } }),
            );
        }
        let operation =
            json!({ "operationId": route.operation, "summary": route.summary, "responses": responses });
        paths.insert(route.path.to_owned(), json!({ "get": operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tidelog admin",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What one node of a tidelog cluster tells operators. Read only, loopback only.",
        },
        "paths": paths,
    })
}
