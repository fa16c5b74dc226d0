use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidelog_tls::{Authority, Credentials, PemFile};
use tidelog_wire::ids::{ClusterId, NodeId, TimestampMs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::routes::{PROMETHEUS, ROUTES};
use super::*;
use crate::broker::{FakeConsensus, Limits};

const LIMITS: Limits = Limits {
    batch_bytes: 1 << 20,
    fetch_bytes: 1 << 20,
    fetch_wait: Duration::from_secs(1),
    request: Duration::from_secs(1),
    segment_bytes: 1 << 20,
};

struct Served {
    front_end: AdminFrontEnd,
    address: SocketAddr,
    broker: Arc<Broker>,
}

fn serve() -> Served {
    let broker = Arc::new(Broker::new(NodeId(0), LIMITS, Arc::default()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut front_end = AdminFrontEnd::new(listener);
    let address = front_end.start(Arc::clone(&broker)).unwrap();
    Served { front_end, address, broker }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_node_is_alive_before_it_is_ready_and_ready_once_every_group_has_a_leader() {
    let served = serve();
    assert_eq!(ask(served.address, "GET", "/healthz").await.status, 200);
    let answer = ask(served.address, "GET", "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(json(&answer)["stage"], "recovering");
    assert_eq!(ask(served.address, "GET", "/v1/cluster").await.status, 503);

    let consensus = FakeConsensus::new(NodeId(0));
    let attached: Arc<FakeConsensus> = Arc::clone(&consensus);
    served.broker.attach(attached);
    let answer = ask(served.address, "GET", "/readyz").await;
    assert_eq!((answer.status, json(&answer)["ready"].as_bool()), (200, Some(true)));

    consensus.set_leader(tidelog_wire::ids::GroupId(1), None);
    let answer = ask(served.address, "GET", "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(json(&answer)["waiting_for_leader"], serde_json::json!([1]));
}

#[tokio::test]
async fn the_cluster_view_names_nodes_groups_and_their_members() {
    let served = serve();
    served.broker.attach(FakeConsensus::new(NodeId(0)));
    let view = json(&ask(served.address, "GET", "/v1/cluster").await);
    assert_eq!(view["cluster_id"].as_str().unwrap().len(), 32);
    assert_eq!(view["nodes"][0]["native"], "127.0.0.1:7400");
    assert_eq!(view["groups"][1]["leader"], 0);
    assert_eq!(view["groups"][1]["peers"][0]["match_index"], 10);
}

/// Every sample of the page belongs to a family that was announced once, with help and type.
#[tokio::test]
async fn the_metrics_page_keeps_the_text_format() {
    let served = serve();
    served.broker.attach(FakeConsensus::new(NodeId(0)));
    let answer = ask(served.address, "GET", "/metrics").await;
    assert!(answer.head.contains(&PROMETHEUS.to_ascii_lowercase()), "{}", answer.head);
    let mut families = BTreeSet::new();
    for line in answer.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(families.insert(name.to_owned()), "{name} is announced twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let known = families.contains(name) || family.is_some_and(|family| families.contains(family));
            assert!(known, "{line} belongs to no family");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for family in [
        "tidelog_appends_total",
        "tidelog_append_bytes_total",
        "tidelog_append_seconds",
        "tidelog_fsync_seconds",
        "tidelog_raft_term",
        "tidelog_raft_committed_index",
        "tidelog_raft_applied_index",
        "tidelog_replication_lag_entries",
        "tidelog_open_files",
        "tidelog_disk_used_bytes",
        "tidelog_recovery_groups_done",
    ] {
        assert!(families.contains(family), "{family} is missing");
    }
    assert!(answer.body.contains("tidelog_replication_lag_entries{group=\"1\",node=\"8\"} 2\n"));
}

#[tokio::test]
async fn the_openapi_document_describes_exactly_the_paths_that_are_served() {
    let served = serve();
    let document = json(&ask(served.address, "GET", "/openapi.json").await);
    let described: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let declared: BTreeSet<&str> = ROUTES.iter().map(|route| route.path).collect();
    assert_eq!(described, declared);
    for route in ROUTES {
        let answer = ask(served.address, "GET", route.path).await;
        let described = &document["paths"][route.path]["get"]["responses"][answer.status.to_string()];
        assert!(described.is_object(), "{} answered {}, which is not described", route.path, answer.status);
        let content = described["content"].as_object().unwrap().keys().next().unwrap();
        assert!(answer.head.contains(&content.to_ascii_lowercase()), "{}: {}", route.path, answer.head);
    }
}

#[tokio::test]
async fn what_is_not_there_is_answered_in_json_with_what_is() {
    let served = serve();
    let answer = ask(served.address, "GET", "/v2/cluster").await;
    assert_eq!(answer.status, 404);
    assert!(json(&answer)["error"].as_str().unwrap().contains("/v1/cluster"));
    assert_eq!(ask(served.address, "POST", "/readyz").await.status, 405);
}

#[tokio::test]
async fn bytes_that_are_no_http_harm_nobody_else() {
    let served = serve();
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&[0xff; 70_000]).await.unwrap_or_default();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap_or_default();
    assert_eq!(ask(served.address, "GET", "/healthz").await.status, 200);
}

#[tokio::test]
async fn a_stopped_front_end_no_longer_answers() {
    let mut served = serve();
    served.front_end.stop(Duration::from_secs(5)).await;
    assert!(TcpStream::connect(served.address).await.is_err());
}

/// Credentials whose certificate expires: only then is that measured.
fn expiring() -> Credentials {
    let end = TimestampMs(1_900_000_000_000);
    let authority = Authority::create(ClusterId(7)).unwrap().expiring(end);
    let pair = authority.issue_node(NodeId(0)).unwrap();
    let file = |text| PemFile { path: std::path::Path::new("n.pem"), text };
    Credentials::parse(&file(authority.cert_pem()), &file(&pair.cert), &file(&pair.key)).unwrap()
}

/// The page for operators lists every path and every family of samples, in the words of the code.
#[tokio::test]
async fn the_operators_page_lists_all_paths_and_metrics() {
    let page = include_str!("../../../docs/operations/admin.md");
    let served = serve();
    served.broker.attach(FakeConsensus::new(NodeId(0)));
    served.broker.attach_credentials(expiring());
    for route in ROUTES {
        let row = format!("| `{}` | {} |\n", route.path, route.summary);
        assert!(page.contains(&row), "docs/operations/admin.md lacks the row: {row}");
    }
    let metrics = ask(served.address, "GET", "/metrics").await.body;
    let mut families = BTreeSet::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        families.insert(name.to_owned());
        let row = format!("| `{name}` | {help} |\n");
        assert!(page.contains(&row), "docs/operations/admin.md lacks the row: {row}");
    }
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `tidelog_")?.split('`').next());
    for name in listed {
        assert!(families.contains(&format!("tidelog_{name}")), "nobody measures tidelog_{name} any more");
    }
}
