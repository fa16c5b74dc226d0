//! The routes of admin HTTP, each declared once: the router and the OpenAPI document are both made from this table.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};

use super::AdminState;
use super::{metrics, openapi};

/// One route. All of them are `GET`: admin HTTP changes nothing.
pub(super) struct Route {
    /// Its path.
    pub(super) path: &'static str,
    /// Its name in the OpenAPI document.
    pub(super) operation: &'static str,
    /// What it tells.
    pub(super) summary: &'static str,
    /// What its answers mean: status, content type, description.
    pub(super) answers: &'static [(u16, &'static str, &'static str)],
    serve: fn() -> MethodRouter<AdminState>,
}

const JSON: &str = "application/json";
/// Content type of Prometheus's text format.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// All routes.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/healthz",
        operation: "health",
        summary: "Whether the process lives. Says nothing about serving: see /readyz.",
        answers: &[(200, JSON, "It lives.")],
        serve: || get(health),
    },
    Route {
        path: "/readyz",
        operation: "readiness",
        summary: "Whether the node serves, with the progress of its recovery and the replicas that do not run.",
        answers: &[
            (200, JSON, "Every group has a leader and all replicas of this node run."),
            (503, JSON, "Not yet, or no longer; the answer says what is missing."),
        ],
        serve: || get(readiness),
    },
    Route {
        path: "/metrics",
        operation: "metrics",
        summary: "Everything that is counted, for Prometheus.",
        answers: &[(200, PROMETHEUS, "Families of samples.")],
        serve: || get(metrics_page),
    },
    Route {
        path: "/v1/cluster",
        operation: "cluster",
        summary: "Nodes, groups and channels as this node sees them.",
        answers: &[
            (200, JSON, "The view of this node."),
            (503, JSON, "The node is starting and has no view yet."),
        ],
        serve: || get(cluster),
    },
    Route {
        path: "/openapi.json",
        operation: "openapi",
        summary: "This description.",
        answers: &[(200, JSON, "An OpenAPI 3.1 document.")],
        serve: || get(description),
    },
];

/// The router of all routes.
pub(super) fn router(state: AdminState) -> Router {
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.serve)()))
        .fallback(unknown)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

async fn health(State(state): State<AdminState>) -> Json<Value> {
    state.count();
    Json(json!({ "status": "alive", "node": state.broker.node(), "version": env!("CARGO_PKG_VERSION") }))
}

async fn readiness(State(state): State<AdminState>) -> Response {
    state.count();
    let readiness = state.broker.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics_page(State(state): State<AdminState>) -> Response {
    state.count();
    ([(header::CONTENT_TYPE, PROMETHEUS)], metrics::page(&state.broker)).into_response()
}

async fn cluster(State(state): State<AdminState>) -> Response {
    state.count();
    match state.broker.cluster() {
        Some(view) => Json(view).into_response(),
        None => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "the node is starting: ask again once /readyz says 200")
        }
    }
}

async fn description(State(state): State<AdminState>) -> Json<Value> {
    state.count();
    Json(openapi::document())
}

async fn unknown(State(state): State<AdminState>) -> Response {
    state.count();
    let paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
    problem(StatusCode::NOT_FOUND, &format!("no such path; there are {}", paths.join(", ")))
}

async fn method_not_allowed(State(state): State<AdminState>) -> Response {
    state.count();
    problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered: admin HTTP changes nothing")
}

fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
